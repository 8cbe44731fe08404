"""The relying party's port of the real service, as an operator installs it: in the place of SEDIMENT's, and beside
it."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.core.model import DeviceId
from gateway.sediment.bodies import decode
from gateway.sediment.compose import compose_data, compose_message
from gateway.sediment.messages import Acceptance, ConfigMessage, Message, PassportResponse, Result
from gateway.sediment.wire import MessageId, Reason
from tests.e2e.ground import Ground, on_the_ground
from tests.e2e.installed import AHEAD, PATIENCE, VERIFIER, Installed, Running, until, written
from tests.ports import free_place

CAM = DeviceId("cam-1")
HERE = ("10.77.1.1", 8000)  #: the gateway, as devices in their namespace see it
OPENED: list[socket.socket] = []


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    """Whatever a test has opened is closed behind it."""
    yield
    while OPENED:
        OPENED.pop().close()


class Listener:
    """Somebody who takes connections and keeps what comes on all of them; answers each piece, if asked to."""

    def __init__(self, place: tuple[str, int], answer: bytes = b"") -> None:
        self.place = place
        self.got = b""
        self.answer = answer
        self._adding = threading.Lock()  # two connections at once must not lose each other's bytes
        self._sock = socket.create_server(place)
        self._sock.settimeout(PATIENCE)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(sock,), daemon=True).start()

    def _read(self, sock: socket.socket) -> None:
        with sock:
            sock.settimeout(PATIENCE)
            try:
                while data := sock.recv(65_536):
                    with self._adding:
                        self.got += data
                    if self.answer:
                        sock.sendall(self.answer)
            except OSError:
                return

    def close(self) -> None:
        self._sock.close()


@contextmanager
def listening(answer: bytes = b"") -> Iterator[Listener]:
    made = Listener(free_place(), answer)
    try:
        yield made
    finally:
        made.close()


class Device:
    """A prover's connection; ``sock``: one that is to be connected, from another namespace, say."""

    def __init__(self, gate: Installed, port: tuple[str, int], sock: socket.socket | None = None) -> None:
        self._key = gate.keys.hmac[CAM]
        self.sock = socket.socket() if sock is None else sock
        OPENED.append(self.sock)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(port)

    def ask(self, kind: MessageId, body: bytes) -> Message:
        tail = bytes((len(CAM),)) + CAM.encode() + body
        nonce, now = secrets.token_bytes(32), int(time.time())
        self.sock.sendall(
            compose_message(message_id=kind, timestamp=now, nonce=nonce, tail=tail, hmac_key=self._key)
        )
        return self.answer()

    def data(self) -> bytes:
        return compose_data(
            device=CAM.encode(),
            timestamp=int(time.time()),
            nonce=secrets.token_bytes(32),
            payload=b"sealed",
            iv=bytes(16),
            hmac_key=self._key,
        )

    def told(self, data: bytes) -> Acceptance:
        self.sock.sendall(data)
        answer = self.answer()
        assert isinstance(answer, Result)
        return answer.acceptance

    def answer(self) -> Message:
        got = b""
        while len(got) < 2 or len(got) < int.from_bytes(got[:2], "big"):
            data = self.sock.recv(65_536)
            if not data:
                raise EOFError
            got += data
        return decode(got)

    def over(self) -> bool:
        """Whether the other side has ended it; waits."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True


def installed(folder: Path, app: Listener, relying: dict[str, Any]) -> Installed:
    service = {"name": "feed", "address": app.place[0], "port": app.place[1], "protocol": "tcp", "path": "relayed"}
    gate = Installed(
        folder,
        devices={CAM: ("127.0.77.11",)},
        services=[service],
        target={"path_gate": "relay", "relay": [{"service": "feed", "listen": written(free_place())}]},
        door=free_place(),
        console=free_place(),
    )
    gate.settings["doors"]["relying"] = {"app_server": "feed", **relying}
    if "relying_party" not in relying:  # in the place of SEDIMENT's own, this port is all that is needed
        del gate.settings["doors"]["sediment"]
    gate.write("ragate.yaml", gate.settings)
    return gate


def after_the_start(gate: Installed, port: tuple[str, int]) -> None:
    """DATA stamped in the first two seconds is refused, as it could be a replay from before the start."""
    device = Device(gate, port)
    until(lambda: device.told(device.data()) is Acceptance.ACCEPT, lambda: "no DATA is accepted")
    device.sock.close()


def tell(gate: Installed, port: tuple[str, int], reason: Reason, *, ahead: float = 0.0) -> bytes:
    """The verifier's alert, to the relying party's port."""
    frame = gate.alert(CAM, reason, issued_at=time.time() + ahead)
    with socket.socket() as sock:
        sock.settimeout(PATIENCE)
        sock.bind((VERIFIER, 0))
        sock.connect(port)
        sock.sendall(frame)
    return frame


def messages(service: Running, kind: str, case: str) -> float:
    return service.metric("ragate_relying_messages_total", kind=kind, case=case)


@pytest.fixture
def port() -> tuple[str, int]:
    return free_place()


def test_a_device_attests_sends_fails_and_is_cut_with_its_connection(tmp_path: Path, port: tuple[str, int]) -> None:
    with listening() as app, listening(b"acknowledged") as verifier:
        relying = {
            "listen": written(port),
            "here": "127.0.0.1:8000",
            "verifier": written(verifier.place),
            "device_settings": {"report_interval": 2},
        }
        gate = installed(tmp_path, app, relying)
        checked = gate.ask("check")
        assert checked.exit_code == 0, checked.output
        with gate.running() as service:
            device = Device(gate, port)
            answer = device.ask(MessageId.CONFIG, bytes(4))
            assert isinstance(answer, ConfigMessage)
            assert answer.text == b"report_interval 2\0"
            answer = device.ask(MessageId.PASSPORT_REQUEST, b"\1")
            assert isinstance(answer, PassportResponse)
            assert (answer.verifier.address.decode(), answer.verifier.port) == verifier.place
            until(lambda: len(verifier.got) == answer.header.size)
            assert device.told(device.data()) is Acceptance.REJECT
            tell(gate, port, Reason.PASS)
            service.wait(CAM, "trusted")
            after_the_start(gate, port)
            sent = device.data()
            assert device.told(sent) is Acceptance.ACCEPT
            until(lambda: sent in app.got)  # that of another connection may come behind it
            tell(gate, port, Reason.FAILED_ATTEST, ahead=1.5)
            service.wait(CAM, "distrusted")
            assert device.over()
            again = Device(gate, port)
            arrived = app.got
            assert again.told(again.data()) is Acceptance.REJECT
            assert again.told(sent) is Acceptance.REJECT
            assert app.got == arrived
            assert messages(service, "alert", "verifier") == 2
            assert messages(service, "data", "repeated") >= 1
            assert messages(service, "data", "shut") >= 1
            assert service.metric("ragate_relying_ends_total", reason="cut") >= 1
            assert service.metric("ragate_relying_copies_total", result="acknowledged") == 1
            assert service.metric("ragate_relying_carried_total", result="taken") >= 2
            assert service.metric("ragate_queue_depth", queue="relying_connections") >= 1
            assert CAM not in "".join(
                line for line in service.get("/metrics").text.splitlines() if "relying" in line
            )
            assert "relying party" in service.get("/readyz").text
            service.kill()
            assert again.over()  # nothing outlives the process


def test_a_restart_forgets_no_failure(tmp_path: Path, port: tuple[str, int]) -> None:
    with listening() as app, listening() as verifier:
        gate = installed(
            tmp_path,
            app,
            {"listen": written(port), "here": "127.0.0.1:8000", "verifier": written(verifier.place)},
        )
        with gate.running() as service:
            tell(gate, port, Reason.PASS)
            service.wait(CAM, "trusted")
            after_the_start(gate, port)
            tell(gate, port, Reason.REQUESTED, ahead=0.5)
            until(lambda: "re-attestation was requested" in service.get(f"/v1/devices/{CAM}").text)
            assert service.stop() == 0
        with gate.running() as service:
            told: list[Acceptance] = []

            def asked() -> bool:
                device = Device(gate, port)
                told.append(device.told(device.data()))
                return told[-1] is Acceptance.ATTEST

            until(asked, lambda: told)  # at first DATA could be a replay from before the start
            assert set(told[:-1]) <= {Acceptance.REJECT}
            tell(gate, port, Reason.PASS)
            service.wait(CAM, "trusted")
            device = Device(gate, port)
            sent = device.data()
            assert device.told(sent) is Acceptance.ACCEPT
            tell(gate, port, Reason.FAILED_ATTEST, ahead=1.5)
            service.wait(CAM, "distrusted")
            assert service.stop() == 0
        arrived = len(app.got)
        with gate.running() as service:
            assert service.standing(CAM) == "distrusted"
            device = Device(gate, port)
            assert device.told(sent) is Acceptance.REJECT
            assert device.told(device.data()) is Acceptance.REJECT
            assert len(app.got) == arrived
            assert service.stop() == 0


def test_beside_sediments_own_alerts_pass_on_and_its_loss_does_not_lose_ours(
    tmp_path: Path, port: tuple[str, int]
) -> None:
    with listening() as app:
        party = Listener(free_place())
        gate = installed(
            tmp_path, app, {"listen": written(port), "mode": "beside", "relying_party": written(party.place)}
        )
        with gate.running() as service:
            frame = tell(gate, port, Reason.PASS)
            service.wait(CAM, "trusted")
            until(lambda: frame in party.got, lambda: f"{len(party.got)} bytes arrived")
            device = Device(gate, port)
            assert device.sock.getpeername()[1] == port[1]
            party.close()
            tell(gate, port, Reason.FAILED_ATTEST, ahead=1.5)
            service.wait(CAM, "distrusted")
            assert device.told(device.data()) is Acceptance.REJECT
            assert service.stop() == 0


@pytest.mark.netns
def test_behind_nftables_a_cut_device_still_attests_here_and_reaches_no_app_server(
    tmp_path: Path,
) -> None:
    gate = Installed(tmp_path)
    gate.settings["doors"]["relying"] = {
        "listen": written(HERE),
        "app_server": "feed-tcp0",
        "verifier": "127.0.0.1:8100",  # nobody is there: a device is answered all the same
    }
    gate.write("ragate.yaml", gate.settings)
    source = gate.addresses[CAM][0]

    def body(ground: Ground) -> None:
        def device() -> Device:
            sock = ground.site.client.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.bind((source, 0))
            return Device(gate, HERE, sock)

        with gate.running() as service:
            first = device()
            assert isinstance(first.ask(MessageId.PASSPORT_REQUEST, b"\1"), PassportResponse)
            assert first.told(first.data()) is Acceptance.REJECT
            gate.tell(CAM, Reason.PASS)
            service.wait(CAM, "trusted")
            live = device()
            until(lambda: live.told(live.data()) is Acceptance.ACCEPT)
            gate.tell(CAM, Reason.FAILED_ATTEST, issued_at=time.time() + AHEAD)
            service.wait(CAM, "distrusted")
            assert live.over()
            before = ground.received()
            again = device()
            assert isinstance(again.ask(MessageId.PASSPORT_REQUEST, b"\1"), PassportResponse)
            assert again.told(again.data()) is Acceptance.REJECT
            assert ground.blocked(source)
            assert ground.received() == before
            assert service.stop() == 0

    on_the_ground(body)
