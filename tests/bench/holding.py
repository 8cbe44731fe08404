"""Idle connections: ``python -m tests.bench.holding SPEC`` opens and holds them until its input ends.

``{"place": [host, port], "sources": [addresses], "count": n, "folder": path or null}``: without a folder nothing is
ever sent; with one the TLS handshake is made with the certificates there. One line on stdout when all are open.
"""

from __future__ import annotations

import json
import resource
import socket
import ssl
import sys
from pathlib import Path

from tests.posting import client_context

PATIENCE = 60.0


def main() -> None:
    """Open, say so, wait."""
    spec = json.loads(sys.argv[1])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    place, sources = tuple(spec["place"]), spec["sources"]
    context = None if spec["folder"] is None else client_context(Path(spec["folder"]), "rp")
    held: list[socket.socket] = []
    for number in range(spec["count"]):
        made = socket.create_connection(place, PATIENCE, (sources[number % len(sources)], 0))
        held.append(made if context is None else context.wrap_socket(made, server_hostname=place[0]))
    print("held", flush=True)
    sys.stdin.read()
    # What the other side has closed by now was not held.
    alive = sum(_alive(each) for each in held)
    print(json.dumps({"alive": alive}), flush=True)


def _alive(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return bool(sock.recv(1))
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False


if __name__ == "__main__":
    main()
