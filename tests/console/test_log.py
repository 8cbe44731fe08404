"""The log: which facts are told, and that nobody can write lines of their own into it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from gateway.console.log import CLAIMED_MOST, LINES_PER_SECOND, Log, PatientFile
from gateway.control.ports import Notice, Step
from gateway.core.errors import Refusal
from gateway.core.model import (
    Applied,
    DeviceId,
    Effect,
    Enforced,
    Event,
    EventKind,
    Instant,
    Record,
    Rejected,
    SourceName,
    Standing,
    Transition,
)
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


def _step(effect: Effect) -> Step:
    event = Event(EventKind.FAILED, 1.0)
    records = Record(Standing.TRUSTED), Record(Standing.DISTRUSTED)
    return (
        Transition(DeviceId("cam-1"), SOURCE, event, *records, effect, "a signed failure"),
        None,
        Instant(1.0, 1.0),
    )


def test_standings_that_changed_are_told_and_what_extends_a_deadline_is_not() -> None:
    with capture_logs() as lines:
        Log(ManualClock()).stepped([_step(effect) for effect in (Effect.EXTENDED, Effect.LOWERED, Effect.NONE)])
    assert lines == [
        {
            "event": "standing",
            "log_level": "info",
            "device": "cam-1",
            "source": "verifier",
            "on": "failed",
            "before": "trusted",
            "after": "distrusted",
            "effect": "lowered",
            "why": "a signed failure",
        }
    ]


def test_what_could_not_be_enforced_is_told_and_what_was_is_not() -> None:
    done = Enforced(DeviceId("cam-1"), "gateway", "nft", "admitted", Applied.VERIFIED, "", 1.0, 1.1, 1.2)
    failed = done._replace(state=Applied.FAILED, detail="no such table")
    with capture_logs() as lines:
        Log(ManualClock()).enforced([(1, done), (2, failed), (3, done)])
    assert lines == [
        {
            "event": "not enforced",
            "log_level": "error",
            "device": "cam-1",
            "target": "gateway",
            "backend": "nft",
            "detail": "no such table",
        }
    ]


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
