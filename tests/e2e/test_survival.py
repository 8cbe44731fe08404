"""Death, restart and a full disk: what stands in the kernel, and what a new process makes of it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from gateway.app.baseline import baseline_text, uninstall
from gateway.config import load
from gateway.core.model import DeviceId
from gateway.journal import SqliteHistory
from gateway.sediment.wire import Reason
from gateway.simulate.linux import mount_tmpfs
from tests.e2e.ground import Ground, on_the_ground
from tests.e2e.installed import DEVICES, PATIENCE, Installed, Running, until
from tests.e2e.kernel import admitted, table_stands, tombstones
from tests.netns import Flow, in_namespaces, run

pytestmark = pytest.mark.netns

CAM_1, CAM_2 = DEVICES["cam-1"], DEVICES["cam-2"]


def rows_of(journal: Path, device: str) -> Sequence[Mapping[str, Any]]:
    """What the journal's file knows of a device, read without a service."""
    history = SqliteHistory(journal)
    try:
        return asyncio.run(history.verdicts(DeviceId(device), 100))
    finally:
        history.close()


@contextmanager
def commits_stalled(journal: Path) -> Iterator[None]:
    """Another program holds the journal's write lock: nothing can be made durable meanwhile."""
    connection = sqlite3.connect(journal, isolation_level=None, timeout=PATIENCE)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_killed_between_cut_and_commit_a_failed_device_stays_out(tmp_path: Path) -> None:
    gate = Installed(tmp_path)

    def body(ground: Ground) -> None:
        with gate.running() as service:
            passed = gate.tell("cam-1", Reason.PASS)
            gate.admit(service, "cam-2")
            service.wait("cam-1", "trusted")
            with commits_stalled(gate.journal):
                gate.tell("cam-1", Reason.FAILED_ATTEST)
                until(lambda: tombstones() >= set(CAM_1), tombstones)
                service.kill()
        known = rows_of(gate.journal, "cam-1")
        assert [row["event"] for row in known] == ["passed"], "the failure was never made durable"
        with gate.running() as service:
            assert service.standing("cam-1") == "suspect"
            (trusted,) = service.get("/v1/devices?standing=trusted").json["devices"]
            assert trusted["id"] == "cam-2", "journal and kernel agree on it"
            remembered = service.device("cam-2")["last"]
            assert (trusted["last"], remembered["event"], remembered["after"]) == (None, "passed", "trusted")
            assert trusted["newest"] == remembered["issued_at"]
            assert service.metric("ragate_withheld_total") == 1
            gate.send(passed)
            until(lambda: service.rejections("replay") == 1)
            assert service.standing("cam-1") == "suspect"
            assert ground.shut("cam-1")
            assert set(admitted()) == set(CAM_2)
            refused, withheld = service.device("cam-1")["verdicts"][:2]
            assert refused["refusal"] == "replay"
            assert (withheld["event"], withheld["after"]) == ("withheld", "suspect")
            assert "tombstone" in withheld["reason"]

    on_the_ground(body)


def test_killed_every_admission_ends_at_deadline_or_lease_and_none_comes_back(tmp_path: Path) -> None:
    lease, max_age, left = 5, 100, 3

    gate = Installed(tmp_path, target={"lease": lease}, source={"max_age": max_age})

    def body(ground: Ground) -> None:
        with gate.running() as service:
            gate.admit(service, "cam-1")
            until(lambda: time.time() % 1 < 0.1)  # the deadline is counted from whole seconds
            gate.tell("cam-2", Reason.PASS, issued_at=int(time.time()) - max_age + left)
            service.wait("cam-2", "trusted")
            with ground.flows("cam-1") as flows:
                service.kill()
                ends = admitted()
                assert set(ends) == {*CAM_1, *CAM_2}
                for address, seconds in ends.items():
                    assert seconds is not None, f"{address} has no end"
                    assert seconds <= (left if address in CAM_2 else lease)
                until(lambda: not admitted(), admitted)
                assert not any(flow.echoes(0.15) for flow in flows)
        assert table_stands()
        assert ground.shut("cam-2")
        with gate.running() as service:
            # the journal would still admit cam-1 for more than a minute; the kernel does not know it any more
            assert service.standing("cam-1") == "suspect"
            assert service.standing("cam-2") == "lapsed"
            assert service.metric("ragate_withheld_total") == 1
            assert admitted() == {}
            assert ground.shut("cam-1")

    on_the_ground(body)


