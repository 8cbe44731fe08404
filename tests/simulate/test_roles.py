"""The parties as roles of their own: files that prepare writes, what they tell, what they can be told."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest
import yaml

from gateway.certs import Folder, Role
from gateway.config import find_findings, load
from gateway.sediment.wire import Reason, decode_alert
from gateway.simulate import plan
from gateway.simulate.__main__ import main
from gateway.simulate.appserver import SurrogateAppServer
from gateway.simulate.inquiry import InquiryError, answering, ask
from gateway.simulate.prepare import PARTIES, prepare
from gateway.simulate.roles import AppServerRole, DevicesRole, VerifierRole
from gateway.simulate.sockets import Peer
from gateway.simulate.wired import check_token
from tests.agentlink.pair import until
from tests.ports import OWN, free_port


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    prepare(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_prepared_again_nothing_has_changed(files: Path) -> None:
    before = contents(files)
    prepare(files)
    assert contents(files) == before


def test_what_is_missing_is_made_again_and_keys_stay(tmp_path: Path) -> None:
    prepare(tmp_path)
    before = contents(tmp_path)
    for name in ("agent/agent-app-server.pem", "gateway/ragate.yaml", "devices/cam-1.firmware"):
        (tmp_path / name).unlink()
    prepare(tmp_path)
    assert contents(tmp_path) == before


def test_an_authority_or_a_certificate_that_was_not_finished_is_made_anew(tmp_path: Path) -> None:
    prepare(tmp_path)
    authority = Folder(tmp_path / "authority" / "certs")
    lost = authority.certificate(Role.AGENT, plan.AGENT)
    lost.unlink()
    prepare(tmp_path)
    assert lost.exists()
    assert [one.revoked > 0 for one in authority.register() if one.role is Role.AGENT] == [True, False]
    authority.revocations.unlink()
    prepare(tmp_path)
    assert (tmp_path / "gateway" / "ca.crl").read_bytes() == authority.revocations.read_bytes()


def test_nobody_but_the_group_of_the_parties_reads_their_files(tmp_path: Path) -> None:
    prepare(tmp_path, readers=os.getegid())
    for path in tmp_path.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        party = path.relative_to(tmp_path).parts[0]
        if "certs" in path.parts and path.suffix in (".pem", ".crl"):
            continue  # public, in a folder of the authority's own
        assert not mode & 0o027, path
        assert bool(mode & 0o040) is (party in PARTIES), path
        assert path.stat().st_gid == os.getegid()


def test_the_gateway_can_be_started_with_what_was_written(files: Path) -> None:
    config = load(files / "gateway" / "ragate.yaml")
    assert not [finding for finding in find_findings(config) if finding.severity == "error"]
    assert {device.id for device in config.devices} == {each.id for each in plan.DEVICES}
    written = yaml.safe_load((files / "agent" / "agent.yaml").read_text())
    assert all((files / "agent" / name).is_file() for name in written["certificates"].values())


def test_a_party_has_its_own_secrets_and_no_others(files: Path) -> None:
    having = {party: {path.name for path in (files / party).iterdir()} for party in PARTIES}
    firmware = {f"{each.id}.firmware" for each in plan.DEVICES}
    assert having == {
        "verifier": {"devices.keys", "verifier.key", *firmware},
        "devices": {"devices.keys", *firmware},
        "appserver": {"devices.keys"},
    }
    for other in ("gateway", "agent"):
        assert not (files / other / "verifier.key").exists()
        assert not list((files / other).rglob("ca.key"))


# --- the parties together ---------------------------------------------------------------------------------------


class Door:
    """Takes alerts."""

    def __init__(self) -> None:
        self.alerts: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.alerts.append(await reader.read())
        writer.close()


async def test_devices_attest_data_arrives_and_a_tampered_device_fails(files: Path) -> None:
    door = Door()
    listening = await asyncio.start_server(door.serve, OWN, 0)
    verifier = VerifierRole.of(files / "verifier")
    verifier.addresses, verifier.port = [OWN], free_port(OWN)
    verifier.verifier.consumer = Peer(OWN, listening.sockets[0].getsockname()[1])
    verifier.verifier.source = OWN
    devices = DevicesRole.of(files / "devices")
    cam_1 = devices.devices["cam-1"]
    cam_1.addresses, cam_1.links = (OWN,), []
    devices.devices = {"cam-1": cam_1}
    devices.verifiers, devices.port, devices.period = [OWN], verifier.port, 0.05
    tasks = [asyncio.create_task(verifier.run()), asyncio.create_task(devices.run())]
    try:
        await until(lambda: door.alerts, lambda: devices.trouble)
        alert = decode_alert(door.alerts[0])
        assert (alert.header.device, alert.reason, alert.endpoint.address) == (b"cam-1", Reason.PASS, OWN.encode())
        check_token(door.alerts[0], cam_1.key)
        devices.answer(["tell", "cam-1", "tampered"])
        await until(lambda: verifier.judged["cam-1"]["FAILED_ATTEST"])
        devices.answer(["tell", "cam-1", "silent"])
        seen = devices.answer(["show"])["cam-1"]
        assert seen["state"] == "silent"
        devices.answer(["tell", "cam-1", "genuine"])
        passes = verifier.judged["cam-1"]["PASS"]
        await until(lambda: verifier.judged["cam-1"]["PASS"] > passes)
        assert verifier.show(["show"])["alerts_lost"] == 0
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        listening.close()


async def test_alerts_that_cannot_leave_are_counted(files: Path) -> None:
    verifier = VerifierRole.of(files / "verifier")
    verifier.addresses, verifier.port = [OWN], free_port(OWN)
    verifier.verifier.consumer, verifier.verifier.source = Peer(OWN, free_port(OWN)), OWN
    devices = DevicesRole.of(files / "devices")
    cam_1 = devices.devices["cam-1"]
    cam_1.addresses, cam_1.links = (OWN,), []
    devices.devices, devices.verifiers, devices.port = {"cam-1": cam_1}, [OWN], verifier.port
    tasks = [asyncio.create_task(verifier.run()), asyncio.create_task(devices.run())]
    try:
        await until(lambda: verifier.lost)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_the_app_server_tells_who_was_heard() -> None:
    role = AppServerRole(SurrogateAppServer({"cam-1": bytes(32)}), [Peer(OWN, free_port(OWN))])
    task = asyncio.create_task(role.run())
    await until(lambda: role.server.listening)
    assert role.show(["show"]) == {"heard": {"cam-1": {}}, "refused": 0}
    with pytest.raises(ValueError, match="nothing here can be told"):
        role.show(["tell", "cam-1", "silent"])
    task.cancel()
    await asyncio.wait([task])


# --- questions and answers --------------------------------------------------------------------------------------


async def test_a_role_is_asked_over_its_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    control = tmp_path / "control.sock"
    control.touch()  # left by a predecessor

    def answer(words: object) -> dict[str, object]:
        if words == ["show"]:
            return {"refused": 0}
        msg = "say show"
        raise ValueError(msg)

    async with answering(control, answer):
        assert await asyncio.to_thread(ask, control, ["show"]) == {"refused": 0}
        with pytest.raises(InquiryError, match="say show"):
            await asyncio.to_thread(ask, control, ["dance"])
        assert await asyncio.to_thread(main, ["show", "--control", str(control)]) == 0
        assert json.loads(capsys.readouterr().out) == {"refused": 0}
        assert await asyncio.to_thread(main, ["tell", "cam-1", "silent", "--control", str(control)]) == 1
    assert not control.exists()
    with pytest.raises(InquiryError, match="no answer at"):
        ask(control, ["show"])
    assert main(["show", "--control", str(control)]) == 1
    assert "no answer at" in capsys.readouterr().err


async def test_what_is_no_question_is_refused_and_the_next_one_answered(tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    async with answering(control, lambda _: {"fine": True}):
        for line in (b"nonsense\n", b'{"a": 1}\n', b"[1]\n", b'["' + b"x" * 10_000 + b'"]\n', b""):
            reader, writer = await asyncio.open_unix_connection(control)
            writer.write(line)
            writer.write_eof()
            async with asyncio.timeout(60):
                said = await reader.read()
            assert not said or "error" in json.loads(said)
            writer.close()
        assert await asyncio.to_thread(ask, control, ["show"]) == {"fine": True}
