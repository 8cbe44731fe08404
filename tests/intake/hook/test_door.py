"""The hook's door: who may speak, what is taken, and everything that somebody hostile may do at it."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gateway.console.operator import SocketFile
from gateway.core.errors import Refusal
from gateway.core.model import SourceName
from gateway.intake.hook.door import KIND, MESSAGE_MOST, HookDoor, HookSettings
from tests.fakes.admission import FakeAdmission
from tests.fakes.clock import ManualClock

HOOK = SourceName("hook")
ME = os.getuid()
HINT = b"cam-1\x0010.77.1.11\x00FAILED_ATTEST"


class Site:
    """A door at a socket of its own."""

    def __init__(self, path: Path, door: HookDoor, admission: FakeAdmission) -> None:
        self.path = path
        self.door = door
        self.admission = admission

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, KIND)
        client.setblocking(False)
        try:
            client.connect(os.fspath(self.path))
        except OSError:
            client.close()
            raise
        return client

    async def answer(self, client: socket.socket) -> bytes:
        async with asyncio.timeout(60):
            loop = asyncio.get_running_loop()
            try:
                return await loop.sock_recv(client, 256)
            except ConnectionResetError:  # a hint was not read; the answer stands behind that news
                return await loop.sock_recv(client, 256)

    async def tell(self, message: bytes) -> bytes:
        with self.connect() as client:
            with suppress(BrokenPipeError):
                client.send(message)
            return await self.answer(client)

    async def until(self, what: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not what():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def site(
    path: Path,
    *,
    uids: frozenset[int] = frozenset({ME}),
    seconds: float = 60.0,
    room: int | None = None,
    connections: int = 64,
) -> AsyncIterator[Site]:
    admission = FakeAdmission(room)
    file = SocketFile(path, None, "doors.hook", KIND)
    settings = HookSettings(HOOK, uids, connections, seconds)
    door = HookDoor(file.open(), admission, ManualClock(), settings)
    task = asyncio.create_task(door.run())
    await asyncio.sleep(0)
    try:
        yield Site(path, door, admission)
    finally:
        task.cancel()
        await asyncio.wait([task])
        file.remove()
    assert not path.exists()
    assert task.cancelled() or task.exception() is None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hook.sock"


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A folder that every user can pass."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


async def test_a_hint_is_taken_whole_and_confirmed(path: Path) -> None:
    async with site(path) as at:
        assert await at.tell(HINT) == b"taken"
    (envelope,) = at.admission.envelopes
    assert (envelope.data, envelope.source, envelope.peer) == (HINT, HOOK, f"unix:{ME}")
    assert at.admission.refusals == []


async def test_the_socket_is_for_owner_and_group_alone(path: Path) -> None:
    async with site(path):
        found = path.lstat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o660
        assert found.st_uid == os.geteuid()


async def test_another_user_is_refused_before_a_byte_is_read(path: Path) -> None:
    async with site(path, uids=frozenset({ME + 1})) as at:
        assert (await at.tell(HINT)).startswith(f"user {ME} may not".encode())
        assert at.admission.reasons == [Refusal.PEER]
        assert at.admission.refusals[0].peer == f"unix:{ME}"
    assert at.admission.envelopes == []


@pytest.mark.skipif(ME != 0, reason="only root can be somebody else")
async def test_the_kernels_word_counts_for_a_process_that_gave_up_root(own_folder: Path) -> None:
    path = own_folder / "hook.sock"
    async with site(path) as at:
        path.chmod(0o666)
        code = (
            "import os, socket, sys; os.setgid(65534); os.setuid(65534); "
            f"s = socket.socket(socket.AF_UNIX, {int(KIND)}); s.connect({str(path)!r}); "
            "sys.stdout.buffer.write(s.recv(256))"
        )
        process = await asyncio.create_subprocess_exec("python3", "-c", code, stdout=asyncio.subprocess.PIPE)
        async with asyncio.timeout(60):
            out, _ = await process.communicate()
        assert out.startswith(b"user 65534 may not")
    assert at.admission.reasons == [Refusal.PEER]


@pytest.mark.parametrize("size", [MESSAGE_MOST + 1, 60_000])
async def test_a_message_that_is_too_long_is_refused_not_cut(path: Path, size: int) -> None:
    async with site(path) as at:
        assert await at.tell(b"a" * size) == b"this is no hint"
        assert await at.tell(b"a" * MESSAGE_MOST) == b"taken"
    assert at.admission.reasons == [Refusal.FRAMING]
    assert [len(each.data) for each in at.admission.envelopes] == [MESSAGE_MOST]


async def test_one_connection_is_one_hint(path: Path) -> None:
    async with site(path) as at:
        with at.connect() as client:
            client.send(HINT)
            client.send(HINT)
            assert await at.answer(client) == b"taken"
        assert await at.tell(HINT) == b"taken"
    assert len(at.admission.envelopes) == 2


async def test_a_silent_client_is_closed_and_disturbs_nobody(path: Path) -> None:
    async with site(path, seconds=0.2) as at:
        with at.connect() as silent:
            assert await at.tell(HINT) == b"taken"
            assert await at.answer(silent) == b""
        assert at.door.open_connections == 0
    assert at.admission.reasons == [Refusal.TIMEOUT]


async def test_who_closes_without_a_word_is_counted(path: Path) -> None:
    async with site(path) as at:
        at.connect().close()
        await at.until(lambda: at.admission.refusals)
    assert at.admission.reasons == [Refusal.FRAMING]


async def test_held_connections_have_a_limit(path: Path) -> None:
    async with site(path, connections=3) as at:
        held = [at.connect() for _ in range(3)]
        await at.until(lambda: at.door.open_connections == 3)
        assert (await at.tell(HINT)).startswith(b"busy")
        held[0].send(HINT)
        assert await at.answer(held[0]) == b"taken"
        assert await at.tell(HINT) == b"taken"
        for each in held:
            each.close()
    assert Refusal.LIMIT in at.admission.reasons
    assert len(at.admission.envelopes) == 2


async def test_a_flood_is_taken_or_refused_and_ends(path: Path) -> None:
    async with site(path) as at:
        answers: list[bytes] = []

        async def one() -> None:
            while True:
                try:
                    answers.append(await at.tell(HINT))
                except BlockingIOError:  # the kernel's queue is full: what the script tells its caller
                    await asyncio.sleep(0.01)
                else:
                    return

        async with asyncio.TaskGroup() as tasks:
            for _ in range(500):
                tasks.create_task(one())
        assert len(answers) == 500
        assert set(answers) <= {b"taken", b"busy: 64 connections are open"}
        assert len(at.admission.envelopes) == answers.count(b"taken")


async def test_verdicts_go_before_hints(path: Path) -> None:
    async with site(path, room=1) as at:
        assert await at.tell(HINT) == b"taken"
        assert await at.tell(HINT) == b"busy"
        at.admission.make_room()
        assert await at.tell(HINT) == b"taken"
    assert at.admission.reasons == [Refusal.LIMIT]


async def test_a_hint_that_has_arrived_counts_at_a_stop(path: Path) -> None:
    async with site(path) as at:
        client = at.connect()
        await at.until(lambda: at.door.open_connections == 1)
        client.send(HINT)
    assert [each.data for each in at.admission.envelopes] == [HINT]
    client.close()


async def test_a_hostile_peer_that_goes_before_the_answer_ends_nothing(path: Path) -> None:
    async with site(path) as at:
        for _ in range(20):
            client = at.connect()
            client.send(HINT)
            client.close()
        await at.until(lambda: len(at.admission.envelopes) == 20)
        assert await at.tell(HINT) == b"taken"
