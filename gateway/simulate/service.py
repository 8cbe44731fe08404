"""The gateway as a child process, and its HTTP interface as a client sees it.

What lives here: starting, asking and ending one ``ragate serve``. What must not: importing any of it.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp

from gateway.simulate.child import NO_NAMESPACE, command
from gateway.simulate.sockets import Peer

START_SECONDS = 60.0
"""The longest the gateway may take to be ready; about 1 s on an idle machine, mostly imports."""

STOP_SECONDS = 15.0
"""The longest an orderly stop may take before the child is killed."""

ASK_SECONDS = 10.0
"""The longest one HTTP question may take."""

POLL_SECONDS = 0.02
LOG_LINES = 20


class ServiceError(Exception):
    """The gateway did not start, ended, or does not answer. The text ends with the last lines of its log."""


class Service:
    """One running ``ragate serve``."""

    def __init__(self, process: Process, log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    async def start(cls, config: Path, listen_fd: int, namespace: int = NO_NAMESPACE) -> Service:
        """Start it in the namespace behind that descriptor, with the console's listener handed in."""
        log = config.parent / "ragate.log"
        program = [sys.executable, "-m", "gateway", "serve", "--config", str(config)]
        program += ["--listen-fd", str(listen_fd)]
        handed = [listen_fd] if namespace == NO_NAMESPACE else [listen_fd, namespace]
        with log.open("xb") as output:
            process = await asyncio.create_subprocess_exec(
                *command(program, namespace),
                stdin=DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=handed,
                # Ctrl-C reaches the whole terminal group; the site must end its parts in order.
                start_new_session=True,
            )
        return cls(process, log)

    @property
    def pid(self) -> int:
        """Process id of the gateway."""
        return self._process.pid

    async def ready(self, api: Api) -> None:
        """Wait until it says that it is ready. Raises ``ServiceError``."""
        state = "no answer yet"
        try:
            async with asyncio.timeout(START_SECONDS):
                while self._process.returncode is None:
                    with suppress(ServiceError):
                        is_ready, state = await api.ready()
                        if is_ready:
                            return
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise self.failure(f"the gateway was not ready within {START_SECONDS:.0f} s: {state}") from None
        raise self.failure(f"the gateway ended with exit code {self._process.returncode} instead of starting")

    async def ended(self) -> ServiceError:
        """Wait until it ends by itself, and say how it did."""
        return self.failure(f"the gateway ended with exit code {await self._process.wait()}")

    def failure(self, what: str) -> ServiceError:
        """``what``, with the end of the log."""
        lines = self._log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return ServiceError("\n  ".join([what, *lines]))

    async def stop(self) -> None:
        """End it in order, or kill it when it does not."""
        for end in (self._process.terminate, self._process.kill):
            if self._process.returncode is not None:
                return
            with suppress(ProcessLookupError):
                end()
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._process.wait()


@dataclass(frozen=True)
class Seen:
    """What the gateway says of one device. ``verified``: every required target has read its wish back."""

    standing: str
    event: str
    issued_at: int
    why: str
    deadline: float | None
    verified: bool
    verified_ms: float | None
    targets: str

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Seen:
        """From one device of ``GET /v1/devices``."""
        last = answer["last"] or {"event": "", "issued_at": 0, "why": ""}
        required = [target for target in answer["targets"] if target["required"]]
        # A profile that admits nothing, whatever its name, is the path gate's deny.
        wanted = "deny" if answer["deadline"] is None else answer["profile"]
        return cls(
            standing=answer["standing"],
            event=last["event"],
            issued_at=last["issued_at"],
            why=last["why"],
            deadline=answer["deadline"],
            # Until the journal has committed, a target still verifies what was wanted before.
            verified=bool(required) and all((t["wanted"], t["state"]) == (wanted, "verified") for t in required),
            verified_ms=answer["verified_ms"],
            targets=", ".join(f"{one['target']} {one['state']}" for one in answer["targets"]),
        )

    def __str__(self) -> str:
        what = f"{self.standing} ({self.why})" if self.why else self.standing
        return f"{what}; {self.targets}" if self.targets else what


class Api:
    """The console's GET interface."""

    def __init__(self, console: Peer) -> None:
        self.base = f"http://{console}"
        timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
        self._session = aiohttp.ClientSession(timeout=timeout)

    async def ready(self) -> tuple[bool, str]:
        """Readiness, and the parts that are not ready. Raises ``ServiceError``."""
        answer = await self._get("/readyz")
        missing = [f"{part['part']}: {part['detail']}" for part in answer["parts"] if not part["ready"]]
        return bool(answer["ready"]), "; ".join(missing)

    async def device(self, name: str) -> Seen:
        """One device. Raises ``ServiceError``."""
        return Seen.of(await self._get(f"/v1/devices/{name}"))

    async def _get(self, path: str) -> dict[str, Any]:
        try:
            async with self._session.get(self.base + path) as response:
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            msg = f"no answer from {self.base}{path}: {error!r}"
            raise ServiceError(msg) from error
        if not isinstance(answer, dict) or "title" in answer:
            msg = f"{self.base}{path} answered {answer!r}"
            raise ServiceError(msg)
        return answer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
