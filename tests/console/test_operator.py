"""The operator's window, over real Unix sockets."""

from __future__ import annotations

import asyncio
import fcntl
import grp
import os
import pwd
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.console.operator import REASON_MOST, OperatorWindow, open_socket, parse_act
from gateway.console.problems import Problem
from gateway.core.errors import ConfigError
from tests.console.conftest import ask, windows
from tests.fakes.directory import NOW, FakeSite

ME = f"unix:{pwd.getpwuid(os.getuid()).pw_name}"


async def test_hold_and_release_carry_the_peer_and_the_reason(unix: aiohttp.ClientSession, site: FakeSite) -> None:
    held = await ask(unix, "POST", "/v1/devices/cam-1/hold", json={"reason": " lens replaced "})
    assert held.status == 200
    assert held.json == {
        "device": "cam-1",
        "before": "trusted",
        "after": "held",
        "why": f"held by {ME}: lens replaced",
    }
    told = (await ask(unix, "GET", "/v1/devices/cam-1")).json["held"]
    assert told == {"at": NOW, "actor": ME, "reason": "lens replaced"}
    assert f"by {ME}" in (await ask(unix, "GET", "/devices/cam-1")).body.decode()
    released = await ask(unix, "POST", "/v1/devices/cam-1/release", json={"reason": "done"})
    assert released.json["after"] == "lapsed"
    assert (await ask(unix, "GET", "/v1/devices/cam-1")).json["held"] is None
    assert site.acts == [("hold", "cam-1", ME, "lens replaced"), ("release", "cam-1", ME, "done")]


async def test_an_override_and_its_end(unix: aiohttp.ClientSession, site: FakeSite) -> None:
    body = {"profile": "probation", "seconds": 7200, "reason": " lens "}
    done = await ask(unix, "POST", "/v1/devices/cam-1/override", json=body)
    assert done.status == 200
    assert done.json == {
        "device": "cam-1",
        "before": "admitted",
        "after": "probation",
        "until": NOW + 7200,
        "why": f"overridden by {ME} to probation: lens",
    }
    told = (await ask(unix, "GET", "/v1/devices/cam-1")).json["override"]
    assert told == {"profile": "probation", "until": NOW + 7200, "actor": ME, "reason": "lens"}
    ended = await ask(unix, "POST", "/v1/devices/cam-1/end-override", json={"reason": "done"})
    assert (ended.status, ended.json["after"]) == (200, "admitted")
    assert (await ask(unix, "GET", "/v1/devices/cam-1")).json["override"] is None
    assert site.acts == [("override probation 7200", "cam-1", ME, "lens"), ("end-override", "cam-1", ME, "done")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"reason": "x"}',
        b'{"profile": "probation", "reason": "x"}',
        b'{"profile": "probation", "seconds": 60}',
        b'{"profile": "probation", "seconds": 60, "reason": " "}',
        b'{"profile": "probation", "seconds": "60", "reason": "x"}',
        b'{"profile": "gone", "seconds": 60, "reason": "x"}',
        b'{"profile": "", "seconds": 60, "reason": "x"}',
        b'{"profile": "probation", "seconds": 60, "reason": "x", "actor": "root"}',
        b'{"profile": "\xff"}',
    ],
)
async def test_an_override_that_is_none_is_400(unix: aiohttp.ClientSession, site: FakeSite, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    reply = await ask(unix, "POST", "/v1/devices/cam-1/override", data=body, headers=headers)
    assert reply.status == 400
    assert reply.json["detail"]
    assert site.acts == []


async def test_overrides_that_cannot_be(unix: aiohttp.ClientSession, site: FakeSite) -> None:
    body = {"profile": "probation", "seconds": 60, "reason": "x"}
    assert (await ask(unix, "POST", "/v1/devices/nobody/override", json=body)).status == 404
    assert (await ask(unix, "POST", "/v1/devices/nobody/end-override", json={"reason": "x"})).status == 404
    assert (await ask(unix, "POST", "/v1/devices/cam-1/override", data=body)).status == 415
    assert (await ask(unix, "POST", "/v1/devices/cam-1/end-override", data=body)).status == 415
    site.shut = "the journal cannot be written"
    reply = await ask(unix, "POST", "/v1/devices/cam-1/override", json=body)
    assert (reply.status, reply.json["detail"]) == (503, site.shut)
    assert site.acts == []


async def test_the_same_questions_are_answered(unix: aiohttp.ClientSession) -> None:
    assert (await ask(unix, "GET", "/v1/devices/cam-1")).status == 200
    assert (await ask(unix, "GET", "/readyz")).json["ready"] is True
    assert b"/hold" in (await ask(unix, "GET", "/")).body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"reason": ""}',
        b'{"reason": "   "}',
        b'{"reason": 7}',
        b'{"reason": null}',
        b'{"reason": "a\\nb"}',
        b'{"reason": "a\\u001b[2J"}',
        b'{"reason": "x", "actor": "root"}',
        b'{"reason": "\xff"}',
        b'{"reason": "' + b"x" * (REASON_MOST + 1) + b'"}',
    ],
)
async def test_a_bad_body_is_400_and_nothing_happens(
    unix: aiohttp.ClientSession, site: FakeSite, body: bytes
) -> None:
    headers = {"Content-Type": "application/json"}
    reply = await ask(unix, "POST", "/v1/devices/cam-1/hold", data=body, headers=headers)
    assert reply.status == 400
    assert "reason" in reply.json["detail"]
    assert site.acts == []


