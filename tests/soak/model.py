"""What every device may and must be, worked out a second time from the design's words alone.

Pure. The model shares no code with the lifecycle: it keeps, per device, the *set* of states that are possible
after everything that was sent, because a gateway that is killed may or may not have kept what it was told last.
A device whose states are all without trust must not be admitted; one whose states are all trusted must be.
Times are UNIX seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

#: The clock window of a verdict, and how far a verifier's clock may be ahead, as the design states them.
PAST, AHEAD = 120, 2
#: Satisfying passes owed after a failure (default of a SEDIMENT source).
RECOVERY = 2


class Word(Enum):
    """Standings, as the console calls them."""

    UNKNOWN = "unknown"
    TRUSTED = "trusted"
    SUSPECT = "suspect"
    LAPSED = "lapsed"
    DISTRUSTED = "distrusted"
    HELD = "held"


class Kind(Enum):
    """What the soak does to a device."""

    PASS = "pass"
    FAIL = "fail"  # FAILED_ATTEST and USER_REJECT alike
    NOTE = "note"  # reasons that never move a standing
    HOLD = "hold"
    RELEASE = "release"


class State(NamedTuple):
    """One possible state. ``ends`` is the deadline of a trusted device."""

    word: Word = Word.UNKNOWN
    ends: float = 0.0
    newest: int = 0
    epoch: int = 0
    debt: int = 0
    suspected: float = 0.0

    def trusted(self, at: float) -> bool:
        """Whether it admits at ``at``."""
        return self.word is Word.TRUSTED and at < self.ends

    def words(self, before: float, after: float) -> set[str]:
        """What a window may call it when asked between these two times."""
        if self.word is not Word.TRUSTED:
            return {self.word.value}
        said = ((before < self.ends, "trusted"), (after >= self.ends, "lapsed"))
        return {word for possible, word in said if possible}


class Sent(NamedTuple):
    """One thing done to a device. ``issued`` is 0 for an operator's act."""

    kind: Kind
    issued: int = 0


def after(state: State, sent: Sent, at: float, max_age: float) -> State:
    """The state behind ``sent``, had it arrived at ``at``."""
    if sent.kind is Kind.PASS:
        return _passed(state, sent.issued, at, max_age)
    if sent.kind is Kind.FAIL:
        return _failed(state, sent.issued, at)
    if sent.kind is Kind.HOLD:
        return state if state.word is Word.HELD else state._replace(word=Word.HELD, ends=0.0)
    if sent.kind is Kind.RELEASE and state.word is Word.HELD:
        return state._replace(word=Word.DISTRUSTED if state.debt else Word.LAPSED)
    return state


def _passed(state: State, issued: int, at: float, max_age: float) -> State:
    fresh = at - PAST <= issued <= at + AHEAD
    if not fresh or issued <= state.newest or issued <= state.epoch:
        return state
    if state.suspected and issued <= state.suspected + AHEAD:
        return state._replace(newest=issued)
    if state.debt > 1:
        return state._replace(newest=issued, debt=state.debt - 1)
    if state.word is Word.HELD:
        return State(Word.HELD, 0.0, issued, state.epoch)
    return State(Word.TRUSTED, max(state.ends, issued + max_age), issued, state.epoch)


def _failed(state: State, issued: int, at: float) -> State:
    if issued <= state.epoch or issued == state.newest:
        return state
    low = {Word.HELD: Word.HELD}
    if at - PAST <= issued <= at + AHEAD and issued > state.newest:
        word = low.get(state.word, Word.DISTRUSTED)
        return State(word, 0.0, issued, issued, RECOVERY, state.suspected)
    word = (low | {Word.DISTRUSTED: Word.DISTRUSTED}).get(state.word, Word.SUSPECT)
    epoch = max(state.epoch, issued) if issued <= at else state.epoch
    return state._replace(word=word, ends=0.0, epoch=epoch, suspected=state.suspected or at)


