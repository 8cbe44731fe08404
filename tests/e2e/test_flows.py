"""Real packets through a real gateway: what a verdict does to live flows, IPv4 and IPv6, TCP and UDP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gateway.sediment.wire import Reason
from tests.e2e.installed import DEVICES, PORT, SERVERS, Installed, Running
from tests.e2e.kernel import admitted, tombstones
from tests.netns import SILENCE, Echo, Flow, Site, blocked, in_namespaces, passes

pytestmark = pytest.mark.netns

WAYS = [(kind, address) for kind in ("tcp", "udp") for address in DEVICES["cam-1"]]


def server_of(address: str) -> tuple[str, int]:
    return SERVERS[":" in address], PORT


class Ground:
    """Device namespace, gateway namespace (this thread's) and server namespace, with echo servers."""

    def __init__(self) -> None:
        self.site = Site()
        self.echoes = [Echo(self.site.server, address, PORT) for address in SERVERS]

    def passes(self, address: str, kind: str = "tcp") -> bool:
        return passes(kind, self.site.client, address, server_of(address))

    def blocked(self, address: str, kind: str = "tcp") -> bool:
        return blocked(kind, self.site.client, address, server_of(address))

    @contextmanager
    def flows(self, device: str) -> Iterator[list[Flow]]:
        """A live flow of every kind and family of one device, each seen to work."""
        with ExitStack() as stack:
            flows = []
            for kind in ("tcp", "udp"):
                for address in DEVICES[device]:
                    flow = Flow(kind, self.site.client, (address, 0), server_of(address))
                    stack.callback(flow.close)
                    assert flow.opens(), f"{kind} of {address} does not open"
                    assert flow.echoes(), f"{kind} of {address} does not echo"
                    flows.append(flow)
            yield flows

    def received(self) -> int:
        return sum(len(echo.received) for echo in self.echoes)


def on_the_ground(body: Callable[[Ground], None]) -> None:
    in_namespaces(lambda: body(Ground()))


def admit(gate: Installed, service: Running, device: str) -> None:
    gate.tell(device, Reason.PASS)
    service.wait(device, "trusted")


def test_a_failure_stops_live_flows_and_only_recovery_brings_them_back(tmp_path: Path) -> None:
    def body(ground: Ground) -> None:
        gate = Installed(tmp_path)
        with gate.running() as service:
            assert all(ground.blocked(address, kind) for kind, address in WAYS)
            for device in DEVICES:
                admit(gate, service, device)
            assert set(admitted()) == {a for addresses in DEVICES.values() for a in addresses}
            with ground.flows("cam-1") as flows, ground.flows("cam-2") as others:
                gate.tell("cam-1", Reason.FAILED_ATTEST)
                seen = service.wait("cam-1", "distrusted")
                assert (seen["profile"], seen["deadline"]) == ("deny", None)
                before = ground.received()
                assert not any(flow.echoes(SILENCE) for flow in flows)
                assert ground.received() == before, "a packet of a failed device still arrived"
                assert all(flow.echoes() for flow in others)
                assert tombstones() >= set(DEVICES["cam-1"])
                gate.recover(service, "cam-1")
                assert all(flow.echoes() for flow in flows), "the same flows go on after the recovery"
            assert service.metric("ragate_devices", standing="trusted") == 2

    on_the_ground(body)
