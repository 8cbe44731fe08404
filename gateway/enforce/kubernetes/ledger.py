"""What is wanted in a cluster, what stands there, and so what is to be done: a small fold, told the time.

Drift is judged here, between two writes and never during one: what stands differs from what the API answered to our
own last write. An older state of the same object, which a watch may still deliver after it, is known by its
generation. What must not live here: requests, the loop, words of the connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from gateway.enforce.kubernetes import objects
from gateway.enforce.kubernetes.client import Change
from gateway.enforce.kubernetes.objects import Key, Kind, Object
from gateway.enforce.kubernetes.settings import KubernetesSettings

#: Seconds that the first repair waits which does not come at once any more.
_STORM_FIRST = 5.0


class Stage(Enum):
    """How far one object got. ACCEPTED: the API server stored it. More is never known."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    FAILED = "failed"

    __hash__ = object.__hash__


class Step(NamedTuple):
    """One thing to do. ``thing`` None: delete the object whose life is ``uid``.

    ``known``: an object of ours stands there; ``drift``: what somebody did to it, "" nothing.
    """

    key: Key
    thing: Object | None
    uid: str = ""
    known: bool = False
    drift: str = ""


class Shown(NamedTuple):
    """One object for people."""

    key: Key
    stage: Stage
    detail: str