async def test_wrong_type_size_device_and_method(unix: aiohttp.ClientSession, site: FakeSite) -> None:
    form = await ask(unix, "POST", "/v1/devices/cam-1/hold", data={"reason": "x"})
    assert form.status == 415
    huge = await ask(unix, "POST", "/v1/devices/cam-1/hold", json={"reason": "x" * 100_000})
    assert huge.status == 413
    assert (await ask(unix, "POST", "/v1/devices/nobody/hold", json={"reason": "x"})).status == 404
    assert (await ask(unix, "GET", "/v1/devices/cam-1/hold")).status == 405
    assert (await ask(unix, "POST", "/v1/devices", json={"reason": "x"})).status == 405
    assert site.acts == []


@given(st.binary(max_size=600))
def test_any_body_gives_a_reason_or_a_problem(body: bytes) -> None:
    try:
        reason = parse_act(body)
    except Problem:
        return
    assert 1 <= len(reason) <= REASON_MOST
    assert reason.isprintable()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_mode_is_0660_under_any_umask_and_umask_is_not_touched(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "op.sock"
    before = os.umask(umask)
    try:
        with open_socket(path, None):
            assert mode(path) == 0o660
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


def test_nobody_can_connect_before_the_mode_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "op.sock"
    seen: list[int] = []

    def look(self: Path, wanted: int) -> None:
        seen.append(mode(path))
        with socket.socket(socket.AF_UNIX) as early, pytest.raises((ConnectionRefusedError, PermissionError)):
            early.connect(str(path))
        os.chmod(path, wanted)

    monkeypatch.setattr(Path, "chmod", look)
    with open_socket(path, None):
        assert seen == [0]
        assert mode(path) == 0o660


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every group can pass on the way to, unlike the private one of the test run."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def test_group_is_set(reachable: Path) -> None:
    group = grp.getgrgid(os.getgid())
    path = reachable / "run" / "op.sock"
    with open_socket(path, group.gr_name):
        assert path.stat().st_gid == group.gr_gid
        assert path.parent.stat().st_gid == group.gr_gid
        assert mode(path.parent) & 0o077 == 0o050
    with pytest.raises(ConfigError, match=r"operator\.group: there is no group 'no-such-group'"):
        open_socket(reachable / "op2.sock", "no-such-group")


def test_a_group_that_could_not_get_there_is_told(reachable: Path) -> None:
    group = grp.getgrgid(os.getgid())
    folder = reachable / "private"
    folder.mkdir(mode=0o700)
    with pytest.raises(ConfigError, match=r"cannot pass .*private"):
        open_socket(folder / "op.sock", group.gr_name)
    assert list(folder.iterdir()) == []
    folder.chmod(0o710)
    with open_socket(folder / "op.sock", group.gr_name):
        pass


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "op.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with open_socket(path, None), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize("kind", ["file", "folder", "symlink"])
def test_anything_else_in_the_way_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "op.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is no socket"):
        open_socket(path, None)
    assert os.path.lexists(path)


def test_a_living_socket_is_not_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "op.sock"
    with open_socket(path, None):
        with pytest.raises(ConfigError, match="another service listens"):
            open_socket(path, None)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_two_starters_do_not_race(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"operator\.socket"):
            open_socket(tmp_path / "op.sock", None)
    finally:
        os.close(handle)
    with open_socket(tmp_path / "op.sock", None):
        assert sorted(each.name for each in tmp_path.iterdir()) == ["op.sock"]


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="longer than 107 bytes"):
        open_socket(tmp_path / ("x" * 120), None)


async def test_stop_removes_only_its_own_file(site: FakeSite, tmp_path: Path) -> None:
    path = tmp_path / "op.sock"
    window = OperatorWindow(windows(site), site, site, path)
    await window.start()
    await window.stop()
    assert not path.exists()
    await window.start()
    path.unlink()
    path.write_text("another's")
    await window.stop()
    assert path.read_text() == "another's"


async def test_actor_without_a_name_is_the_number(
    unix: aiohttp.ClientSession, site: FakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(_uid: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    await ask(unix, "POST", "/v1/devices/cam-1/hold", json={"reason": "x"})
    assert site.acts[0][2] == f"unix:{os.getuid()}"


async def test_client_that_leaves_early_does_not_disturb(operator: Path, unix: aiohttp.ClientSession) -> None:
    for _ in range(5):
        _, writer = await asyncio.open_unix_connection(str(operator))
        writer.write(b"POST /v1/devices/cam-1/hold HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
        writer.close()
        await writer.wait_closed()
    assert (await ask(unix, "GET", "/healthz")).status == 200


async def test_success_is_answered_when_the_journal_has_the_act(site: FakeSite, tmp_path: Path) -> None:
    path, waiting = tmp_path / "op.sock", asyncio.Event()
    durable: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def kept() -> str:
        waiting.set()
        return await durable

    window = OperatorWindow(windows(site), site, site, path, kept=kept)
    await window.start()
    try:
        connector = aiohttp.UnixConnector(path=str(path))
        async with aiohttp.ClientSession("http://localhost", connector=connector) as session:
            act = asyncio.create_task(ask(session, "POST", "/v1/devices/cam-1/hold", json={"reason": "lens"}))
            await waiting.wait()
            assert site.acts == [("hold", "cam-1", ME, "lens")]
            assert not act.done()
            durable.set_result("disk full")
            answer = await act
            assert answer.status == 503
            assert "would outlive a crash: disk full" in answer.json["detail"]
    finally:
        await window.stop()
