"""Real packets through a real gateway: what a verdict, and a flush of all rules, does to live flows."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.sediment.wire import Reason
from tests.e2e.ground import Ground, on_the_ground, server_of
from tests.e2e.installed import DEVICES, Installed, until
from tests.e2e.kernel import admitted, table_stands, tombstones
from tests.netns import SILENCE, run

pytestmark = pytest.mark.netns

FLUSHES = 3


def test_a_failure_stops_live_flows_and_only_recovery_brings_them_back(tmp_path: Path) -> None:
    gate = Installed(tmp_path)

    def body(ground: Ground) -> None:
        with gate.running() as service:
            assert ground.shut("cam-1")
            gate.admit(service, *DEVICES)
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
                assert not tombstones() & set(DEVICES["cam-1"])
            assert service.metric("ragate_devices", standing="trusted") == 2

    on_the_ground(body)


class Flood:
    """Datagrams of one address, each carrying the moment at which it was sent."""

    def __init__(self, ground: Ground, address: str) -> None:
        self._socket = ground.site.client.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 0))
        self._to = server_of(address)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent = 0

    def _run(self) -> None:
        while not self._stop.wait(0.0005):
            self._socket.sendto(b"flood %d" % time.monotonic_ns(), self._to)
            self.sent += 1

    @contextmanager
    def flowing(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()
            self._socket.close()


def open_gap_ms(ground: Ground) -> float:
    """From the first to the last datagram of the flood that got through, in milliseconds of sending."""
    stamps = [int(data.split()[1]) for echo in ground.echoes for data in echo.received if data.startswith(b"flood")]
    return (max(stamps) - min(stamps)) / 1e6 if stamps else 0.0


def test_a_flushed_ruleset_is_laid_again_under_traffic(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    gate = Installed(tmp_path)

    def body(ground: Ground) -> None:
        with gate.running() as service:
            gate.admit(service, "cam-1")
            gate.tell("cam-2", Reason.FAILED_ATTEST)
            service.wait("cam-2", "distrusted")
            flood = Flood(ground, DEVICES["cam-2"][0])
            gaps: list[float] = []
            with ground.flows("cam-1") as flows, flood.flowing():
                for _ in range(FLUSHES):
                    for echo in ground.echoes:
                        echo.received.clear()
                    run("nft", "flush", "ruleset")
                    until(table_stands)
                    until(lambda: set(admitted()) == set(DEVICES["cam-1"]), admitted)
                    until(lambda: tombstones() >= set(DEVICES["cam-2"]), tombstones)
                    sent = flood.sent
                    until(lambda sent=sent: flood.sent > sent + 20)  # type: ignore[misc]
                    gaps.append(open_gap_ms(ground))
                    before = ground.received()
                    until(lambda sent=sent: flood.sent > sent + 120)  # type: ignore[misc]
                    assert ground.received() == before, "still open after the table was back"
                    assert all(flow.echoes() for flow in flows), "an admitted device's flows come back"
                assert ground.blocked(DEVICES["cam-2"][0])
            figures = ", ".join(f"{gap:.1f}" for gap in gaps)
            (tmp_path / "gaps").write_text(figures)
            assert service.metric("ragate_drift_repairs_total", backend="nft") >= FLUSHES
            assert service.ready()

    on_the_ground(body)
    figures = (tmp_path / "gaps").read_text()
    record_property("open after flush ruleset, ms", figures)
    print(f"open after flush ruleset: {figures} ms")


def test_a_way_around_the_gate_fails_the_target_until_it_is_closed(tmp_path: Path) -> None:
    gate = Installed(tmp_path)

    def body(ground: Ground) -> None:
        server = server_of(DEVICES["cam-1"][0])[0]
        with gate.running() as service:
            gate.admit(service, "cam-1")
            assert service.ready()
            assert service.metric("ragate_bypasses", target="gateway") == 0
            run("ip", "link", "set", "dev", _link_to(server), "alias", "seen")  # a change that opens nothing
            interface = _link_to(DEVICES["cam-1"][0])
            run("ip", "route", "add", f"{server}/32", "dev", interface)
            until(lambda: service.metric("ragate_bypasses", target="gateway") == 1)
            assert not service.ready()
            (target,) = service.device("cam-1")["targets"]
            assert target["state"] == "failed"
            assert f"share the link of {interface}" in target["detail"]
            run("ip", "route", "del", f"{server}/32", "dev", interface)
            until(service.ready)
            assert service.device("cam-1")["targets"][0]["state"] == "verified"
            assert service.metric("ragate_notices_total", kind="bypass") == 2

    on_the_ground(body)


def _link_to(address: str) -> str:
    """The interface behind which an address is."""
    return run("ip", "route", "get", address).partition(" dev ")[2].split()[0]
