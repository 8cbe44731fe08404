"""The soaked site: files for some thousands of devices, the real service as a process, and the kernel's own answer.

Everything is in the network and mount namespace of the calling process. What lives here: making it, killing it,
starting it, asking it. What must not: what is sent to it, or what it should answer.
"""

from __future__ import annotations

import asyncio
import errno
import http.client
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import yaml

from gateway.core.model import Address
from gateway.enforce.nft.elements import DeviceSets
from gateway.enforce.nft.netlink import NetlinkError, NetlinkSocket
from gateway.journal.history import SqliteHistory
from gateway.simulate.child import command
from gateway.simulate.keys import Keys
from tests.netns import run

DOOR, CONSOLE = ("127.0.0.1", 8000), ("127.0.0.1", 8080)
VERIFIER, NEIGHBOUR, STRANGER = "127.0.0.2", "127.0.0.3", "127.0.0.9"
MAX_AGE = 130.0
"""Seconds: ten more than the clock window, so that a pass of any age in it still admits for a while."""
LEASE = 16.0
"""Seconds: a restart takes two, and an admission half of whose lease is over is renewed."""
FRAME_SECONDS = 2.0
READY_SECONDS = 30.0
STOP_SECONDS = 20.0
ASK_SECONDS = 5.0
PROFILES = ("admitted", "probation")


class SoakError(Exception):
    """The soak cannot go on; the text says why."""


def names(count: int) -> list[str]:
    """Device ids."""
    return [f"cam-{number:05d}" for number in range(count)]


def addresses(number: int) -> tuple[str, ...]:
    """IPv4; every fourth device IPv6, every eighth of these a /64; every tenth has both."""
    four = str(IPv4Address(int(IPv4Address("10.128.0.0")) + number))
    six = str(IPv6Address((0xFD88 << 112) + (number << 64) + 1))
    if number % 32 == 3:
        return (f"{IPv6Address((0xFD89 << 112) + (number << 64))}/64",)
    if number % 4 == 3:
        return (six,)
    return (four, six) if number % 10 == 0 else (four,)


