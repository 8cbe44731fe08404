"""``ragate`` as an operator types it, against a live service; and files that nobody can run.

The path gate is the relay on loopback, so that everything here runs wherever Python does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli.commands import app
from gateway.sediment.wire import Reason
from tests.e2e.installed import PATIENCE, Installed, Running, clean_environment, until, written
from tests.ports import free_place

DEVICES = {"cam-1": ("127.0.77.11",), "cam-2": ("127.0.77.12",)}
FIXTURES = Path(__file__).parent.parent / "fixtures" / "sediment"


class EchoServer:
    """The app server behind the relay."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    @staticmethod
    def _serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(4_096):
                connection.sendall(data)

    def close(self) -> None:
        self._socket.close()


def relayed(folder: Path, server_port: int, relay: tuple[str, int]) -> Installed:
    return Installed(
        folder,
        devices=DEVICES,
        services=[
            {"name": "feed", "address": "127.0.0.1", "port": server_port, "protocol": "tcp", "path": "relayed"}
        ],
        target={"path_gate": "relay", "relay": [{"service": "feed", "listen": written(relay)}]},
        door=free_place(),
        console=free_place(),
    )


class Live:
    """A running service behind whose relay an app server echoes."""

    def __init__(self, gate: Installed, service: Running, relay: tuple[str, int]) -> None:
        self.gate = gate
        self.service = service
        self.relay = relay

    def dial(self, device: str) -> socket.socket:
        return socket.create_connection(self.relay, PATIENCE, source_address=(DEVICES[device][0], 0))


def echoes(connection: socket.socket) -> bool:
    """Whether what is sent comes back; an ended connection echoes nothing."""
    try:
        connection.sendall(b"ping")
        return connection.recv(16) == b"ping"
    except ConnectionError:
        return False


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    server, relay = EchoServer(), free_place()
    gate = relayed(tmp_path_factory.mktemp("live"), server.port, relay)
    with gate.running() as service:
        yield Live(gate, service, relay)
        assert service.stop() == 0, service.log
        assert "Traceback" not in service.log
    server.close()


def test_an_operator_asks_holds_and_releases(live: Live) -> None:
    gate, service = live.gate, live.service
    gate.admit(service, *DEVICES)
    listed = gate.run("devices", "list")
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[:3] for line in listed.stdout.splitlines()[1:3]] == [
        ["cam-1", "trusted", "admitted"],
        ["cam-2", "trusted", "admitted"],
    ]
    assert listed.stdout.splitlines()[3] == "2 devices: 2 trusted"

    with live.dial("cam-1") as connection, live.dial("cam-2") as other:
        assert echoes(connection)
        held = gate.run("devices", "hold", "cam-1", "--reason", "lens replaced")
        assert held.returncode == 0, held.stderr
        assert held.stdout.startswith("cam-1: trusted → held: held")
        service.wait("cam-1", "held")
        assert not echoes(connection), "a live connection ends with the hold"
        assert echoes(other)

    gate.tell("cam-1", Reason.PASS, issued_at=newest(service, "cam-1") + 1)
    until(lambda: service.device("cam-1")["last"]["event"] == "passed")
    assert service.standing("cam-1") == "held", "an operator's hold is not lifted by a pass"

    explained = gate.run("explain", "cam-1")
    assert explained.returncode == 0, explained.stderr
    assert explained.stdout.startswith("cam-1 is held and has profile deny.\nWhy: passed, recorded beneath")
    assert "lens replaced" in explained.stdout
    shown = gate.ask("devices", "show", "cam-1", "--output", "json")
    assert json.loads(shown.stdout)["records"]["verifier"]["hold"] is True

    released = gate.run("devices", "release", "cam-1", "--reason", "done")
    assert released.stdout.startswith("cam-1: held → lapsed: released"), released.stderr
    assert gate.ask("devices", "list", "--standing", "lapsed").stdout.splitlines()[1].startswith("cam-1")
    assert not reaches(live, "cam-1"), "released is not admitted: it must attest first"
    gate.tell("cam-1", Reason.PASS, issued_at=newest(service, "cam-1") + 1)
    service.wait("cam-1", "trusted")
    assert reaches(live, "cam-1")
    rows = service.device("cam-1")["verdicts"]
    acts = [(row["event"], row["actor"], row["reason"]) for row in rows if row.get("actor")]
    assert [(event, reason) for event, _, reason in acts] == [("released", "done"), ("held", "lens replaced")]
    assert all(actor.startswith("unix:") for _, actor, _ in acts)


def newest(service: Running, device: str) -> int:
    return int(service.device(device)["records"]["verifier"]["newest"])


def reaches(live: Live, device: str) -> bool:
    try:
        with live.dial(device) as connection:
            return echoes(connection)
    except ConnectionError:
        return False


def test_a_failure_ends_a_relayed_connection(live: Live) -> None:
    if live.service.standing("cam-2") == "unknown":
        live.gate.admit(live.service, "cam-2")
    with live.dial("cam-2") as connection:
        assert echoes(connection)
        live.gate.tell("cam-2", Reason.FAILED_ATTEST, issued_at=newest(live.service, "cam-2"))
        live.service.wait("cam-2", "distrusted")
        assert not echoes(connection)
    assert not reaches(live, "cam-2")


