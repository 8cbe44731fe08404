"""The documents of profiles at one daemon: what it has, what it should have, and how far that got.

Sends only what changed, one event at a time, restrictions first; no more than one network document for each turn of
the driver, because each makes KubeArmor lay all rules of the node anew. What must not live here: making documents,
the connection, our own two policies, when to work.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec

from gateway.enforce.kubearmor.lookup import Aside
from gateway.enforce.kubearmor.lsm import Lsm
from gateway.enforce.kubearmor.parts import Named
from gateway.enforce.kubearmor.report import NO_DOCUMENTS, Part, Report, Stage
from gateway.kubearmor.anchor import relabelled, to_wire
from gateway.kubearmor.content import normal
from gateway.kubearmor.documents import Document, NetworkDocument
from gateway.kubearmor.expand import COLLAPSED
from gateway.kubearmor.names import DocumentRefused, Kind
from gateway.kubearmor.pb.policy_pb2 import PolicyStatus
from gateway.kubearmor.policies import JSON, EventType, Policy, render_event
from gateway.kubearmor.readback import Shown
from gateway.kubearmor.steps import Step, steps
from gateway.kubearmor.template import word_of

TAKEN = frozenset({PolicyStatus.Applied, PolicyStatus.Modified})
GONE = frozenset({PolicyStatus.Deleted, PolicyStatus.NotExist, PolicyStatus.NotEnabled})

#: Names told in one line for people; the rest is counted.
_NAMED = 3


class Send(Protocol):
    """Sends one event; returns the status, or None when this name is left alone for a while.

    Raises ``BackendError``.
    """

    def __call__(self, name: str, kind: Kind, event: bytes) -> Awaitable[int | None]: ...


class Post(NamedTuple):
    """What the driver lends for one connection: its lane, its thread, and its own network policy, which ``own``
    deletes or sends."""

    send: Send
    aside: Aside
    own: Callable[[EventType], Awaitable[None]]


class Declared(NamedTuple):
    """What should stand. ``absent``: names of network documents that stand at other times."""

    documents: tuple[Document, ...] = ()
    absent: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Marked:
    """A document with the generation by which its read-back is known."""

    document: Document
    generation: int

    @property
    def name(self) -> str:
        return self.document.name

    def render(self) -> JSON:
        rendered = self.document.render()
        spec = rendered["spec"]
        assert isinstance(spec, dict)
        tagged = spec | {"tags": [*spec.get("tags", ()), f"gen={self.generation}"]}
        rendered["spec"] = relabelled(tagged, to_wire)
        return rendered


class ProfileDocuments:
    """``own`` is the name of the driver's network policy, whose place among the others matters."""

    def __init__(self, report: Report, own: str, generation: Callable[[], int]) -> None:
        self._report = report
        self._own = own
        self._generation = generation
        self._declared: Declared | None = None
        self._standing: dict[str, Document | None] = {}
        self._generations: dict[str, int] = {}
        self._unsure: set[str] = set()
        self._unseen: set[str] = set()  # names of network documents that may still be there
        self._seen: set[str] = set()  # read back at least once since they were sent first
        self._verified: set[str] = set()
        self._texts: dict[str, bytes] = {}  # what was sent of host and container documents, in its normal form
        self._lost: set[str] = set()  # seen before and not any more: not mended yet
        self._lsm = Lsm(None, "not looked for yet")
        self._failed: dict[str, tuple[Document | None, str]] = {}
        self._disabled: set[Kind] = set()
        self._waiting = ""

    @property
    def known(self) -> bool:
        """Whether anything was declared."""
        return self._declared is not None

    def declare(self, documents: Sequence[Document], absent: Collection[str]) -> None:
        """Take the newest truth."""
        before, first = self._declared or Declared(), self._declared is None
        self._declared = Declared(tuple(documents), frozenset(absent))
        wanted = {document.name for document in documents}
        self._failed = {name: why for name, why in self._failed.items() if name in wanted}
        self._lost &= wanted
        if first:
            self._unseen |= self._declared.absent
        if list(map(id, documents)) != list(map(id, before.documents)):
            self._report.waiting(Part.DOCUMENTS)

    def begin(self, shown: Mapping[str, tuple[Document, int]]) -> None:
        """A connection is up: what the daemon shows of ours stands, in its order, and everything is sent anew."""
        self._standing = {name: document for name, (document, _) in shown.items()}
        self._generations = {name: generation for name, (_, generation) in shown.items()}
        self._unsure = set(self._standing)
        # The probe never shows network policies (interface 1.7).
        self._unseen = set() if self._declared is None else set(self._declared.absent)
        self._verified.clear()
        self._texts.clear()
        self._lost.clear()
        self._failed.clear()
        self._disabled.clear()
        self._waiting = ""

    def own_stands(self, stands: bool, *, last: bool = False) -> None:
        """The driver's network policy was taken, or deleted: an update keeps its place. ``last``: parts of it may
        stand behind everything else."""
        if not stands or last:
            self._standing.pop(self._own, None)
        if stands:
            self._standing.setdefault(self._own, None)

    def networks(self) -> tuple[tuple[NetworkDocument, int], ...]:
        """The network documents that were accepted, with their generations."""
        return tuple(
            (document, self._generations[name])
            for name, document in self._standing.items()
            if isinstance(document, NetworkDocument) and name not in self._unsure
        )

    # --- sending ----------------------------------------------------------------------------------------

    async def turn(self, post: Post, why_not: str, *, mend: bool = True) -> bool:
        """Send what changed; whether something is left for the next turn. ``why_not``: why no network policy may be
        sent. ``mend``: also what was lost since it was sent. Raises ``BackendError``."""
        if self._declared is None:
            return False
        declared = self._declared
        found = await post.aside(lambda: self._steps(declared))
        self._same(declared, found)
        network, left, withheld = "", False, False
        for step in found:
            if self._declared is not declared:
                return True  # there is a newer truth already
            kind = self._kind(step)
            if step.name in self._lost and not mend:
                continue
            if kind is Kind.NETWORK and why_not:
                withheld = withheld or step.event is EventType.ADDED
            elif kind is Kind.NETWORK and network not in ("", step.name):
                left = True
            elif kind not in self._disabled and not self._given_up(step):
                network = step.name if kind is Kind.NETWORK else network
                await self._take(post, step, kind)
        self._waiting = why_not if withheld else ""
        return left

    def _same(self, declared: Declared, found: Sequence[Step]) -> None:
        """What is equal to what stands need not be sent: from here on it is the same object."""
        moving = {step.name for step in found}
        self._standing |= {
            document.name: document
            for document in declared.documents
            if document.name in self._standing and document.name not in moving
        }

    def _steps(self, declared: Declared) -> tuple[Step, ...]:
        """The events to send; also for network documents of another time, of which nothing is known."""
        wanted = {document.name for document in declared.documents}
        gone = [Step(EventType.DELETED, name, None) for name in sorted(self._unseen - wanted - set(self._standing))]
        return (*steps(self._standing, declared.documents, self._unsure, self._own), *gone)

    def _kind(self, step: Step) -> Kind:
        return Kind.NETWORK if step.document is None else Kind(word_of(step.document))

    def _given_up(self, step: Step) -> bool:
        """Whether this very document was refused already."""
        failed = self._failed.get(step.name)
        return failed is not None and failed[0] is step.document and step.event is EventType.ADDED

    async def _take(self, post: Post, step: Step, kind: Kind) -> None:
        if step.name == self._own:
            await post.own(step.event)
            return
        adds = step.event is EventType.ADDED
        generation = self._generation() if adds else self._generations.get(step.name, 0)
        try:
            event = await post.aside(lambda: _event(step, generation))
        except DocumentRefused as error:
            self._failed[step.name] = (step.document, str(error))
            return
        status = await post.send(step.name, kind, event)
        if status is None:
            # Not this very document for ever: the next turn asks again.
            self._failed[step.name] = (None, "not sent for a while: sending it had no answer")
        elif not adds and status in GONE:
            self._forget(step.name)
        elif adds and status in TAKEN:
            self._stands(step.name, step.document, generation)
            if kind is not Kind.NETWORK:
                self._texts[step.name] = await post.aside(lambda: sent_text(event))
        elif status == PolicyStatus.NotEnabled:
            self._disabled.add(kind)
        else:
            self._failed[step.name] = (step.document, f"KubeArmor answered {word(status)}")

    def _stands(self, name: str, document: Document | None, generation: int) -> None:
        self._standing[name] = document
        self._generations[name] = generation
        self._unsure.discard(name)
        self._unseen.discard(name)
        self._verified.discard(name)
        self._lost.discard(name)
        self._failed.pop(name, None)

    def _forget(self, name: str) -> None:
        self._standing.pop(name, None)
        self._generations.pop(name, None)
        self._texts.pop(name, None)
        for each in (self._unsure, self._unseen, self._seen, self._verified, self._lost):
            each.discard(name)
        self._failed.pop(name, None)

    async def withdraw(self, post: Post, shown: Mapping[str, tuple[Document, int]], why_not: str) -> Sequence[str]:
        """Delete every document of ours; the names of those that KubeArmor did not let go. Raises
        ``BackendError``."""
        networks = {document.name: (document, generation) for document, generation in self.networks()}
        self.begin({**shown, **({} if why_not else networks)})
        self._declared = Declared((), frozenset() if self._declared is None else self._declared.absent)
        self._unseen = set() if why_not else set(self._declared.absent)
        for step in self._steps(self._declared):
            await self._take(post, step, self._kind(step))
        return sorted(self._failed)

    # --- reading back -----------------------------------------------------------------------------------

    def check(self, shown: Mapping[str, Shown], networks: Mapping[str, bool | None], lsm: Lsm) -> str:
        """Compare with what was read back: the probe, and the network documents whose rules were looked for (None:
        they cannot be). Returns what was lost since it was seen, and must be sent anew; "" nothing was."""
        self._lsm = lsm
        lost: list[str] = []
        for name, generation in list(self._generations.items()):
            document = self._standing.get(name)
            if document is None or name in self._unsure:
                continue
            is_there = networks.get(name) if isinstance(document, NetworkDocument) else None
            if not isinstance(document, NetworkDocument):
                is_there = self._is_shown(name, generation, shown.get(name))
            if is_there:
                self._seen.add(name)
                self._verified.add(name)
            elif is_there is False:
                self._verified.discard(name)
                if name in self._seen:
                    lost.append(name)
        for name in lost:
            self._forget(name)  # sent once more: what does not come back then is reported, not sent for ever
            self._lost.add(name)
        if not lost:
            return ""
        self._report.repaired()
        return f"{_some(lost)} deleted or edited"

    def _is_shown(self, name: str, generation: int, found: Shown | None) -> bool:
        return found is not None and found.generation == generation and self._texts.get(name) == normal(found.spec)

    def tell(self, waiting: float = 0.0) -> None:
        """Report how far it got. ``waiting``: seconds for which nothing that was lost is mended."""
        if self._declared is None:
            return
        stage, detail = self._told(self._declared)
        if self._lost and waiting:
            stage = Stage.FAILED
            detail = f"{_some(sorted(self._lost))} vanish again and again: sent anew in {waiting:.0f} s; {detail}"
        self._report.part(Part.DOCUMENTS, stage, detail)

    def _told(self, declared: Declared) -> tuple[Stage, str]:
        if self._failed:
            name = min(self._failed)
            more = f"; {len(self._failed) - 1} more" if len(self._failed) > 1 else ""
            return Stage.FAILED, f"{name}: {self._failed[name][1]}{more}; what stood before stands"
        wanted = {document.name: document for document in declared.documents}
        gone = len(self._standing.keys() - wanted.keys() - {self._own})
        if not wanted:
            return (Stage.WAITING, f"{gone} to be taken away") if gone else (Stage.IDLE, NO_DOCUMENTS)
        wide = sum(COLLAPSED in each.body.tags for each in wanted.values())
        said = f"{len(wanted)} documents"
        if wide:
            said += f", {wide} of them for a whole directory instead of single devices (tag {COLLAPSED})"
        disabled = sum(Kind(word_of(each)) in self._disabled for each in wanted.values())
        if disabled:
            said += f", {disabled} of a kind that KubeArmor's configuration disables"
        if disabled == len(wanted):
            return Stage.DISABLED, said
        if self._waiting:
            return Stage.WITHHELD, f"{said}; network documents are withheld: {self._waiting}"
        standing = [name for name, each in wanted.items() if self._standing.get(name) is each]
        stage, how = self._how_far(standing, len(wanted) - disabled, gone)
        return stage, f"{how}; {said}" if stage is Stage.FAILED else f"{said}; {how}"

    def _how_far(self, standing: Sequence[str], number: int, gone: int) -> tuple[Stage, str]:
        sent = [name for name in standing if name not in self._unsure]
        if len(sent) < number or gone:
            return Stage.WAITING, f"{number - len(sent)} to be sent, {gone} to be taken away"
        unread = [name for name in sent if name not in self._verified]
        if unread:
            return Stage.ACCEPTED, f"accepted, not read back: {_some(unread)}"
        if all(isinstance(self._standing[name], NetworkDocument) for name in sent):
            return Stage.VERIFIED, "all read back"
        return judged(self._lsm, "all read back")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def judged(lsm: Lsm, said: str) -> tuple[Stage, str]:
    """How far host and container policies got that were read back."""
    if lsm.enforcer is None:
        return Stage.ACCEPTED, f"{said}; not verified, as it is not known whether anything enforces it: {lsm.why}"
    return (Stage.VERIFIED, said) if lsm.enforcer else (Stage.FAILED, f"{lsm.why}; {said}")


def same(policy: Policy, found: Shown) -> bool:
    """Whether the probe shows what was sent."""
    spec = policy.render()["spec"]
    assert isinstance(spec, dict)
    return normal(spec) == normal(found.spec)


def sent_text(event: bytes) -> bytes:
    """The normal form of what an event said."""
    return normal(msgspec.json.decode(event)["object"]["spec"])


def _event(step: Step, generation: int) -> bytes:
    if step.document is None:
        return render_event(step.event, Named(step.name))
    return render_event(step.event, _Marked(step.document, generation))


def word(status: int) -> str:
    """A ``PolicyStatus`` in KubeArmor's word."""
    return PolicyStatus.Name(status) if status in PolicyStatus.values() else f"status {status}"