class Files:
    """Keys, inventory, book and settings of one site."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.devices = names(count)
        self.addresses = {
            name: tuple(map(Address.parse, addresses(number))) for number, name in enumerate(self.devices)
        }
        self.keys = Keys.make(self.devices)
        self.keys.write(folder)
        self.journal = folder / "var" / "journal.db"
        self._write("ragate.yaml", _SETTINGS)
        self._write("book.yaml", _BOOK)
        listed = [
            {"id": name, "source": "verifier", "addresses": list(map(str, found)), "anchor": "upstream"}
            for name, found in self.addresses.items()
        ]
        self._write("devices.yaml", {"hmac_keys": "devices.keys", "devices": listed})

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        (self.folder / name).write_text(yaml.dump(dict(content), Dumper=yaml.CSafeDumper, sort_keys=False))


_BOOK = {
    "services": [
        {"name": "feed4", "address": "10.77.3.2", "port": 8001, "protocol": "tcp", "path": "routed"},
        {"name": "feed6", "address": "fd77:3::2", "port": 8001, "protocol": "tcp", "path": "routed"},
    ],
    "node_default": "admitted",
    "suspect": "deny",
}
_SETTINGS = {
    "journal": "var/journal.db",
    "console": {"listen": "{}:{}".format(*CONSOLE)},
    "operator": {"socket": "var/operator.sock"},
    "doors": {
        "sediment": {
            "listen": "{}:{}".format(*DOOR),
            "peers": [f"{NEIGHBOUR}/32"],
            "limits": {"frame_seconds": FRAME_SECONDS},
        }
    },
    "sources": [
        {
            "name": "verifier",
            "format": "sediment",
            "public_key": "verifier.pem",
            "verifier_id": "RAP_Server",
            "peers": [VERIFIER],
            "max_age": int(MAX_AGE),
        }
    ],
    "targets": [{"name": "gateway", "path_gate": "nft", "lease": int(LEASE)}],
    "inventory": "devices.yaml",
    "book": "book.yaml",
}


class Service:
    """``ragate serve``, started again and again on the same files. ``healthy_since`` is the caller's: 0 while
    nothing should be sent to it."""

    def __init__(self, files: Files, log: Path) -> None:
        self.files = files
        self.log = log
        self.starts = 0
        self.healthy_since = 0.0
        self.slowest_start = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def died(self) -> int | None:
        """The exit code of a process that ended without being told to."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the process; does not wait."""
        self.starts += 1
        program = [sys.executable, "-m", "gateway", "serve", "--config", str(self.files.folder / "ragate.yaml")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command(program), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_ready(self) -> None:
        """Wait until every part is ready. Raises ``SoakError``."""
        began = time.time()
        while time.time() - began < READY_SECONDS:
            if self.died is not None:
                raise SoakError(f"the service ended with {self.died} while starting:\n{self.tail()}")
            try:
                if self.ask("/readyz")[0] == http.client.OK:
                    self.slowest_start = max(self.slowest_start, time.time() - began)
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.02)
        raise SoakError(f"the service was not ready within {READY_SECONDS:g} s:\n{self.tail()}")

    def end(self, number: int) -> int:
        """Send a signal and wait; returns the exit code, after SIGKILL when it does not end in time."""
        assert self._process is not None
        self.healthy_since = 0.0
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            raise SoakError(f"the service did not end within {STOP_SECONDS:g} s of signal {number}") from None

    def ask(self, path: str) -> tuple[int, bytes]:
        """One GET at the console. Raises ``OSError`` or ``HTTPException``."""
        connection = http.client.HTTPConnection(*CONSOLE, timeout=ASK_SECONDS)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def listed(self) -> dict[str, str]:
        """Standing by device, over all pages. Raises likewise."""
        found: dict[str, str] = {}
        after: str | None = ""
        while after is not None:
            status, body = self.ask(f"/v1/devices?limit=1000&after={after}" if after else "/v1/devices?limit=1000")
            page = json.loads(body)
            if status != http.client.OK:
                raise SoakError(f"/v1/devices answered {status}: {body[:200]!r}")
            found |= {one["id"]: one["standing"] for one in page["devices"]}
            after = page["next"]
        return found

    def resident(self) -> int:
        """Resident bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Open file descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def tail(self) -> str:
        """The last lines of the log."""
        return self.log.read_text(errors="replace")[-3_000:]


class Kernel:
    """What the kernel has: one-key reads by netlink, and a dump by the nft program, which has no code of ours."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket()
        self._sets = DeviceSets(PROFILES)

    def admitted(self, of: Sequence[Address]) -> list[bool]:
        """Whether each address stands in a profile's set, and in no tombstone's, now."""
        try:
            found = self._sets.read(self._netlink, of)
        except NetlinkError as error:
            if error.code != errno.ENOENT:
                raise
            return [False] * len(of)  # there is no table: nobody is in any set
        stands = map(self._sets.stands, found)
        return [bool(one.profile) and not one.tombstone for one in stands]

    @staticmethod
    def dumped() -> set[str]:
        """Every address in a profile's set as ``nft`` prints it; none when there is no table."""
        found: set[str] = set()
        for profile in PROFILES:
            for suffix in ("4", "6", "6n"):
                try:
                    text = run("nft", "-j", "list", "set", "inet", "ragate", f"{profile}{suffix}")
                except OSError as error:
                    if "No such file" in str(error):
                        continue
                    raise
                for part in json.loads(text)["nftables"]:
                    for one in part.get("set", {}).get("elem", ()):
                        found.add(str(one["elem"]["val"] if isinstance(one, dict) else one))
        return found


def flush() -> None:
    """``nft flush ruleset``, in here."""
    run("nft", "flush", "ruleset")


def verify_journal(journal: Path, aside: Path) -> list[str]:
    """Check the digest chain of a copy: the next start shall find a killed service's file as it was left."""
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for file in journal.parent.glob(f"{journal.name}*"):
        if file.is_file() and not file.name.endswith("-shm"):
            shutil.copy(file, aside / file.name)
    history = SqliteHistory(aside / journal.name)
    try:
        return list(asyncio.run(history.verify_chain()))
    finally:
        history.close()
        shutil.rmtree(aside)


def troubles(journal: Path) -> list[tuple[float, str, str]]:
    """Time, kind and text of the drift and errors that a stopped service's journal holds, none left out."""
    database = sqlite3.connect(journal)
    try:
        return database.execute(
            "SELECT at, kind, body FROM facts WHERE kind IN ('drift', 'backend-error') ORDER BY seq"
        ).fetchall()
    finally:
        database.close()
