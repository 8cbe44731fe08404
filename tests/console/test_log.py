"""The log: which facts are told, and that nobody can write lines of their own into it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from gateway.console.log import CLAIMED_MOST, LINES_PER_SECOND, Log, PatientFile
from gateway.control.ports import Notice
from gateway.core.errors import Refusal
from gateway.core.model import Rejected, SourceName
from tests.fakes.clock import ManualClock

SOURCE = SourceName("verifier")


def refused(device: str = "") -> Rejected:
    return Rejected(SOURCE, Refusal.HMAC, "the digest is not this device's", "192.0.2.7", 1.0, device)


def test_a_refusal_names_the_device_that_was_claimed() -> None:
    log = Log(ManualClock())
    with capture_logs() as lines:
        log.observe(refused("cam-1"))
        log.observe(refused())
    assert lines[0] == {
        "event": "refused",
        "log_level": "warning",
        "refusal": "hmac",
        "source": "verifier",
        "peer": "192.0.2.7",
        "detail": "the digest is not this device's",
        "claimed": "cam-1",
    }
    assert "claimed" not in lines[1]


@pytest.mark.parametrize("device", ["\x1b[2Jcam-1", "cam-1\n{}", "\u202ecam-1", "x" * 10_000, "\x00" * 10_000])
def test_what_is_claimed_cannot_move_a_cursor_or_fill_a_disk(device: str) -> None:
    with capture_logs() as lines:
        Log(ManualClock()).observe(refused(device))
    claimed = lines[0]["claimed"]
    assert claimed.isprintable()
    assert len(claimed) <= 4 * CLAIMED_MOST
    line = structlog.processors.JSONRenderer()(None, "warning", dict(lines[0]))
    assert isinstance(line, str)
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line)["claimed"] == claimed


def test_a_storm_is_counted_and_not_written() -> None:
    log = Log(ManualClock())
    fact = refused("cam-1")
    with capture_logs() as lines:
        for _ in range(LINES_PER_SECOND + 5):
            log.observe(fact)
        log.observe(Notice("backlog", "forward", "away", fact.at + 1.0))
    assert len(lines) == LINES_PER_SECOND + 2
    assert [line["event"] for line in lines[-2:]] == ["lines left out", "notice"]
    assert lines[-2]["count"] == 5


def test_a_log_that_cannot_be_written_ends_nothing() -> None:
    with open("/dev/full", "w", buffering=1) as full:
        patient = PatientFile(full)
        patient.write("a line\n")
        patient.flush()
        assert patient.lost
        with contextlib.suppress(OSError):
            full.close()


def test_a_log_that_can_be_written_is(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        patient = PatientFile(file)
        assert patient.write("a line\n") == 7
        patient.flush()
    assert (tmp_path / "log").read_text() == "a line\n"
    assert not patient.lost
