"""The script: what it loads, what it hands over, and what its exit codes say."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.intake.hook import send
from gateway.intake.hook.door import KIND
from tests.intake.hook.test_door import HINT, ME, site

SCRIPT = Path(sys.executable).with_name("ragate-hook")
CAM = ("cam-1", "10.77.1.11", "FAILED_ATTEST")

#: What the script may load beyond what Python itself does: nothing of these imports anything else.
LOADED = {"__future__", "_socket", "gateway", "gateway.intake", "gateway.intake.hook", "gateway.intake.hook.send"}


def modules(code: str) -> set[str]:
    shown = f"{code}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, timeout=120, check=True)
    return set(done.stdout.split())


def test_it_loads_next_to_nothing() -> None:
    beyond = modules("import gateway.intake.hook.send") - modules("pass")
    assert beyond <= LOADED


async def run(*arguments: str | bytes, at: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        SCRIPT, *arguments, stderr=asyncio.subprocess.PIPE, env={send.VARIABLE: str(at)}
    )
    async with asyncio.timeout(60):
        _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hook.sock"


async def test_handed_over(path: Path) -> None:
    async with site(path) as at:
        assert await run(*CAM, at=path) == (0, "")
    assert [each.data for each in at.admission.envelopes] == [HINT]


async def test_arguments_go_over_as_the_bytes_they_are(path: Path) -> None:
    hostile = b"\xff\xfe$(reboot)\n;\x1b[2J"
    async with site(path) as at:
        assert await run(hostile, "10.77.1.11", "PASS", at=path) == (0, "")
    assert [each.data for each in at.admission.envelopes] == [hostile + b"\x0010.77.1.11\x00PASS"]


async def test_another_user_is_told_so(path: Path) -> None:
    async with site(path, uids=frozenset({ME + 1})):
        code, said = await run(*CAM, at=path)
    assert code == send.EXIT_REFUSED
    assert said.startswith(f"ragate-hook: user {ME} may not hand in hints")


@pytest.mark.parametrize(
    "arguments",
    [(), CAM[:1], CAM[:2], (*CAM, "more"), ("", *CAM[1:]), ("a" * 256, *CAM[1:]), ("--help",)],
)
async def test_other_arguments_are_refused(path: Path, arguments: tuple[str, ...]) -> None:
    async with site(path) as at:
        code, said = await run(*arguments, at=path)
        assert code == send.EXIT_USAGE
        assert said == send.USAGE
    assert at.admission.envelopes == []


async def test_huge_arguments_are_refused(path: Path) -> None:
    async with site(path) as at:
        assert (await run("a" * 100_000, *CAM[1:], at=path))[0] == send.EXIT_USAGE
    assert at.admission.envelopes == []
    assert at.admission.refusals == []


async def test_no_gateway(path: Path) -> None:
    code, said = await run(*CAM, at=path)
    assert code == send.EXIT_NO_GATEWAY
    assert said.startswith(f"ragate-hook: no gateway answers at {path}: ")


async def test_a_gateway_that_has_ended(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, KIND) as left_behind:
        left_behind.bind(os.fspath(path))
    assert (await run(*CAM, at=path))[0] == send.EXIT_NO_GATEWAY


async def test_a_path_that_is_no_socket(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / ("a" * 200), Path("/dev/null")):
        assert (await run(*CAM, at=path))[0] == send.EXIT_NO_GATEWAY


async def test_a_gateway_that_stands_still(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, KIND) as asleep:
        asleep.bind(os.fspath(path))
        asleep.listen(8)
        code, said = await run(*CAM, at=path)
    assert code == send.EXIT_UNCONFIRMED
    assert "does not confirm" in said


async def test_a_full_queue_does_not_hold_the_caller(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, KIND) as asleep:
        asleep.bind(os.fspath(path))
        asleep.listen(0)
        waiting = []
        while True:
            client = socket.socket(socket.AF_UNIX, KIND)
            client.setblocking(False)
            waiting.append(client)
            try:
                client.connect(os.fspath(path))
            except BlockingIOError:
                break
        assert (await run(*CAM, at=path))[0] == send.EXIT_NO_GATEWAY
        for client in waiting:
            client.close()


def test_the_exit_codes_are_in_the_usage() -> None:
    for code in (0, send.EXIT_REFUSED, send.EXIT_USAGE, send.EXIT_NO_GATEWAY, send.EXIT_UNCONFIRMED):
        assert f" {code} " in send.USAGE.replace("\n", " ")


def test_a_nul_cannot_make_another_field() -> None:
    assert send.hand_in([b"cam-1\0x", b"10.77.1.11", b"PASS"], "/nowhere")[0] == send.EXIT_USAGE
