"""`ingle serve [MODEL]`: the chat page and the API, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import errno
import gc
import json
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingle.cli.options import add_json, add_quant, weights_options
from ingle.cli.terminal import BOLD, DIM, EMBER, Styled
from ingle.errors import ConfigError

if TYPE_CHECKING:
    from ingle.cli.loading import Loaded

PORT = 8765
DRAIN_SECONDS = 10
SHOWN_EXAMPLES = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="model folder (default: the shipped reasoner)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="port (%(default)s); 0 picks one")
    add_quant(parser)
    parser.add_argument("--name", help="model name in the API (default: the folder's)")
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="one key a line, mode 0600; needed to listen beyond this machine",
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
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Bind first (a busy port should not wait for weights), then load, then serve."""
    from ingle.server.guard import Access, clean_hosts, is_loopback, read_key_file

    keys = read_key_file(args.api_key_file) if args.api_key_file else ()
    if not keys and not is_loopback(args.host):
        raise ConfigError(
            f"Listening on {args.host} lets other machines in, which needs --api-key-file. "
            "Without it, leave --host at 127.0.0.1."
        )
    access = Access(args.host, clean_hosts(args.allow_host), keys)
    with listen(args.host, args.port) as listener:
        _serve(args, listener, access)
    return 0


def _serve(args: argparse.Namespace, listener: socket.socket, access: Any) -> None:
    import uvicorn

    from ingle.cli.loading import load
    from ingle.server.app import create_app
    from ingle.server.service import EngineService, ServedModel

    started = time.perf_counter()
    loaded = load(
        args.model, **weights_options(args),
        max_sequences=args.max_sequences, max_waiting=args.max_waiting,
    )  # fmt: skip
    model = ServedModel(
        name=args.name or loaded.name,
        fingerprint=loaded.fingerprint,
        created=int(time.time()),
        defaults=loaded.defaults,
        examples=loaded.examples,
        encoder=loaded.encoder,
    )
    service = EngineService(loaded.engine, loaded.tokenizer, model)

    def announce() -> None:
        seconds = time.perf_counter() - started
        facts = _facts(loaded, model.name, listener, bool(access.key_digests), seconds)
        if args.json:
            print(json.dumps(facts), flush=True)
        else:
            _banner(facts, Styled(sys.stdout))

    app = create_app(service, access, announce, DRAIN_SECONDS)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    gc.collect()
    gc.freeze()  # what was loaded never dies: collections during answers need not walk it
    # uvicorn raises the signal that stopped it once more at the end; a clean stop is no failure
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listener])
    if service.state == "failed":
        raise ConfigError("The engine failed; see the log above.")


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
    if facts["examples"]:
        out.line("\n  Ask it, for example:")
        for example in facts["examples"][:SHOWN_EXAMPLES]:
            out.line(f"    {example}", DIM)
    out.line("\n  Ctrl-C stops the server.\n", DIM)
