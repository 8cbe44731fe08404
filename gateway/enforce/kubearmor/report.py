"""What an operator sees of the KubeArmor hand: a small fold over what happened.

What must not live here: acting on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

from gateway.control.ports import Clock


class Stage(Enum):
    """How far something got. ACCEPTED is what the daemon says, VERIFIED what was read back."""

    ABSENT = "absent"
    CONNECTING = "connecting"
    IDLE = "idle"  # nothing to do
    WAITING = "waiting"  # to be sent
    WITHHELD = "withheld"  # not sent, on purpose
    DISABLED = "disabled"  # by KubeArmor's own configuration
    ACCEPTED = "accepted"
    VERIFIED = "verified"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"


NO_DOCUMENTS = "no profile has documents for this host"

#: The whole is the first of these that one of its parts has.
_WORST_FIRST = (Stage.FAILED, Stage.WAITING, Stage.ACCEPTED, Stage.VERIFIED, Stage.WITHHELD, Stage.DISABLED)


class Part(Enum):
    """What is kept in place: our own two policies, and the documents of profiles."""

    HOST = "host"
    NETWORK = "network"
    DOCUMENTS = "documents"


#: Characters by which a failure is known to be the one that was told: generations and times come later in it.
_SAME = 24

_TITLES = {Part.HOST: "host policy", Part.NETWORK: "network policy", Part.DOCUMENTS: "documents of profiles"}


class Report:
    """The state of the connection and of its parts, as plain text. ``failed`` is told, once, of each part that
    turns out to have failed."""

    def __init__(self, clock: Clock, failed: Callable[[str], None]) -> None:
        self._clock = clock
        self._failed = failed
        self._stage: Stage | None = Stage.CONNECTING  # None: connected, the parts tell
        self._detail = "not tried yet"
        self._parts = dict.fromkeys(Part, (Stage.WAITING, "not sent yet"))
        self._parts[Part.DOCUMENTS] = (Stage.IDLE, NO_DOCUMENTS)
        self._told: dict[Part, str] = {}
        self._generation = 0
        self._addresses = 0
        self._restarts = 0
        self._repairs = 0
        self._since = clock.now().wall

    def _changed(self, before: Stage) -> None:
        if self._whole() is not before:
            self._since = self._clock.now().wall

    def stage(self, stage: Stage, detail: str) -> None:
        """The connection is not up; what was accepted before is no longer known to stand."""
        before = self._whole()
        self._stage, self._detail = stage, detail
        self._parts |= {
            part: (Stage.WAITING, "waiting for KubeArmor")
            for part, (was, _) in self._parts.items()
            if part is not Part.DOCUMENTS or was is not Stage.IDLE
        }
        self._changed(before)

    def part(self, part: Part, stage: Stage, detail: str) -> None:
        """One of the parts got so far; the connection is up."""
        before, was = self._whole(), self._parts[part]
        self._stage = None
        self._parts[part] = (stage, detail)
        self._changed(before)
        if stage is Stage.FAILED and self._told.get(part) != detail[:_SAME]:
            self._told[part] = detail[:_SAME]
            self._failed(f"{_TITLES[part]}: {detail}")
        elif stage is Stage.VERIFIED and was[0] is not Stage.VERIFIED:
            self._told.pop(part, None)

    def waiting(self, part: Part) -> None:
        """There is something to send, whether or not the connection is up."""
        if self._stage is Stage.WITHDRAWN:
            return
        before = self._whole()
        self._parts[part] = (Stage.WAITING, "not sent yet")
        self._changed(before)

    def withdrawn(self) -> None:
        """Our policies were deleted on request."""
        before = self._whole()
        self._stage, self._detail = Stage.WITHDRAWN, "our policies were deleted on request"
        self._parts = dict.fromkeys(Part, (Stage.WITHDRAWN, ""))
        self._changed(before)

    def sent(self, generation: int, addresses: int) -> None:
        """The network policy was accepted for so many addresses."""
        self._generation, self._addresses = generation, addresses

    def restarted(self) -> None:
        """The daemon went away, or lost what it had."""
        self._restarts += 1

    def repaired(self) -> None:
        """What had been in place was not, and is sent again."""
        self._repairs += 1

    def _whole(self) -> Stage:
        if self._stage is not None:
            return self._stage
        stages = {stage for stage, _ in self._parts.values()}
        return next((stage for stage in _WORST_FIRST if stage in stages), Stage.IDLE)

    def view(self) -> Mapping[str, str]:
        """Everything, as text."""
        told = {part: f"{_TITLES[part]} {stage.value}: {text}" for part, (stage, text) in self._parts.items()}
        if self._parts[Part.DOCUMENTS][0] is Stage.IDLE:
            del told[Part.DOCUMENTS]
        return {
            "state": self._whole().value,
            "detail": self._detail if self._stage is not None else "; ".join(told.values()),
            **{part.value: stage.value for part, (stage, _) in self._parts.items()},
            **{f"{part.value}_detail": text for part, (_, text) in self._parts.items()},
            "generation": str(self._generation),
            "addresses": str(self._addresses),
            "restarts": str(self._restarts),
            "repairs": str(self._repairs),
            "since": f"{self._since:.3f}",
        }
