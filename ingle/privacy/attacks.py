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
from ingle.privacy.filter import Profile, rules
from ingle.privacy.witness import Places


def attacks(profile: Profile, programs: bool, landlock: int, at: Places) -> list[Attack]:
    """What is tried on a process of a profile, on this machine.

    landlock: its ABI; without it nothing confines files, which the seal then says. With `programs`,
    others may be started, and may be told to stop: they are tried for what gets out.
    """
    tried = [*NETWORK, *LOCAL, *PROCESS, *(X86_64 if platform.machine() == "x86_64" else ())]
    tried.append(_void_calls(profile, programs))
    missing = {"UDP-Lite": at.udplite, "UDP, IPv6": at.udp6, "TCP, IPv6": at.tcp6,
               "TCP, own address": at.own_port}  # fmt: skip
    tried = [attack for attack in tried if missing.get(attack.name, True)]
    if landlock == 0:
        tried = [attack for attack in tried if attack.layer != "landlock"]
    if programs:
        several = {"program", "program in memory"}
        signals = {"signal", "other signals"}  # Landlock's scope, from ABI 6
        tried = [
            replace(attack, answers=(), effect=False) if attack.name in several
            else replace(attack, answers=()) if attack.name in signals
            else attack
            for attack in tried if landlock >= 6 or attack.name not in signals
        ]  # fmt: skip
    if profile == "private-net":
        inside = {attack.name for attack in NETWORK} | {"child process", "thread"}
        tried = [
            replace(attack, answers=(), effect=False) if attack.name in inside else attack
            for attack in tried if not (attack.bait and attack.name in inside)
        ]  # fmt: skip
    return tried


def _void_calls(profile: Profile, programs: bool) -> Attack:
    names = [
        name for rule in rules(profile, programs, 0) if not rule.unless and rule.error == EPERM
        for name in rule.calls
    ]  # fmt: skip
    run = partial(void_calls, names)
    run.__doc__ = void_calls.__doc__
    return Attack(f"{len(names)} calls", run)
