"""A server that attacks itself while it streams and torch computes; a process of its own.

Prints its port, waits for a line, prints the proof as JSON, ends. Argument: a folder to write to.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from ingle.cli.serve import listen
from ingle.privacy.prove import prove_here
from ingle.privacy.seal import seal
from ingle.privacy.witness import Witness


def main(state: Path) -> None:
    listener, witness = listen("127.0.0.1", 0), Witness()
    closed = seal(writable=[state], sockets=[listener])
    import torch

    from ingle.cli.loading import load, make_service
    from ingle.server.app import create_app
    from ingle.server.lifecycle import Server, configure
    from ingle.server.wire import Wire

    service, wire = make_service(load(None, max_sequences=4)), Wire()
    server = Server(configure(create_app(service, wire=wire), wire), service, 1.0)
    threading.Thread(target=server.run, args=([listener],), daemon=True).start()

    def compute() -> None:
        weights = torch.randn(64, 64, requires_grad=True)
        while True:
            (weights @ weights).sum().backward()

    threading.Thread(target=compute, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.readline()
    print(json.dumps(prove_here(closed, witness).as_json()), flush=True)
    sys.stdin.readline()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
