"""A gateway as an operator installs it: a folder of files, keys of its own, and the real process.

Works in any network namespace: the caller's thread decides in which one the process and the requests live.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner, Result

from gateway.cli.commands import app
from gateway.sediment.compose import compose_alert, evidence_endpoint
from gateway.sediment.wire import Reason
from gateway.simulate.child import command
from gateway.simulate.keys import Keys

#: Seconds in which something that must happen has happened, on a machine that many share.
PATIENCE = 90.0

#: Seconds that an alert may be dated ahead of the gateway's clock: nobody has to wait for the next second.
AHEAD = 1.5

#: Where the surrogate verifier of these tests sends from, and an address that is nobody's.
VERIFIER, STRANGER = "127.0.0.2", "127.0.0.9"

DEVICES = {
    "cam-1": ("10.77.1.11", "fd77:1::11"),
    "cam-2": ("10.77.1.12", "fd77:1::12"),
}
SERVERS = ("10.77.3.2", "fd77:3::2")
PORT = 8001
DOOR, CONSOLE = ("127.0.0.1", 8000), ("127.0.0.1", 8080)

SERVICES = [
    {"name": f"feed-{protocol}{n}", "address": address, "port": PORT, "protocol": protocol, "path": "routed"}
    for protocol in ("tcp", "udp")
    for n, address in enumerate(SERVERS)
]


@cache
def keys_for(*devices: str) -> Keys:
    """One set of keys for all tests of this process: making an RSA key takes a tenth of a second."""
    return Keys.make(devices)


def until(what: Callable[[], object], says: Callable[[], object] = lambda: "") -> None:
    """Wait until ``what`` holds; ``says`` tells what was seen instead."""
    end = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > end:
            raise AssertionError(f"not within {PATIENCE:g} s: {says()}")
        time.sleep(0.005)


class Answer:
    """Status and body of one HTTP answer."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.text = body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def get(console: tuple[str, int], path: str) -> Answer:
    """What a console answers."""
    connection = http.client.HTTPConnection(*console, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return Answer(response.status, response.read())
    finally:
        connection.close()


class Running:
    """One ``ragate serve``."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, console: tuple[str, int]) -> None:
        self.process = process
        self.console = console
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def says(self, text: str) -> None:
        """Wait until the log has a line with this: lines appear a moment after what they tell."""
        until(lambda: text in self.log, lambda: self.log)

    def get(self, path: str) -> Answer:
        return get(self.console, path)

    def ready(self) -> bool:
        """Whether every part is ready. A process that has ended fails the test with its log."""
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log}"
        try:
            return self.get("/readyz").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def answers(self, name: str) -> bool:
        """Whether it answers for a device, ready or not."""
        try:
            return self.get(f"/v1/devices/{name}").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def device(self, name: str) -> dict[str, Any]:
        found = self.get(f"/v1/devices/{name}")
        assert found.status == 200, found.text
        return dict(found.json)

    def standing(self, name: str) -> str:
        return str(self.device(name)["standing"])

    def wait(self, name: str, standing: str, *, verified: bool = True) -> dict[str, Any]:
        """Wait until a device stands so, enforced unless told otherwise; returns what is said of it."""
        seen: dict[str, Any] = {}

        def there() -> bool:
            seen.update(self.device(name))
            # until the journal has committed, a target still verifies what was wanted before
            there = [(target["wanted"], target["state"]) for target in seen["targets"]]
            return seen["standing"] == standing and (not verified or there == [(seen["profile"], "verified")])

        until(there, lambda: f"{name} {standing}, but {json.dumps(seen, indent=1)}\n{self.log}")
        return seen

    def metric(self, name: str, **labels: str) -> float:
        """One sample of a scrape."""
        ordered = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
        wanted = f"{name}{{{ordered}}}" if ordered else name
        for line in self.get("/metrics").text.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample == wanted:
                return float(value)
        raise AssertionError(f"no sample {wanted}")

    def rejections(self, reason: str, source: str = "verifier") -> float:
        return self.metric("ragate_rejections_total", source=source, reason=reason)

    def kill(self) -> None:
        """As a power switch would: SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def stop(self) -> int:
        """As systemd would: SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


class Installed:
    """The files of one gateway, and the verifier that it believes."""

    def __init__(
        self,
        folder: Path,
        *,
        devices: Mapping[str, Sequence[str]] = DEVICES,
        services: Sequence[Mapping[str, Any]] = SERVICES,
        target: Mapping[str, Any] | None = None,
        source: Mapping[str, Any] | None = None,
        sediment: Mapping[str, Any] | None = None,
        journal: str = "var/journal.db",
        door: tuple[str, int] = DOOR,
        console: tuple[str, int] = CONSOLE,
    ) -> None:
        self.folder = folder
        self.config = folder / "ragate.yaml"
        self.journal = folder / journal
        self.socket = folder / "var" / "operator.sock"
        self.door = door
        self.console = console
        self.keys = keys_for(*devices)
        self.addresses = {name: tuple(addresses) for name, addresses in devices.items()}
        folder.mkdir(parents=True, exist_ok=True)
        self.keys.write(folder)
        self.write("devices.yaml", {"hmac_keys": "devices.keys", "devices": [*map(self._device, devices)]})
        self.write("book.yaml", {"services": list(services), "node_default": "admitted", "suspect": "deny"})
        self.settings: dict[str, Any] = {
            "journal": journal,
            "console": {"listen": written(console)},
            "operator": {"socket": "var/operator.sock"},
            "doors": {"sediment": {"listen": written(door), "peers": [], **(sediment or {})}},
            "sources": [
                {
                    "name": "verifier",
                    "format": "sediment",
                    "public_key": "verifier.pem",
                    "verifier_id": "RAP_Server",
                    "peers": [VERIFIER],
                    **(source or {}),
                }
            ],
            "targets": [{"name": "gateway", "path_gate": "nft", **(target or {})}],
            "inventory": "devices.yaml",
            "book": "book.yaml",
        }
        self.write("ragate.yaml", self.settings)
        self._starts = 0

    def _device(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "source": "verifier",
            "addresses": list(self.addresses[name]),
            "anchor": "upstream",
            "labels": {"class": "camera"},
        }

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        (self.folder / name).write_text(yaml.safe_dump(dict(content), sort_keys=False))

    def program(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "gateway", *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command of the command line, on this configuration, as a process of its own."""
        return subprocess.run(
            self.program(*arguments, "--config", str(self.config)),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env=clean_environment(),
        )

    def get(self, path: str) -> Answer:
        """What the console answers, whichever process of this gateway has it."""
        return get(self.console, path)

    def ask(self, *arguments: str) -> Result:
        """One command of the command line in this process: quicker, and the service is another one all the same."""
        return CliRunner().invoke(app, [*arguments, "--config", str(self.config)], env={"NO_COLOR": "1"})

    @contextmanager
    def running(self, *, ready: bool = True) -> Iterator[Running]:
        """``ragate serve``, ready; killed at the end if it still runs, and whenever this process dies."""
        self._starts += 1
        log = self.folder / f"ragate-{self._starts}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command(self.program("serve", "--config", str(self.config))),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=clean_environment(),
            )
        service = Running(process, log, self.console)
        try:
            if ready:
                until(service.ready, lambda: f"ready: {service.log}")
            yield service
        finally:
            if process.poll() is None:
                service.kill()

    # --- the verifier's side

    def alert(
        self,
        device: str,
        reason: Reason,
        *,
        issued_at: float | None = None,
        nonce: bytes = b"",
        endpoint: str = "192.0.2.7",
        hmac_key: bytes | None = None,
        wire_id: bytes = b"",
        without_hmac: bool = False,
    ) -> bytes:
        """An ALERT of the verifier about a device, issued now unless told otherwise."""
        return compose_alert(
            device=wire_id or device.encode(),
            verifier_id=b"RAP_Server",
            reason=reason,
            endpoint=evidence_endpoint(endpoint.encode(), 35_940),
            timestamp=int(time.time() if issued_at is None else issued_at),
            nonce=nonce or secrets.token_bytes(32),
            signing_key=self.keys.signing,
            hmac_key=None if without_hmac else hmac_key or self.keys.hmac[device],
        )

    def send(self, data: bytes, peer: str = VERIFIER) -> None:
        """As SEDIMENT's verifier sends: a connection of its own, one write, closed at once."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
            connection.settimeout(PATIENCE)
            connection.bind((peer, 0))
            connection.connect(self.door)
            connection.sendall(data)

    def tell(self, device: str, reason: Reason, *, issued_at: float | None = None) -> bytes:
        """Send an alert made now; returns it, as an eavesdropper would have it."""
        data = self.alert(device, reason, issued_at=issued_at)
        self.send(data)
        return data

    def admit(self, service: Running, *devices: str) -> None:
        """One pass each; returns when all are admitted, read back."""
        for device in devices:
            self.tell(device, Reason.PASS)
        for device in devices:
            service.wait(device, "trusted")

    def recover(self, service: Running, device: str) -> None:
        """The two passes that the recovery rule asks for, each issued later than what came before."""

        def newest() -> int:
            return int(service.device(device)["records"]["verifier"]["newest"])

        def attest(issued: int) -> None:
            until(lambda: time.time() > issued - AHEAD)
            self.tell(device, Reason.PASS, issued_at=issued)
            until(lambda: newest() == issued)

        for _ in range(2):
            attest(max(int(time.time()), newest() + 1))
        service.wait(device, "trusted")


def clean_environment() -> dict[str, str]:
    """Without settings of the person who runs the tests, and without the host's authorities, whom nobody asks:
    reading them all takes each process that is started a tenth of a second."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAGATE_")}
    return kept | {
        "NO_COLOR": "1",
        "PYTHONUNBUFFERED": "1",
        "SSL_CERT_FILE": os.devnull,
        "SSL_CERT_DIR": os.devnull,
    }


def written(place: tuple[str, int]) -> str:
    """``HOST:PORT``, as the configuration writes it."""
    return f"{place[0]}:{place[1]}"