class Pinger:
    """Datagrams of one live flow, one every few milliseconds, and which of them came back."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._stop = threading.Event()
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self.sent = 0
        self.back: set[bytes] = set()

    def _send(self) -> None:
        while not self._stop.wait(0.002):
            self._flow.socket.send(b"ping %d" % self.sent)
            self.sent += 1

    def _read(self) -> None:
        self._flow.socket.settimeout(0.1)
        while not self._stop.is_set() or len(self.back) < self.sent:
            try:
                self.back.add(self._flow.socket.recv(2_048))
            except TimeoutError:
                if self._stop.is_set():
                    return

    def __enter__(self) -> Self:
        self._sender.start()
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._sender.join()
        self._reader.join()

    @property
    def lost(self) -> int:
        return self.sent - len(self.back)


def test_an_orderly_stop_and_restart_leave_no_gap_for_an_admitted_device(tmp_path: Path) -> None:
    gate = Installed(tmp_path)

    def body(ground: Ground) -> None:
        # as at boot: the baseline is loaded before the network comes up, the service adopts it
        run("nft", "-f", "-", stdin=baseline_text(load(gate.config)))
        assert ground.shut("cam-1")
        laid = handle_of_table()
        with gate.running() as service:
            assert handle_of_table() == laid, "the baseline was recreated, not adopted"
            gate.admit(service, "cam-1")
            deadline = service.device("cam-1")["deadline"]
            tcp, udp = ground.flow("tcp", CAM_1[0]), ground.flow("udp", CAM_1[1])
            with Pinger(udp) as pinger:
                assert service.stop() == 0, service.log
                assert '"event": "stopped' in service.log
                assert set(admitted()) == set(CAM_1)
                assert all(seconds for seconds in admitted().values()), "each keeps its lease"
                assert not gate.socket.exists(), "the operator's socket is gone"
                with gate.running() as again:
                    seen = again.wait("cam-1", "trusted")
                    assert seen["deadline"] == deadline, "a restart prolongs nothing"
                    assert again.metric("ragate_withheld_total") == 0
                    assert tcp.echoes()
                    sent = pinger.sent
                    until(lambda: pinger.sent > sent + 50)
            assert pinger.lost == 0, f"{pinger.lost} of {pinger.sent} datagrams were lost"
            assert handle_of_table() == laid
            tcp.close()
            udp.close()
        uninstall(load(gate.config))
        assert run("nft", "list", "ruleset") == ""

    on_the_ground(body)


def handle_of_table() -> str:
    """The kernel's own number of the table: another one means that it was made again."""
    return next(line for line in run("nft", "-a", "list", "tables").splitlines() if "ragate" in line)


# --- a full disk ----------------------------------------------------------------------------------------------


def fill(folder: Path) -> Path:
    """Take every byte of the folder's file system."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while free := os.statvfs(folder).f_bavail:
            file.write(bytes(free * os.statvfs(folder).f_frsize))
    return ballast


def degraded(service: Running) -> bool:
    answer = service.get("/readyz")
    parts = {part["part"]: part["ready"] for part in answer.json["parts"]}
    return answer.status == 503 and not parts["journal"]


def test_on_a_full_disk_failures_still_cut_and_passes_are_refused(tmp_path: Path) -> None:
    gate = Installed(tmp_path)

    def body() -> None:
        disk = tmp_path / "var"
        disk.mkdir()
        mount_tmpfs(disk, mode=0o700, size="2m")
        with gate.running() as service:
            gate.admit(service, *DEVICES)
            ballast = fill(disk)
            gate.tell("cam-1", Reason.FAILED_ATTEST)
            assert service.wait("cam-1", "distrusted")["profile"] == "deny"
            assert tombstones() >= set(CAM_1)
            until(lambda: degraded(service), lambda: service.get("/readyz").text)
            assert service.metric("ragate_journal_writable") == 0
            assert service.metric("ragate_queue_depth", queue="journal") > 0, "what could not be written is kept"
            before = service.device("cam-2")["records"]["verifier"]
            gate.tell("cam-2", Reason.PASS, issued_at=before["newest"] + 1)
            until(lambda: service.rejections("degraded") == 1)
            assert service.device("cam-2")["records"]["verifier"] == before, "nothing was prolonged"
            assert service.standing("cam-2") == "trusted", "what stands stays until its end"
            service.kill()
        assert set(admitted()) == set(CAM_2)
        ballast.unlink()
        assert rows_of(gate.journal, "cam-1")[0]["event"] == "passed", "the failure was never made durable"
        with gate.running() as service:
            assert [service.standing(device) for device in DEVICES] == ["suspect", "trusted"]
            assert set(admitted()) == set(CAM_2)
            recovers_once_there_is_room(gate, service, disk)
            service.kill()
        assert rows_of(gate.journal, "cam-2")[0]["event"] == "failed", "made up for"
        with gate.running() as service:
            assert [service.standing(device) for device in DEVICES] == ["suspect", "distrusted"]
            assert service.metric("ragate_withheld_total") == 0, "journal and kernel agree"
            assert admitted() == {}
            assert tombstones() >= {*CAM_1, *CAM_2}
            gate.recover(service, "cam-2")
            assert set(admitted()) == set(CAM_2)

    in_namespaces(body)


def recovers_once_there_is_room(gate: Installed, service: Running, disk: Path) -> None:
    """A failure during the shortage is enforced at once, and written as soon as that is possible again."""
    ballast = fill(disk)
    newest = service.device("cam-2")["records"]["verifier"]["newest"]
    gate.tell("cam-2", Reason.FAILED_ATTEST, issued_at=newest)
    service.wait("cam-2", "distrusted")
    assert admitted() == {}
    until(lambda: degraded(service), lambda: service.get("/readyz").text)
    ballast.unlink()
    until(service.ready, lambda: service.get("/readyz").text)
    until(lambda: service.metric("ragate_queue_depth", queue="journal") == 0)