def withheld(state: State, at: float) -> State:
    """Not re-admitted at a start, because journal and kernel disagreed."""
    if not state.trusted(at):
        return state
    return state._replace(word=Word.SUSPECT, ends=0.0, suspected=max(state.suspected, at))


def shut(state: State) -> State:
    """Started without any enforcement state: nobody is trusted any more."""
    return state._replace(word=Word.LAPSED, ends=0.0) if state.word is Word.TRUSTED else state


@dataclass
class Device:
    """The possible states of one device, and those before each thing that may not have been kept yet."""

    states: frozenset[State] = frozenset({State()})
    unsettled: list[tuple[float, frozenset[State]]] = field(default_factory=list)
    version: int = 0


class Model:
    """All devices. ``settle`` is the time in which whatever was sent has been judged, kept and enforced."""

    def __init__(self, devices: Iterable[str], max_age: float, settle: float) -> None:
        self.devices = {name: Device() for name in devices}
        self._max_age = max_age
        self._settle = settle

    def sent(self, name: str, sent: Sent, at: float, *, surely: bool = True) -> None:
        """``sent`` was handed to the gateway at ``at``, and is judged some time before the settle time is over.

        Not ``surely``: it may have been lost, or refused for the gateway's own reasons.
        """
        device = self.devices[name]
        device.unsettled.append((at, device.states))
        moments = (at, at + self._settle)
        states = {after(state, sent, moment, self._max_age) for state in device.states for moment in moments}
        device.states = frozenset(states if surely else states | device.states)
        device.version += 1

    def settled(self, now: float, healthy_since: float) -> None:
        """Forget what went before everything that a healthy gateway has had the settle time for."""
        for device in self.devices.values():
            device.unsettled = [one for one in device.unsettled if now - max(one[0], healthy_since) < self._settle]

    def killed(self) -> None:
        """Whatever was unsettled may or may not have been kept."""
        for device in self.devices.values():
            if not device.unsettled:
                continue
            before = [states for _, states in device.unsettled]
            every = frozenset[State]().union(device.states, *before)
            disagree = not all(state.word is Word.TRUSTED for state in every)
            device.states = every
            # One mark says that the kernel may have had another opinion than the journal at this moment.
            device.unsettled = [(0.0, every)] if disagree else []
            device.version += 1

    def started(self, lo: float, hi: float, *, doubtful: bool) -> None:
        """A start between ``lo`` and ``hi`` has restored the devices. ``doubtful``: of all, what stood in the
        kernel is not known."""
        for device in self.devices.values():
            if doubtful or device.unsettled:
                self._widen(device, lambda state: {withheld(state, lo), withheld(state, hi)})
            if doubtful:
                self._widen(device, lambda state: {shut(state)})
            device.unsettled.clear()
            device.version += 1

    def emptied(self) -> None:
        """A start has found no enforcement state at all."""
        for device in self.devices.values():
            device.states = frozenset(map(shut, device.states))
            device.unsettled.clear()
            device.version += 1

    @staticmethod
    def _widen(device: Device, also: Callable[[State], set[State]]) -> None:
        device.states = device.states.union(*map(also, device.states))

    def must_not(self, name: str, at: float) -> bool:
        """Whether no possible state admits the device at ``at``, nor did any before what is unsettled."""
        device = self.devices[name]
        every = (device.states, *(states for _, states in device.unsettled))
        return not any(state.trusted(at) for states in every for state in states)

    def must(self, name: str, at: float) -> bool:
        """Whether every possible state admits the device at ``at``, and nothing is unsettled."""
        device = self.devices[name]
        return not device.unsettled and all(state.trusted(at) for state in device.states)

    def seen(self, name: str, word: str, before: float, after_: float) -> bool:
        """A window called a settled device ``word``. False: no possible state agrees. Keeps those that do."""
        device = self.devices[name]
        agreeing = frozenset(state for state in device.states if word in state.words(before, after_))
        if agreeing:
            device.states = agreeing
        return bool(agreeing)