def test_answers_that_are_no(live: Live) -> None:
    gate = live.gate
    nobody = gate.ask("explain", "nobody")
    assert (nobody.exit_code, nobody.stderr) == (1, "ragate: device 'nobody' is not in the inventory\n")
    assert gate.ask("devices", "hold", "cam-1").exit_code == 2, "an act needs a reason"
    assert gate.ask("devices", "hold", "cam-1", "--reason", " ").exit_code == 1
    checked = gate.run("check")
    assert checked.returncode == 0, checked.stderr
    assert "service: ready" in checked.stdout
    assert re.search(r"^  journal +ready", checked.stdout, re.MULTILINE)
    assert gate.socket.stat().st_mode & 0o777 == 0o660


# --- files that nobody can run -----------------------------------------------------------------------------------


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


def with_published_key(folder: Path) -> None:
    shutil.copy(FIXTURES / "verifier-public-key.pem", folder / "verifier.pem")


def without_first_key(folder: Path) -> None:
    keys = folder / "devices.keys"
    keys.write_text("".join(keys.read_text().splitlines(keepends=True)[1:]))


#: What is wrong, how it came about, and the one line that says so.
MISTAKES: dict[str, tuple[Callable[[Path], None], str]] = {
    "unknown key": (edit("ragate.yaml", "socket:", "sockte:"), r"ragate\.yaml:\d+:\d+: .*sockte.*socket"),
    "duplicate key": (edit("ragate.yaml", "book:", "journal: x.db\nbook:"), r"ragate\.yaml:\d+:\d+: .*journal"),
    "second target": (
        edit("ragate.yaml", "- name: gateway", "- name: a\n- name: gateway"),
        r"ragate\.yaml:\d+:\d+: ",
    ),
    "no inventory": (lambda folder: (folder / "devices.yaml").unlink(), r"ragate\.yaml:\d+:\d+: .*devices\.yaml"),
    "bad address": (edit("devices.yaml", "127.0.77.11", "127.0.77.256"), r"devices\.yaml:\d+:\d+: .*cam-1"),
    "no key": (without_first_key, r"devices\.yaml:\d+:\d+: cam-1 has no HMAC key"),
    "open key file": (lambda folder: (folder / "devices.keys").chmod(0o644), r"devices\.keys: others may use"),
    "bad port": (edit("book.yaml", "port: ", "port: 7"), r"book\.yaml:\d+:\d+: .*port"),
    "published key": (with_published_key, r"ragate\.yaml:\d+:\d+: .*published demo key"),
}


def refusals(programs: dict[str, list[str]]) -> dict[str, tuple[int, str]]:
    """Exit code and standard error of programs run side by side."""
    started = {
        name: subprocess.Popen(
            program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment()
        )
        for name, program in programs.items()
    }
    told = {}
    for name, process in started.items():
        with ended(process):
            _, error = process.communicate(timeout=PATIENCE)
            told[name] = (process.returncode, error)
    return told


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()


def spoilt(gate: Installed, folder: Path, name: str) -> Path:
    """The same configuration with one mistake, on the same journal, socket and ports: a start that got so far
    would disturb the running service."""
    shutil.copytree(gate.folder, folder, ignore=shutil.ignore_patterns("var", "*.log"))
    os.symlink(gate.folder / "var", folder / "var")
    MISTAKES[name][0](folder)
    return folder / "ragate.yaml"


@pytest.mark.parametrize("name", MISTAKES)
def test_wrong_files_are_refused_with_their_place(live: Live, tmp_path: Path, name: str) -> None:
    before = snapshot(live)
    config = spoilt(live.gate, tmp_path / "spoilt", name)
    for command in ("serve", "check", "baseline"):
        result = CliRunner().invoke(app, [command, "--config", str(config)])
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("ragate: ")
        assert re.search(MISTAKES[name][1], result.stderr), result.stderr
        assert len(result.stderr.splitlines()) == 1, "one clear message"
    assert snapshot(live) == before


def test_a_start_on_wrong_files_leaves_a_running_service_untouched(live: Live, tmp_path: Path) -> None:
    gate, service = live.gate, live.service
    before = snapshot(live)
    names = ("unknown key", "bad address", "bad port")
    configs = {name: spoilt(gate, tmp_path / name.replace(" ", "-"), name) for name in names}
    told = refusals({name: gate.program("serve", "--config", str(config)) for name, config in configs.items()})
    for name, (code, error) in told.items():
        assert code == 2, f"{name}: exit code {code}: {error}"
        assert re.match(f"ragate: .*{MISTAKES[name][1]}", error), f"{name}: {error}"
        assert "Traceback" not in error
    assert service.process.poll() is None
    assert snapshot(live) == before


def snapshot(live: Live) -> tuple[object, ...]:
    """What must not change: standings and records, and the socket's own file."""
    service = live.service
    records = [service.device(name)["records"] for name in DEVICES]
    return service.ready(), records, live.gate.socket.stat().st_ino, service.metric("ragate_withheld_total")


def test_a_second_service_does_not_disturb_the_first(live: Live) -> None:
    gate = live.gate
    before = snapshot(live)
    second = gate.run("serve")
    assert second.returncode == 1
    assert second.stderr.startswith(f"ragate: {gate.journal}: another process is using this journal")
    assert len(second.stderr.splitlines()) == 1
    assert snapshot(live) == before
    gate.tell("cam-1", Reason.PASS, issued_at=newest(live.service, "cam-1") + 1)
    until(
        lambda: (live.service.device("cam-1")["last"] or {}).get("event") == "passed"
    )  # none yet where it is the first
    if live.service.standing("cam-1") == "trusted":
        assert reaches(live, "cam-1")
