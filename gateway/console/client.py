"""The operator's side: asking the service over its Unix socket, blocking, with the standard library only.

What lives here: one request, one answer. What must not: printing, or exit codes.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from gateway.core.errors import RagateError

#: Seconds for connecting and for each read; the service itself gives up on a request after 30.
ANSWER_SECONDS = 35.0

#: Bytes of one answer: 5,000 devices with many addresses and targets stay well below.
ANSWER_MOST = 64 * 1024 * 1024

#: Devices asked for at once: a second's wait for the first lines of a long list is too long.
PAGE = 1_000


class NotRunning(RagateError):
    """Nobody answers at the socket, or we may not use it. The text says what to do."""


class Refused(RagateError):
    """The service said no; ``status`` is its HTTP status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Answer(NamedTuple):
    """Status and decoded JSON."""

    status: int
    body: Any


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_SECONDS)
        self.sock.connect(os.fspath(self._path))


class Client:
    """Asks one service. Raises ``NotRunning`` or ``Refused``, nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def devices(self, standing: str | None = None) -> Iterator[dict[str, Any]]:
        """Every device, in inventory order, page by page."""
        query: dict[str, str] = {"limit": str(PAGE)}
        if standing is not None:
            query["standing"] = standing
        while True:
            body = self._checked("GET", f"/v1/devices?{urlencode(query)}")
            yield from body["devices"]
            if body["next"] is None:
                return
            query["after"] = body["next"]

    def device(self, device: str) -> dict[str, Any]:
        """One device in full."""
        return self._checked("GET", f"/v1/devices/{quote(device, safe='')}")

    def explanation(self, device: str) -> dict[str, Any]:
        """Why one device gets what it gets."""
        return self._checked("GET", f"/v1/devices/{quote(device, safe='')}/explanation")

    def proof(self, device: str) -> dict[str, Any]:
        """What every target shows of one device at this moment."""
        return self._checked("GET", f"/v1/devices/{quote(device, safe='')}/proof")

    def override(self, device: str, profile: str, seconds: float, reason: str) -> dict[str, Any]:
        """Give a device a profile for so long."""
        path = f"/v1/devices/{quote(device, safe='')}/override"
        return self._checked("POST", path, {"profile": profile, "seconds": seconds, "reason": reason})

    def attest(self, device: str, reason: str) -> dict[str, Any]:
        """Have a device attest again."""
        return self._checked("POST", f"/v1/devices/{quote(device, safe='')}/attest", {"reason": reason})

    def claims(self) -> list[dict[str, Any]]:
        """Where devices are seen and not bound."""
        found: list[dict[str, Any]] = self._checked("GET", "/v1/claims")["claims"]
        return found

    def act(self, device: str, verb: str, reason: str) -> dict[str, Any]:
        """``hold``, ``release`` or ``end-override`` a device."""
        path = f"/v1/devices/{quote(device, safe='')}/{verb}"
        return self._checked("POST", path, {"reason": reason})

    def reload(self, reason: str) -> int:
        """Have the book read again; returns the attempt's number, by which ``book`` tells what became of it."""
        answer = self._ask("POST", "/v1/book/reload", {"reason": reason})
        found = answer.body if isinstance(answer.body, dict) else {}
        if answer.status != http.client.ACCEPTED:
            raise Refused(answer.status, str(found.get("detail") or f"HTTP status {answer.status}"))
        return int(found["number"])

    def book(self) -> dict[str, Any]:
        """The running book, and the newest attempt to replace it."""
        return self._checked("GET", "/v1/book")

    def ready(self) -> dict[str, Any]:
        """Readiness, part by part; not being ready is an answer, too."""
        answer = self._ask("GET", "/readyz")
        if not isinstance(answer.body, dict) or "parts" not in answer.body:
            raise Refused(answer.status, "the answer to /readyz is not one of ours")
        return answer.body

    def _checked(self, method: str, path: str, body: Mapping[str, str | float] | None = None) -> dict[str, Any]:
        answer = self._ask(method, path, body)
        found = answer.body if isinstance(answer.body, dict) else {}
        if answer.status != http.client.OK or not found:
            raise Refused(answer.status, str(found.get("detail") or f"HTTP status {answer.status}"))
        return found

    def _ask(self, method: str, path: str, body: Mapping[str, str | float] | None = None) -> Answer:
        connection = _UnixConnection(self._path)
        try:
            headers = {"Accept": "application/json", "Connection": "close"}
            data = None
            if body is not None:
                data = json.dumps(dict(body)).encode()
                headers["Content-Type"] = "application/json"
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            raw = response.read(ANSWER_MOST)
            return Answer(response.status, json.loads(raw))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(
                f"no service answers at {self._path}; start it with: ragate serve --config FILE"
            ) from error
        except PermissionError as error:
            msg = f"you may not use {self._path}; become a member of its group (operator.group) or use sudo"
            raise NotRunning(msg) from error
        except TimeoutError as error:
            raise NotRunning(f"the service at {self._path} did not answer within {ANSWER_SECONDS:g} s") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotRunning(f"what answers at {self._path} is not this service: {error}") from error
        finally:
            connection.close()
