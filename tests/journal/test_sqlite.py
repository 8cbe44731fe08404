"""The journal against the machine: killed at any moment, and on a disk that is really full."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.core.errors import JournalError
from gateway.journal import SqliteHistory, SqliteJournal
from tests.fakes.clock import ManualClock
from tests.journal import samples
from tests.journal.conftest import Make, durable

HERE = Path(__file__).resolve().parents[2]
CHILD = [sys.executable, "-m", "tests.journal.child"]


def run_until_killed(path: Path, lines: int) -> list[tuple[int, int, int]]:
    """Start the child, kill it -9 after ``lines`` durable rows; returns every (seq, device, pass) it reported."""
    reported = []
    with subprocess.Popen([*CHILD, "crash", str(path)], cwd=HERE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for number, line in enumerate(child.stdout, 1):
            if line.startswith(b"DURABLE") and line.endswith(b"\n"):
                seq, device, turn = map(int, line.split()[1:])
                reported.append((seq, device, turn))
            if number == lines:
                os.kill(child.pid, signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    return reported


async def test_what_was_told_durable_survives_kill_9(make: Make, path: Path) -> None:
    chance = random.Random(7)
    for _ in range(5):
        already = 0
        if path.exists():
            journal = make()
            journal.load()
            already = (await durable(journal, samples.passed(0, samples.device(77))))[0]
            await journal.close()
        reported = run_until_killed(path, chance.randrange(1, 600))
        assert min(seq for seq, _, _ in reported) > already
        journal = make()
        loaded = journal.load()
        assert not loaded.clean
        assert loaded.boot_id == "child"
        rows = await journal.history.facts(already, 10_000)
        assert {seq for seq, _, _ in reported} <= {row["seq"] for row in rows}
        newest: dict[int, int] = {}
        for _, device, turn in reported:
            newest[device] = max(turn, newest.get(device, 0))
        for device, turn in newest.items():
            assert loaded.records[samples.device(device), samples.SOURCE].newest >= samples.WALL + turn
        assert await journal.history.verify_chain() == []
        await journal.close()


def told(output: str) -> dict[str, str]:
    return {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in output.splitlines() if " " in line}


def judge(done: subprocess.CompletedProcess[str], error: str) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    said = told(done.stdout)
    assert error in said["ERROR"], said
    assert said["WRITABLE"] == "False PENDING 1"
    assert said["KEPT"] == "True CHAIN []"
    assert said["CLEAN"] == "True LATE True"


def test_a_file_that_may_not_grow(path: Path) -> None:
    done = subprocess.run(
        [*CHILD, "full", str(path), "limit"], cwd=HERE, capture_output=True, text=True, timeout=120, check=False
    )
    judge(done, "cannot be written")


def namespaces() -> bool:
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        return False
    probe = subprocess.run(
        ["unshare", "-Urm", "mount", "-t", "tmpfs", "-o", "size=1m", "none", "/mnt"],
        capture_output=True,
        check=False,
    )
    return probe.returncode == 0


@pytest.mark.skipif(not namespaces(), reason="no user and mount namespace for a small disk of its own")
def test_a_disk_that_is_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        f"mount -t tmpfs -o size=900k none {disk} && head -c 300000 /dev/zero > {disk}/ballast && "
        f"exec {' '.join(CHILD)} full {disk}/journal.db {disk}/ballast"
    )
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script], cwd=HERE, capture_output=True, text=True, timeout=120, check=False
    )
    judge(done, "full")


async def test_open_twice_and_use_before_and_after(make: Make) -> None:
    journal = make()
    with pytest.raises(JournalError, match="not open"):
        journal.record([samples.passed(1)])
    with pytest.raises(JournalError, match="not open"):
        journal.enforced([(1, samples.enforced())])
    assert (journal.writable, journal.pending, journal.trouble) == (False, 0, "the journal is not open")
    journal.load()
    with pytest.raises(JournalError, match="already"):
        journal.load()
    rival = make()
    with pytest.raises(JournalError, match="another process"):
        rival.load()
    await rival.close()
    await journal.close()
    assert journal.trouble


async def test_a_journal_that_cannot_be_read_gives_its_lock_back(make: Make, path: Path) -> None:
    journal = make()
    journal.load()
    await durable(journal, samples.passed(1))
    await journal.close()
    good = path.read_bytes()
    path.write_bytes(good.replace(b'"standing":6', b'"standing":7'))
    for _ in range(2):
        with pytest.raises(JournalError, match="damaged"):
            make().load()
    path.write_bytes(good)
    journal = make()
    assert len(journal.load().records) == 1
    await journal.close()


async def test_an_unclean_stop_is_durable_before_load_returns(make: Make, path: Path, tmp_path: Path) -> None:
    journal = make()
    journal.load()
    other = tmp_path / "copy"
    other.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(path.with_name(path.name + suffix), other / (path.name + suffix))
    copy = SqliteJournal(
        other / path.name, loop=asyncio.get_running_loop(), clock=ManualClock(), boot_id="next boot"
    )
    loaded = copy.load()
    assert (loaded.clean, loaded.boot_id) == (False, "boot")
    await copy.close()
    await journal.close()


async def test_questions_work_on_a_file_nobody_has_open(make: Make, path: Path) -> None:
    journal = make()
    journal.load()
    await durable(journal, samples.passed(1), samples.refused())
    await journal.close()
    alone = SqliteHistory(path)
    assert len(await alone.verdicts(samples.device(1), 5)) == 1
    assert len(await alone.refusals(5)) == 1
    alone.close()


async def test_the_duration_of_each_commit_is_told(path: Path) -> None:
    told: list[float] = []
    journal = SqliteJournal(
        path, loop=asyncio.get_running_loop(), clock=ManualClock(), boot_id="boot", on_commit=told.append
    )
    journal.load()
    await durable(journal, samples.passed(0, samples.device(1)))
    assert told
    assert all(seconds >= 0 for seconds in told)
    await journal.close()
