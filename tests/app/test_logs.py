"""The log's thread: lines in order, and a reader that has stopped reading holds nobody up."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import subprocess
import sys
import threading
from typing import Any

from gateway.app.logs import MOST_WAITING, LogThread

WRITTEN_SECONDS = 60.0
"""What a busy machine may take for what takes a millisecond."""


def test_lines_come_in_order_as_json() -> None:
    file = io.StringIO()
    log = LogThread(file)
    log.hand_over("info", {"event": "standing", "device": "cam-1", "why": "a\nb"})
    log.hand_over("error", {"event": "not enforced"})
    assert log.flush(WRITTEN_SECONDS)
    first, second = (json.loads(line) for line in file.getvalue().splitlines())
    assert first.pop("timestamp").endswith("Z")
    assert first == {"event": "standing", "device": "cam-1", "why": "a\nb", "level": "info"}
    assert (second["event"], second["level"]) == ("not enforced", "error")


def test_who_stops_reading_holds_nobody_up_and_is_told_what_was_left_out() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4_096)
    with os.fdopen(writer, "w", buffering=1) as file, os.fdopen(reader, "rb") as end:
        log = LogThread(file)
        many = 2 * MOST_WAITING
        for number in range(many):
            log.hand_over("info", {"event": "x" * 100, "number": number})
        assert log.lost
        assert not log.flush(0.0)
        lines: list[dict[str, Any]] = []

        def read() -> None:
            for line in end:
                lines.append(json.loads(line))
                if lines[-1]["event"] == "last":
                    return

        other = threading.Thread(target=read)
        other.start()
        assert log.flush(WRITTEN_SECONDS)
        log.hand_over("info", {"event": "last"})
        other.join(WRITTEN_SECONDS)
    kept = [line["number"] for line in lines if "number" in line]
    assert kept == sorted(kept)
    assert len(kept) == many - log.lost
    assert sum(line["count"] for line in lines if line["event"] == "lines left out") == log.lost


def test_a_file_that_cannot_be_written_ends_nothing() -> None:
    ended = False
    with contextlib.suppress(OSError), open("/dev/full", "w", buffering=1) as full:
        log = LogThread(full)
        log.hand_over("info", {"event": "nobody reads this"})
        assert log.flush(WRITTEN_SECONDS)
        log.hand_over("info", {"event": "nor this"})
        assert log.flush(WRITTEN_SECONDS)
        ended = True
    assert ended


def test_the_last_lines_of_a_process_are_written() -> None:
    script = (
        "import structlog; from gateway.app.logs import configure_logging; configure_logging();"
        "log = structlog.get_logger('ragate'); [log.info('line', number=n) for n in range(100)]"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert [json.loads(line)["number"] for line in done.stderr.splitlines()] == list(range(100))
