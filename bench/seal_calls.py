"""What the seal adds to a system call, and how many calls a token needs.

    python bench/seal_calls.py [--rounds 30] [--json]

The kernel runs the seal's filter once for each system call and nowhere else, so what it costs is
calls times the cost of one. That cost is the difference between children that have closed the seal
and children that have not, in turn, medians. Calls of a token are counted by strace on the real
server: an answer of 600 tokens less one of 100, streamed;
a whole request with its connection is one of two tokens. Unlike the speeds of two servers
(bench/seal.py) this can be seen on a noisy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from seal import ask, server

from ingle.engine.llm import LLM
from ingle.privacy.seal import seal

CALLS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    cost = {"sealed": [], "unsealed": []}  # type: dict[str, list[float]]
    for _ in range(args.rounds):
        for name in cost:
            cost[name].append(_in_child(name == "sealed"))
    medians = {name: statistics.median(values) for name, values in cost.items()}
    added = medians["sealed"] - medians["unsealed"]
    found = _calls_of_a_token()
    calls, microseconds = found["token"]
    facts = {
        "call_ns": {name: 1e9 * value for name, value in medians.items()},
        "added_ns": 1e9 * added,
        "calls_per_token": calls,
        "token_us": microseconds,
        "share": None if calls is None else 1e6 * added * calls / microseconds,
        "calls_of_a_request": found["first"][0],
        "first_token_us": found["first"][1],
    }
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    print(f"a call of {len(_CALLS)} kinds: {1e9 * medians['unsealed']:.0f} ns, sealed "
          f"{1e9 * medians['sealed']:.0f} ns: {1e9 * added:+.0f} ns")  # fmt: skip
    if calls is None:
        print("No strace here: the calls of a token are not counted.")
    else:
        print(f"{calls:.1f} calls a token, which takes {microseconds:.0f} us: the seal costs "
              f"{facts['share']:.3%}")  # fmt: skip
        count, wait = found["first"]
        print(f"{count:.0f} calls for a whole short request, which comes after {wait:.0f} us: "
              f"{1e6 * added * count / wait:.3%}")  # fmt: skip


def _in_child(sealed: bool) -> float:
    """Seconds a call, the mean over the kinds of calls that a server makes most."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        if sealed:
            seal()
        os.write(write, repr(_time_calls()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        return float(pipe.read())


def _time_calls() -> float:
    import select
    import socket

    left, right = socket.socketpair()
    left.setblocking(False)
    poll = select.epoll()
    poll.register(left, select.EPOLLIN)
    total = 0.0
    for kind in _CALLS:
        started = time.perf_counter()
        for _ in range(CALLS):
            if kind == "epoll_wait":
                poll.poll(0)
            elif kind == "getppid":
                os.getppid()
            elif kind == "send":
                right.send(b"x")
                left.recv(1)
        total += (time.perf_counter() - started) / CALLS / (2 if kind == "send" else 1)
    return total / len(_CALLS)


_CALLS = ("epoll_wait", "getppid", "send")


def _calls_of_a_token() -> dict[str, tuple[float | None, float]]:
    """Calls of every thread of the server, and microseconds: for one more token of a stream, and
    for a whole short request with its connection."""
    tokenizer = LLM(None, max_sequences=1).tokenizer
    assert tokenizer is not None
    eos = tokenizer.eos_id
    with server(None, "--unsealed") as (port, pid):
        ask(port, "47+85=", 100, eos)
        timed = [ask(port, "47+85=", 600, eos) for _ in range(9)]
        first, speed = (statistics.median(column) for column in zip(*timed, strict=True))
        if shutil.which("strace") is None:
            return {"token": (None, 1e6 / speed), "first": (None, 1e6 * first)}
        counts = {tokens: _count(pid, port, tokens, eos) for tokens in (2, 100, 600)}
    return {
        "token": ((counts[600] - counts[100]) / 500, 1e6 / speed),
        "first": (counts[2], 1e6 * first),
    }


def _count(pid: int, port: int, tokens: int, eos_id: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "calls"
        tracer = subprocess.Popen(
            ["strace", "-f", "-c", "-p", str(pid), "-o", str(table)], stderr=subprocess.PIPE
        )
        time.sleep(1.0)
        ask(port, "47+85=", tokens, eos_id)
        tracer.send_signal(2)
        tracer.wait()
        total = table.read_text().splitlines()[-1].split()
    return int(total[3])


if __name__ == "__main__":
    sys.exit(main())
