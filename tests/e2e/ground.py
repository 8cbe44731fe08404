"""Device namespace, gateway namespace and server namespace, with live flows between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tests.e2e.installed import DEVICES, PORT, SERVERS
from tests.netns import Echo, Flow, Site, blocked, in_namespaces, passes


def server_of(address: str) -> tuple[str, int]:
    """The server that a device's address talks to: the one of its family."""
    return SERVERS[":" in address], PORT


class Ground:
    """The gateway's namespace is the calling thread's; echo servers listen in the server's."""

    def __init__(self) -> None:
        self.site = Site()
        self.echoes = [Echo(self.site.server, address, PORT) for address in SERVERS]

    def passes(self, address: str, kind: str = "tcp") -> bool:
        """Whether a new flow of this address gets through."""
        return passes(kind, self.site.client, address, server_of(address))

    def blocked(self, address: str, kind: str = "tcp") -> bool:
        """Whether a new flow of this address gets no answer."""
        return blocked(kind, self.site.client, address, server_of(address))

    def shut(self, device: str) -> bool:
        """Whether no new flow of any kind and family of this device gets an answer."""
        return all(self.blocked(address, kind) for address in DEVICES[device] for kind in ("tcp", "udp"))

    def flow(self, kind: str, address: str) -> Flow:
        """A flow that has been seen to work."""
        flow = Flow(kind, self.site.client, (address, 0), server_of(address))
        assert flow.opens(), f"{kind} of {address} does not open"
        assert flow.echoes(), f"{kind} of {address} does not echo"
        return flow

    @contextmanager
    def flows(self, device: str) -> Iterator[list[Flow]]:
        """A live flow of every kind and family of one device."""
        with ExitStack() as stack:
            flows = []
            for kind in ("tcp", "udp"):
                for address in DEVICES[device]:
                    flows.append(self.flow(kind, address))
                    stack.callback(flows[-1].close)
            yield flows

    def received(self) -> int:
        """How much has reached the servers."""
        return sum(len(echo.received) for echo in self.echoes)


def on_the_ground(body: Callable[[Ground], None]) -> None:
    """Run a test's body in namespaces; skipped, with the reason, where none can be made."""
    in_namespaces(lambda: body(Ground()))
