"""What an operator sees of the Kubernetes hand: a small fold over what happened.

What must not live here: acting on it.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.control.ports import Clock
from gateway.enforce.kubernetes.ledger import Ledger, Stage
from gateway.enforce.kubernetes.objects import Kind
from gateway.enforce.kubernetes.settings import KubernetesSettings

#: Objects told in one line for people; the rest is counted.
_NAMED = 3


class Report:
    """The state of the API server as we see it, and of the objects, as plain text."""

    def __init__(self, settings: KubernetesSettings, clock: Clock, ledger: Ledger) -> None:
        self._settings = settings
        self._clock = clock
        self._ledger = ledger
        self._lost = "not tried yet"
        self._tried = False
        self._withdrawn = False
        self._following: set[Kind] = set()
        self._stumbles: dict[Kind | None, str] = {}
        self._repairs = 0
        self._relists = 0
        self._state = ("", clock.now().wall)

    @property
    def reached(self) -> bool:
        """Whether the API server has answered, and nothing since says that it does not any more."""
        return not self._lost

    @property
    def watching(self) -> bool:
        """Whether changes of all kinds are being told to us now."""
        return len(self._following) == len(Kind)

    def lost(self, why: str) -> None:
        """The API server cannot be reached, or not as who we are."""
        self._lost, self._tried = why, True
        self._following.clear()

    def following(self, kind: Kind) -> None:
        """Changes of a kind are being told to us."""
        self._lost = ""
        self._following.add(kind)
        self._stumbles.pop(kind, None)

    def stumbled(self, kind: Kind | None, why: str, *, reached: bool) -> None:
        """Following a kind (None: writing) failed; ``reached``: the server itself said so."""
        self._stumbles[kind] = why
        if kind is not None:
            self._following.discard(kind)
        if reached:
            self._lost = ""
        elif not self._following:
            self.lost(why)

    def wrote(self) -> None:
        """Everything that could be written was."""
        self._stumbles.pop(None, None)

    def repaired(self) -> None:
        """Somebody's change was undone."""
        self._repairs += 1

    def relisted(self) -> None:
        """A place in history was forgotten, and a kind was listed anew."""
        self._relists += 1

    def withdrawn(self) -> None:
        """What is ours was deleted on request."""
        self._withdrawn = True

    def beyond(self) -> str:
        """What to say beside the state of an object, when the API server cannot be asked about it now."""
        return f"; the API server cannot be reached: {self._lost}" if self._lost and self._tried else ""

    def counts(self) -> Mapping[str, int]:
        """How many objects got how far."""
        found = {stage.value: 0 for stage in Stage}
        for each in self._ledger.shown():
            found[each.stage.value] += 1
        return found

    def view(self) -> Mapping[str, str]:
        """Everything, as text."""
        counts = self.counts()
        state, detail = self._told(counts)
        if self._state[0] != state:
            self._state = (state, self._clock.now().wall)
        return {
            "state": state,
            "detail": detail,
            **{stage: str(number) for stage, number in counts.items()},
            "repairs": str(self._repairs),
            "relists": str(self._relists),
            "since": f"{self._state[1]:.3f}",
        }

    def _not_yet(self) -> tuple[str, str] | None:
        """Why nothing can be said of the objects; None: it can."""
        if self._withdrawn:
            return "withdrawn", "our objects were deleted on request"
        if self._lost:
            return ("absent" if self._tried else "connecting"), self._lost
        awaited = [kind for kind in self._ledger.unlisted() if kind not in self._stumbles]
        if awaited:
            return "connecting", f"{awaited[0].value} are being listed"
        return None

    def _told(self, counts: Mapping[str, int]) -> tuple[str, str]:
        not_yet = self._not_yet()
        if not_yet is not None:
            return not_yet
        said = f"{counts['accepted']} of {sum(counts.values())} objects stored"
        left = self._ledger.leftovers()
        said += f", {left} to be taken away" if left else ""
        trouble = "; ".join(sorted(set(self._stumbles.values()))[:_NAMED])
        failed = [each for each in self._ledger.shown() if each.stage is Stage.FAILED]
        if failed:
            named = "; ".join(each.detail for each in failed[:_NAMED])
            more = f"; {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
            return "failed", f"{said}; {named}{more}"
        if counts["pending"] or left:
            return "waiting", said + (f"; {trouble}" if trouble else "")
        if not counts["accepted"]:
            return "idle", "no document is for this target now" + (f"; {trouble}" if trouble else "")
        known = "; accepted is all that a cluster tells: whether nodes enforce is not known here"
        return "accepted", said + (f"; {trouble}" if trouble else "") + known
