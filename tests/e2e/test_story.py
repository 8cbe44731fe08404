"""``make run ONCE=1`` as a person runs it: the whole product, real sockets, real path gate, exit code and lines."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

STORY = [
    "all unknown -",
    *(f"{device} trusted PASS" for device in ("cam-1", "cam-2", "meter-1", "sensor-1", "sensor-2")),
    "cam-1 distrusted FAILED_ATTEST",
    "cam-1 distrusted PASS",
    "cam-1 trusted PASS",
    "sensor-2 lapsed deadline",
]

ROW = re.compile(r"\d+\.\d s +(\S+) +(\S+) +(\S+) +(-|\d+\.\d ms) +(\S.*)")

STORY_SECONDS = 150
"""Several times what the story takes on an idle machine; the suite shares its machine."""

EXIT_INTERRUPTED = 130

SECOND_TELLING = (pytest.mark.long,) if os.geteuid() == 0 else ()
"""One whole telling is in the fast suite: in network namespaces for root, behind the relay for anybody else."""


def unprivileged() -> list[str]:
    """How to start a program that is not root: directly, or in a user namespace that maps nobody."""
    if os.geteuid() != 0:
        return []
    how = ["unshare", "--user", "--"]
    if shutil.which("unshare") is None or subprocess.run([*how, "true"], check=False).returncode != 0:
        pytest.skip("this kernel allows no user namespaces: root cannot run as somebody else here")
    return how


@contextmanager
def running(how: Sequence[str], *options: str) -> Iterator[subprocess.Popen[str]]:
    program = [*how, sys.executable, "-m", "gateway", "run", *options]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def traces() -> dict[str, object]:
    """Everything of the host that a run could leave a trace in, but for open ports."""
    names = Path("/run/netns")
    return {
        "links": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "mounts": sorted(Path("/proc/self/mountinfo").read_text().splitlines()),
        "netns": sorted(path.name for path in names.iterdir()) if names.is_dir() else None,
        "folders": [sorted(os.listdir(path)) for path in ("/mnt", "/media", "/srv") if Path(path).is_dir()],
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    }


def check_story(output: str) -> list[str]:
    rows = [match.groups() for match in map(ROW.fullmatch, output.splitlines()) if match]
    assert [" ".join(row[:3]) for row in rows] == STORY, output
    for device, standing, reason, verified, _ in rows:
        if reason in ("PASS", "FAILED_ATTEST") and (device, standing, reason) != ("cam-1", "distrusted", "PASS"):
            assert verified != "-", output
    return [row[4] for row in rows]


def until(lines: Iterable[str], marker: str) -> list[str]:
    """The lines up to the first one that matches ``marker``."""
    read = []
    for line in lines:
        read.append(line)
        if re.search(marker, line):
            return read
    pytest.fail("".join(read))


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="the site in network namespaces needs root")
def test_as_root_in_namespaces_until_ctrl_c() -> None:
    before = traces()
    with running([]) as run:
        assert run.stdout is not None
        output = "".join(until(run.stdout, "/readyz"))
        said = check_story(output)
        gateway = gateway_process(output)
        assert gateway.exists()
        run.send_signal(signal.SIGINT)
        rest, _ = run.communicate(timeout=STORY_SECONDS)
    assert (run.returncode, "Traceback" in rest) == (0, False), rest
    assert not gateway.exists()
    assert traces() == before
    ways = ["IPv4 TCP", "IPv4 UDP"] + ["IPv6 TCP", "IPv6 UDP"] * Path("/proc/sys/net/ipv6").is_dir()
    for line in (said[1], said[6]):
        assert all(way in line for way in ways), line


def gateway_process(output: str) -> Path:
    match = re.search(r"gateway ready, process (\d+)", output)
    assert match is not None
    return Path("/proc", match[1])


@pytest.mark.parametrize("options", [pytest.param(["--once"], marks=SECOND_TELLING)])
def test_without_root_behind_the_relay(options: list[str]) -> None:
    with running(unprivileged(), *options) as run:
        output, _ = run.communicate(timeout=STORY_SECONDS)
    assert run.returncode == 0, output
    assert "Traceback" not in output
    check_story(output)
    assert not gateway_process(output).exists()


@pytest.mark.parametrize("stage", ["surrogate devices", "cam-1 .* trusted"])
def test_ctrl_c_in_the_story_ends_it_without_a_traceback(stage: str) -> None:
    with running(unprivileged(), "--once") as run:
        assert run.stdout is not None
        said = "".join(until(run.stdout, stage))
        run.send_signal(signal.SIGINT)
        rest, _ = run.communicate(timeout=STORY_SECONDS)
    assert run.returncode == EXIT_INTERRUPTED, said + rest
    assert "Traceback" not in rest
    assert "interrupted" in rest


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="the site in network namespaces needs root")
def test_kill_9_leaves_nothing_behind() -> None:
    before = traces()
    with running([]) as run:
        assert run.stdout is not None
        gateway = gateway_process("".join(until(run.stdout, "cam-1 .* trusted")))
        run.kill()
        run.wait(10)
        while gateway.exists() and ") Z " not in (gateway / "stat").read_text():
            time.sleep(0.01)
    assert traces() == before