@dataclass(frozen=True, slots=True)
class _Accepted:
    """What the API answered to our last write of ``thing``."""

    thing: Object
    uid: str
    generation: int
    spec: object


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why ``thing`` is not there (None: why it is not gone), and when it is tried again."""

    thing: Object | None
    why: str
    again: float


@dataclass(slots=True)
class _Of:
    """What is known of one kind."""

    have: dict[Key, Object] = field(default_factory=dict)
    listed: bool = False


class Ledger:
    """``settings`` give the waits. Times are seconds of any clock that only goes on."""

    def __init__(self, settings: KubernetesSettings) -> None:
        self._settings = settings
        self._kinds = {kind: _Of() for kind in Kind}
        self._want: dict[Key, Object] = {}
        self._refused: dict[Key, str] = {}
        self._prune: frozenset[Key] | None = None
        self._accepted: dict[Key, _Accepted] = {}
        self._failed: dict[Key, _Failure] = {}
        self._repairs: dict[Key, deque[float]] = {}

    # --- what is wanted, and what stands ----------------------------------------------------------------

    def want(self, things: Mapping[Key, Object], refused: Mapping[Key, str], keep: frozenset[Key] | None) -> None:
        """Take the newest truth. ``refused``: documents that cannot be sent, and why: what stands of them stays.
        ``keep``: further keys of which it is not known yet whether they are wanted; None: nothing may be pruned."""
        self._want, self._refused = dict(things), dict(refused)
        self._prune = None if keep is None else keep | refused.keys()
        self._failed = {key: each for key, each in self._failed.items() if self._want.get(key) is each.thing}

    def listed(self, kind: Kind, have: Mapping[Key, Object]) -> None:
        """Everything of ours of a kind, as it was at one moment."""
        of = self._kinds[kind]
        stale = {key: of.have[key] for key, thing in have.items() if key in of.have and self._is_older(key, thing)}
        of.have, of.listed = {**have, **stale}, True

    def saw(self, change: Change) -> None:
        """Something happened to an object of ours."""
        key = change.key
        if key is None:
            return
        have = self._kinds[key.kind].have
        stands = have.get(key)
        if change.gone:
            if stands is not None and objects.uid_of(stands) == objects.uid_of(change.object):
                del have[key]
        elif not self._is_older(key, change.object):
            have[key] = change.object

    def _is_older(self, key: Key, thing: Object) -> bool:
        """Whether this is a state of the same life from before our last write."""
        accepted = self._accepted.get(key)
        return (
            accepted is not None
            and accepted.uid == objects.uid_of(thing)
            and objects.generation_of(thing) < accepted.generation
        )

    # --- what is to be done -----------------------------------------------------------------------------

    def steps(self, now: float) -> Iterator[Step]:
        """What is to be done now: what is wanted first, what is not wanted last."""
        for key, thing in self._want.items():
            of = self._kinds[key.kind]
            if not of.listed or self._waits(key, thing, now):
                continue
            stands = of.have.get(key)
            drift = self._drift(key, thing, stands)
            if drift:
                if now >= self._calm_at(key):
                    yield Step(key, thing, known=stands is not None, drift=drift)
            elif stands is None:
                yield Step(key, thing)
            elif not self._stands(key, thing, stands):
                yield Step(key, thing, known=True)
        if self._prune is None:
            return
        for of in self._kinds.values():
            for key, stands in list(of.have.items()):
                if key not in self._want and key not in self._prune and not self._waits(key, None, now):
                    yield Step(key, None, objects.uid_of(stands))

    def due(self, now: float) -> float | None:
        """Seconds until something that waits may be tried; None: nothing waits."""
        ends = [each.again for each in self._failed.values()]
        ends += [
            self._calm_at(key)
            for key in self._repairs
            if key in self._want and self._drift(key, self._want[key], self._kinds[key.kind].have.get(key))
        ]
        return max(0.0, min(ends) - now) if ends else None

    def _waits(self, key: Key, thing: Object | None, now: float) -> bool:
        failed = self._failed.get(key)
        return failed is not None and failed.thing is thing and now < failed.again

    def _drift(self, key: Key, thing: Object, stands: Object | None) -> str:
        """What somebody did to what we had stored of this very document; "" when nothing."""
        accepted = self._accepted.get(key)
        if accepted is None or accepted.thing is not thing:
            return ""
        if stands is None:
            return "was deleted, or its labels were taken away"
        if objects.uid_of(stands) != accepted.uid:
            return "was replaced"
        return "" if stands.get("spec") == accepted.spec else "was edited"

    def _stands(self, key: Key, thing: Object, stands: Object) -> bool:
        """Whether what stands is what is wanted; then that needs no write, also after our own restart."""
        accepted = self._accepted.get(key)
        if accepted is not None and accepted.thing is thing:
            return True
        if stands.get("spec") != thing.get("spec"):
            return False
        self._take(key, thing, stands)
        return True

    def _calm_at(self, key: Key) -> float:
        """When the next repair of an object may be done: at once, unless it was repaired again and again."""
        times = self._repairs.get(key)
        if not times or len(times) < self._settings.storm_free:
            return 0.0
        wait = _STORM_FIRST * 2.0 ** min(len(times) - self._settings.storm_free, 16)
        return times[-1] + min(wait, self._settings.storm_max)

    # --- what came of it --------------------------------------------------------------------------------

    def stored(self, key: Key, thing: Object, answer: Object) -> None:
        """The API answered to a write of ``thing`` with what it stores now."""
        self._kinds[key.kind].have[key] = objects.lean(answer)
        self._take(key, thing, answer)

    def _take(self, key: Key, thing: Object, stored: Object) -> None:
        self._accepted[key] = _Accepted(
            thing, objects.uid_of(stored), objects.generation_of(stored), stored.get("spec")
        )
        self._failed.pop(key, None)

    def gone(self, key: Key) -> None:
        """An object of ours was deleted by us."""
        self._kinds[key.kind].have.pop(key, None)
        for each in (self._accepted, self._failed, self._repairs):
            each.pop(key, None)

    def failed(self, key: Key, thing: Object | None, why: str, again: float) -> bool:
        """A write failed and is tried again at ``again``; whether that is news."""
        before = self._failed.get(key)
        self._failed[key] = _Failure(thing, why, again)
        return before is None or before.why != why

    def repaired(self, key: Key, now: float) -> bool:
        """Somebody's change of an object was undone; whether repairs of it wait from here on."""
        times = self._repairs.setdefault(key, deque(maxlen=64))
        while times and times[0] < now - self._settings.storm_window:
            times.popleft()
        times.append(now)
        return len(times) == self._settings.storm_free

    # --- for people -------------------------------------------------------------------------------------

    def unlisted(self) -> tuple[Kind, ...]:
        """The kinds of which it is not known what stands."""
        return tuple(kind for kind, of in self._kinds.items() if not of.listed)

    def leftovers(self) -> int:
        """Objects of ours that are not wanted any more and still stand."""
        if self._prune is None:
            return 0
        return sum(
            key not in self._want and key not in self._prune for of in self._kinds.values() for key in of.have
        )

    def shown(self, profile: str | None = None) -> Iterator[Shown]:
        """Every wanted object, or those that a profile's devices have to do with."""
        for key, why in self._refused.items():
            if profile is None:
                yield Shown(key, Stage.FAILED, why)
        for key, thing in self._want.items():
            if profile is None or concerns(thing, profile):
                yield Shown(key, *self._how_far(key, thing))

    def _how_far(self, key: Key, thing: Object) -> tuple[Stage, str]:
        failed, accepted = self._failed.get(key), self._accepted.get(key)
        if failed is not None:
            return Stage.FAILED, failed.why
        if accepted is None or accepted.thing is not thing:
            return Stage.PENDING, "not stored yet"
        stands = self._kinds[key.kind].have.get(key)
        drift = self._drift(key, thing, stands)
        if drift:
            return Stage.PENDING, f"{drift}; to be put back"
        said = "" if stands is None else objects.told_by_kubearmor(stands)
        return Stage.ACCEPTED, f"stored, generation {accepted.generation}" + (f"; status {said!r}" if said else "")


def concerns(thing: Object, profile: str) -> bool:
    """Whether an object is a document of this profile, or one that is for no profile in particular."""
    spec = thing.get("spec")
    tags = spec.get("tags", ()) if isinstance(spec, dict) else ()
    named = [tag for tag in tags if isinstance(tag, str) and tag.startswith("PROFILE=")]
    return not named or f"PROFILE={profile}" in named
