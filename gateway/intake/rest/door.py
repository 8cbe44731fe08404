"""The door: what is accepted, read and answered over HTTPS, as one part of the service.

What lives here: the door as its owner sees it. What must not: connections and requests, which have modules of their
own.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Sequence

from gateway.certs import ServedTls
from gateway.control.ports import Clock
from gateway.control.reception import Reception
from gateway.core.errors import Refusal
from gateway.intake.rest.connections import Connections
from gateway.intake.rest.requests import Requests
from gateway.intake.rest.settings import RestSettings


class RestDoor:
    """Takes documents over HTTPS. ``tls``: the door's own from here on; it follows the files while the door runs.

    Counts, for metrics: ``accepted`` connections, ``requests``, ``refused`` by ``Refusal`` (what the door refused
    by itself).
    """

    name = "rest"

    def __init__(
        self,
        listen: Sequence[socket.socket],
        reception: Reception,
        clock: Clock,
        tls: ServedTls,
        settings: RestSettings = RestSettings(),  # noqa: B008 - frozen value
    ) -> None:
        """Adopt the listening sockets: they are the door's from here on, and closed by it."""
        self._reception = reception
        self.tls = tls
        self.refused: Counter[Refusal] = Counter()
        self._connections = Connections(listen, tls, settings, self._refuse)
        self._requests = Requests(self._connections.of, reception, clock, tls, settings, self._refuse)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each listening socket."""
        return self._connections.addresses

    @property
    def accepted(self) -> int:
        """Connections that were accepted so far."""
        return self._connections.accepted

    @property
    def requests(self) -> int:
        """Requests that were read so far."""
        return self._requests.count

    def depth(self) -> int:
        """Connections of every kind, for metrics."""
        return self.open_connections + self.silent_connections

    @property
    def open_connections(self) -> int:
        """Connections open or shaking hands."""
        return self._connections.open

    @property
    def silent_connections(self) -> int:
        """Connections on which nothing has come yet."""
        return self._connections.silent

    def state(self) -> str:
        """One line for people."""
        told = f"{self.open_connections} connections open, {self.silent_connections} silent so far"
        return f"{told}; {self.tls.state()}" if self.serving else f"not open; {self.tls.state()}"

    @property
    def serving(self) -> bool:
        """Whether it takes connections."""
        return self._connections.serving

    def close(self) -> None:
        """Close the listening sockets of a door that was never run; after ``run`` there are none."""
        self._connections.close()

    async def run(self) -> None:
        """Serve until cancelled; then finish the answers under way within ``stop_seconds``."""
        await self._connections.run(self._requests.handle)

    def _refuse(self, refusal: Refusal, detail: str, peer: str) -> None:
        self.refused[refusal] += 1
        self._reception.turned_away(refusal, detail, peer)
