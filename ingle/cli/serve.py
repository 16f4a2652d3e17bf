"""`ingle serve [MODEL]`: the chat page and the API, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import errno
import gc
import json
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ingle.cli.admitting import add_policy, admission
from ingle.cli.options import add_json, add_quant, weights_options
from ingle.cli.sealing import enter_proved
from ingle.cli.terminal import BOLD, DIM, EMBER, Styled
from ingle.errors import ConfigError

if TYPE_CHECKING:
    from ingle.cli.loading import Loaded
    from ingle.privacy.prove import Proof
    from ingle.server.guard import Access
    from ingle.server.status import SealReport

PORT = 8765
DRAIN_SECONDS = 10
MAX_CONNECTIONS = 1024
PROBE_MEGABYTES = 128  # larger than most caches, and read in a few hundredths of a second
STREAM_MILLISECONDS = 25  # 40 events a second: more than eyes ask for, a fraction of the cost
# How long the engine waits for the interpreter when the event loop runs: Python's own 5 ms are
# several steps of a small model, at every delivery.
SWITCH_SECONDS = 0.0005
SPARE_FILES = 128  # descriptors for everything that is no client
SHOWN_EXAMPLES = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="model folder (default: the shipped reasoner)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="port (%(default)s); 0 picks one")
    add_quant(parser)
    add_policy(parser)
    parser.add_argument("--name", help="model name in the API (default: the folder's)")
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="one key a line ('ingle key' makes one), mode 0600; needed to listen beyond this "
        "machine",
    )
    parser.add_argument(
        "--anyone-may-use-this",
        action="store_true",
        help="listen beyond this machine without a key: whoever reaches the address can use it",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="further host name that clients may use for this server",
    )
    parser.add_argument(
        "--max-sequences", type=int, default=32, metavar="N", help="answers at a time (%(default)s)"
    )
    parser.add_argument(
        "--max-waiting", type=int, default=1024, metavar="N", help="queue length (%(default)s)"
    )
    parser.add_argument(
        "--speculative",
        choices=("auto", "on", "off"),
        default="auto",
        help="drafts by the model's MTP module, which change no answer: while the clock says that "
        "they pay (auto), always, never",
    )
    parser.add_argument(
        "--stream-interval",
        type=_milliseconds,
        default=STREAM_MILLISECONDS,
        metavar="MS",
        help="least time between two events of a stream, which have all tokens written since "
        "(%(default)s ms); 0 sends each token by itself, at some cost in speed",
    )
    group = parser.add_argument_group("limits of each key (or, without keys, of all together)")
    group.add_argument("--rate-requests", type=_positive, metavar="N", help="requests a minute")
    group.add_argument("--rate-tokens", type=_positive, metavar="N", help="tokens a minute")
    group.add_argument("--rate-concurrency", type=_positive, metavar="N", help="requests at a time")
    parser.add_argument(
        "--log",
        choices=("auto", "json", "off"),
        default="auto",
        help="a line on stderr for each request, without what it said (auto: unless that is a "
        "terminal)",
    )
    parser.add_argument(
        "--drain-seconds",
        type=float,
        default=DRAIN_SECONDS,
        metavar="S",
        help="how long answers may go on after SIGTERM or Ctrl-C (%(default)s)",
    )
    add_json(parser)


def _milliseconds(text: str) -> int:
    if not text.isdecimal() or int(text) > 1000:
        raise argparse.ArgumentTypeError("a number from 0 to 1000 is needed")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError("a positive number is needed")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Bind first (a busy port should not wait for weights), then load, then serve."""
    from ingle.server.guard import Access, clean_hosts, is_loopback
    from ingle.server.keys import read_key_file
    from ingle.server.limits import Limits

    limits = Limits(args.rate_requests, args.rate_tokens, args.rate_concurrency)
    keys = read_key_file(args.api_key_file, limits) if args.api_key_file else ()
    if not keys and not is_loopback(args.host) and not args.anyone_may_use_this:
        raise ConfigError(
            f"Listening on {args.host} lets other machines in, which needs --api-key-file. "
            "Without it, leave --host at 127.0.0.1 (or say --anyone-may-use-this)."
        )
    if not keys and not is_loopback(args.host):
        print("ingle: Anyone who can reach this address can use it: no key is asked for.",
              file=sys.stderr)  # fmt: skip
    access = Access(args.host, clean_hosts(args.allow_host), keys, limits)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash must not write prompts to disk
    with listen(args.host, args.port) as listener:
        # before a byte of the model is read, and before anything else runs in this process
        proof = enter_proved(args, listener)
        _serve(args, listener, access, _report(proof) if args.own_process else None)
    return 0


