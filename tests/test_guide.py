"""The guide, followed to the letter: every file it shows is written, every command run, every output compared.

Ports, the folder and what differs from run to run (times, milliseconds) are put into one form on both sides.
"""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.installed import PATIENCE, clean_environment
from tests.ports import free_port

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "guide.md"

BLOCK = re.compile(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Ports that the guide writes; each test run has others.
PORTS = ("18001", "18002", "18010", "18080", "18100", "18501", "18502")
SHELL = """\
export PATH="$PWD/.venv/bin:$PATH" RAGATE_PROFILES="$PWD/policies/profiles"
mkdir /tmp/site && cd /tmp/site
"""
SERVE, STOP = "ragate serve > ragate.log 2>&1 &", "kill %ragate"
#: Seconds that one command may take on a machine that many share.
LONGEST = 240.0

VOLATILE = (
    (re.compile(r"\b\d+m \d\ds\b"), "TIME"),
    (re.compile(r"(?<=TIME)( +)\d+\.\d\b"), r"\1MS"),
    (re.compile(r"(?<= - )( +)\d+\.\d\b"), r"\1MS"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "DIGEST"),
    (re.compile(r"\b20\d\d-\d\d-\d\dT\S+"), "DATE"),
    (re.compile(r"(?<=taken in )\d+\.\d(?= s)"), "SECONDS"),
    (re.compile(r" {2,}"), "  "),
)


class Blocks:
    """What is in the guide's fenced blocks, in order."""

    def __init__(self) -> None:
        self.found = [match.groups() for match in BLOCK.finditer(GUIDE.read_text(encoding="utf-8"))]

    def commands(self) -> Iterator[tuple[str, str]]:
        for kind, _, text in self.found:
            if kind == "console":
                yield from commands(text)


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Each command of a block with the output that is shown for it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


class Reader:
    """Follows the guide in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {port: str(free_port()) for port in PORTS}
        self.service: subprocess.Popen[bytes] | None = None
        self.environment = clean_environment() | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAGATE_PROFILES": str(ROOT / "policies" / "profiles"),
        }

    def swapped(self, text: str) -> str:
        """With this run's ports."""
        return re.sub("|".join(PORTS), lambda match: self.ports[match[0]], text)

    def plain(self, text: str) -> str:
        """With the guide's ports, and without what differs from run to run."""
        for written, own in self.ports.items():
            text = text.replace(own, written)
        text = text.replace(f"{self.folder}/", "")
        for pattern, instead in VOLATILE:
            text = pattern.sub(instead, text)
        return "\n".join(line.rstrip() for line in text.strip().splitlines())

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        assert path.parent.is_dir(), f"{name}: no command made its folder"
        path.write_text(self.swapped(text), encoding="utf-8")

    def follow(self, command: str, output: str) -> None:
        if command == SERVE:
            self._serve()
        elif command == STOP:
            self.stop()
        else:
            self._run(self.swapped(command), self.plain(output))

    def _run(self, command: str, wanted: str) -> None:
        """What asks the service is asked again until it has taken in what happened before."""
        end = time.monotonic() + PATIENCE
        while True:
            done = subprocess.run(
                ["sh", "-c", command],
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=LONGEST,
                check=False,
            )
            told = self.plain(done.stdout)
            if told == wanted or not command.startswith("ragate") or time.monotonic() > end:
                break
            time.sleep(0.2)
        assert told == wanted, f"$ {command}\n{done.stdout}"

    def _serve(self) -> None:
        self.stop()
        with (self.folder / "ragate.log").open("wb") as log:
            self.service = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve"],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + PATIENCE
        while not self._ready():
            assert time.monotonic() < end, (self.folder / "ragate.log").read_text()
            time.sleep(0.05)

    def _ready(self) -> bool:
        assert self.service is not None
        assert self.service.poll() is None, (self.folder / "ragate.log").read_text()
        connection = http.client.HTTPConnection("127.0.0.1", int(self.ports["18080"]), timeout=PATIENCE)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        service, self.service = self.service, None
        if service is not None:
            service.terminate()
            assert service.wait(PATIENCE) == 0, (self.folder / "ragate.log").read_text()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    found = Reader(tmp_path)
    yield found
    if found.service is not None:
        found.service.kill()
        found.service.wait(PATIENCE)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_guide_leads_where_it_says(reader: Reader) -> None:
    for kind, title, text in Blocks().found:
        if title:
            reader.write(title, text)
        elif kind == "console":
            for command, output in commands(text):
                reader.follow(command, output)
    assert reader.service is None, "the guide ends what it began"


def test_nothing_in_the_guide_is_left_out() -> None:
    """Each block is a file with a name, commands, or the two lines that set the reader's shell up."""
    shells = [text for kind, title, text in Blocks().found if kind != "console" and not title]
    assert "".join(shells) == SHELL
    listed = [command for command, _ in Blocks().commands()]
    assert listed.count(SERVE) == listed.count(STOP) == 1
    words = {" ".join(command.split()[:2]) for command in listed}
    assert {"ragate check", "ragate plan", "ragate what-if", "ragate explain", "ragate devices"} <= words


def test_the_guide_is_linked() -> None:
    assert "(docs/guide.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_volatile_parts_are_one_form(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    one = "cam-1   trusted   admitted  14m 55s  1.6          gateway:verified\n"
    other = "cam-1   trusted   admitted  4m 05s   1206.7       gateway:verified  \n"
    assert reader.plain(one) == reader.plain(other) == "cam-1  trusted  admitted  TIME  MS  gateway:verified"
    cut: Mapping[str, str] = {"one": "quarantine  -     1.5     gateway", "other": "quarantine  -  880.5  gateway"}
    assert reader.plain(cut["one"]) == reader.plain(cut["other"])
