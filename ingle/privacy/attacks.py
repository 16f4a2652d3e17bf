"""All attempts on the seal, and which of them a seal has to answer for."""

from __future__ import annotations

import platform
from dataclasses import replace
from functools import partial

from ingle.privacy.attacks_local import LOCAL
from ingle.privacy.attacks_network import NETWORK
from ingle.privacy.attacks_process import PROCESS, X86_64, void_calls
from ingle.privacy.attempt import Attack
from ingle.privacy.bpf import EPERM
from ingle.privacy.filter import Profile, Starts, rules
from ingle.privacy.witness import Places


def attacks(profile: Profile, starts: Starts, landlock: int, at: Places) -> list[Attack]:
    """What is tried on a process of a profile, on this machine.

    landlock: its ABI; without it nothing confines files, which the seal then says. Where programs
    may be started, they are tried for what gets out.
    """
    tried = [*NETWORK, *LOCAL, *PROCESS, *(X86_64 if platform.machine() == "x86_64" else ())]
    tried.append(_void_calls(profile, starts))
    missing = {"UDP-Lite": at.udplite, "UDP, IPv6": at.udp6, "TCP, IPv6": at.tcp6,
               "TCP, own address": at.own_port}  # fmt: skip
    tried = [attack for attack in tried if missing.get(attack.name, True)]
    if landlock == 0:
        tried = [attack for attack in tried if attack.layer != "landlock"]
    harmless: set[str] = set()
    if starts == "programs":
        harmless |= {"program", "program in memory"}
    if profile == "private-net":  # it holds no socket of the machine's network: no bait
        harmless |= {attack.name for attack in NETWORK} | {"child process", "thread"}
        tried = [attack for attack in tried if not (attack.bait and attack.name in harmless)]
    if starts != "nothing" and landlock < 6:
        tried = [attack for attack in tried if attack.name not in ("signal", "other signals")]
    return [
        replace(attack, answers=(), effect=False) if attack.name in harmless else attack
        for attack in tried
    ]


def _void_calls(profile: Profile, starts: Starts) -> Attack:
    names = [
        name for rule in rules(profile, starts, 0) if not rule.unless and rule.error == EPERM
        for name in rule.calls
    ]  # fmt: skip
    run = partial(void_calls, names)
    run.__doc__ = void_calls.__doc__
    return Attack(f"{len(names)} calls", run)