def _serve(
    args: argparse.Namespace, listener: socket.socket, access: Access, seal: SealReport | None
) -> None:
    from ingle.cli.loading import load, make_service
    from ingle.engine.fit import measure_bandwidth
    from ingle.server.access_log import AccessLog
    from ingle.server.app import create_app
    from ingle.server.lifecycle import Server, configure, ignore_signals, starting
    from ingle.server.wire import Wire

    started = time.perf_counter()
    signal.signal(signal.SIGTERM, _leave)
    with starting(listener, access):
        loaded = load(
            args.model, **weights_options(args), **admission(args),
            max_sequences=args.max_sequences, max_waiting=args.max_waiting,
            speculative=args.speculative,
        )  # fmt: skip
    service = make_service(
        loaded, args.name, args.stream_interval / 1000, measure_bandwidth(PROBE_MEGABYTES)
    )

    def announce() -> None:
        seconds = time.perf_counter() - started
        facts = _facts(loaded, service.model.name, listener, bool(access.keys), seconds)
        facts["seal"] = None if seal is None else _sealing(seal)
        if args.json:
            print(json.dumps(facts), flush=True)
        else:
            _banner(facts, Styled(sys.stdout))

    wire = Wire(connections=_connections())
    wants_log = args.log == "json" or (args.log == "auto" and not sys.stderr.isatty())
    log = AccessLog(sys.stderr.fileno()) if wants_log else None
    app = create_app(service, access, announce, args.drain_seconds, wire, log, seal)
    gc.collect()
    gc.freeze()  # what was loaded never dies: collections during answers need not walk it
    sys.setswitchinterval(SWITCH_SECONDS)
    ignore_signals()
    Server(configure(app, wire), service, args.drain_seconds).run(sockets=[listener])
    if service.state == "failed":
        raise ConfigError("The engine failed; see the log above.")


def _leave(number: int, frame: FrameType | None) -> None:
    """SIGTERM while the model loads: there is nothing to finish."""
    raise SystemExit(0)


def _connections() -> int:
    """As many connections as the process may have files, less some for itself."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    unlimited = files == resource.RLIM_INFINITY
    return MAX_CONNECTIONS if unlimited else max(16, min(MAX_CONNECTIONS, files - SPARE_FILES))


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections; ConfigError for a busy port or an unusable address."""
    if not 0 <= port <= 65535:
        raise ConfigError("The port must lie in [0, 65535].")
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise ConfigError(f"{host} port {port} is not an address to listen on.") from None
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # inherited by connections; asyncio does not set it on those of a socket it did not make
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"Port {port} is in use. Stop the program that has it or choose another: "
                f"--port {port + 1}"
            ) from None
        raise ConfigError(f"Cannot listen on {host} port {port}: {error.strerror}.") from None
    return listener


def _report(proof: Proof | None) -> SealReport:
    """The proof as the API tells it: without the paths of this machine."""
    from ingle.server.status import Attempt, SealReport

    if proof is None:
        return SealReport("unsealed")
    from ingle.privacy.prove import NOT_COVERED, commands

    seal = proof.seal
    attempts = [Attempt(row.name, row.what, row.answer) for row in proof.rows]
    how = list(commands(os.getpid()))
    return SealReport(
        "sealed", seal.seccomp, seal.landlock, seal.network, attempts, list(NOT_COVERED), how
    )


def _sealing(seal: SealReport) -> dict[str, Any]:
    """What the banner and --json say of the seal."""
    return {
        "state": seal.state,
        "rules": seal.rules,
        "landlock": seal.landlock,
        "network": seal.network,
        "attempts": len(seal.attempts),
        "pid": os.getpid(),
    }


def _facts(
    loaded: Loaded, name: str, listener: socket.socket, keyed: bool, seconds: float
) -> dict[str, Any]:
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return {
        "url": f"{url}/",
        "openai_base_url": f"{url}/v1",
        "model": name,
        "parameters": loaded.parameters,
        "context": loaded.engine.context,
        "api_key_needed": keyed,
        "ready_seconds": round(seconds, 3),
        "examples": list(loaded.examples),
    }


def _banner(facts: dict[str, Any], out: Styled) -> None:
    key = "<one of your keys>" if facts["api_key_needed"] else "none"
    size = f"{facts['parameters'] / 1e6:.1f}M parameters"
    out.line(f"\n  ingle serves {facts['model']}", BOLD)
    out.line(
        f"  {size} · context {facts['context']} tokens · ready in {facts['ready_seconds']:.1f} s\n",
        DIM,
    )
    out.line(f"  Chat page   {facts['url']}", EMBER)
    base = f"OPENAI_BASE_URL={facts['openai_base_url']}"
    out.line(f"  OpenAI API  export {base} OPENAI_API_KEY={key}")
    if (seal := facts["seal"]) is not None:
        out.line(f"  Seal        {_seal_line(seal)}")
    if facts["examples"]:
        out.line("\n  Ask it, for example:")
        for example in facts["examples"][:SHOWN_EXAMPLES]:
            out.line(f"    {example}", DIM)
    out.line("\n  Ctrl-C stops the server.\n", DIM)


def _seal_line(seal: dict[str, Any]) -> str:
    if seal["state"] == "unsealed":
        return "NONE: code in the model's files or in a library could open connections"
    depth = ["empty network" if seal["network"] == "empty" else f"network {seal['network']}",
             "files confined" if seal["landlock"] else "files not confined"]  # fmt: skip
    tried = f"{seal['attempts']} attempts to get out were refused"
    return f"{tried} · {' · '.join(depth)} · ingle prove --pid {seal['pid']}"
