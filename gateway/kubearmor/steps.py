"""From the documents that a daemon has to those that it should have: which events, in which order.

A daemon applies policies in the order in which it took them, and an update keeps a policy's place; after a restart
the order is that of the names (interface 1.6, 4.2). Of two rules for one path the later counts, of two network
entries the first. So whatever contradicts an earlier name must also have been taken later: it is taken anew if not.
What must not live here: sending, reading back, choosing the documents.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from gateway.kubearmor.budget import acting, uses
from gateway.kubearmor.documents import ContainerDocument, Document, NetworkSpec
from gateway.kubearmor.policies import EventType


class Step(NamedTuple):
    """One event to send. ``document``: for DELETED the very one that stands; None for the caller's own policy."""

    event: EventType
    name: str
    document: Document | None


def steps(
    standing: Mapping[str, Document | None],
    wanted: Sequence[Document],
    unsure: Collection[str] = (),
    own: str = "",
) -> tuple[Step, ...]:
    """Return the events that turn ``standing`` (by name, in the daemon's order) into ``wanted``.

    ``unsure`` are names that are sent though nothing about them changed: their content is not known. ``own`` is the
    name of a network policy that is the caller's, with None as its document: it stays, and may have to be taken
    anew behind another one. Restrictions come first, what is not wanted any more goes last: in between, more is
    denied than is meant, never less.
    """
    found: list[Step] = []
    order = list(standing)
    keep = {document.name: document for document in wanted}
    for name in sorted(keep):
        document, before = keep[name], standing.get(name)
        if name not in standing:
            order.append(name)
        elif before is not None and _selection(before) != _selection(document):
            # The daemon finds a container policy by its selector: with another one it would keep the old rules.
            found.append(Step(EventType.DELETED, name, before))
            order.remove(name)
            order.append(name)
        elif before is not None and name not in unsure and (before is document or before == document):
            continue
        found.append(Step(EventType.ADDED, name, document))
    every: dict[str, Document | None] = {**keep, **({own: None} if own in standing else {})}
    for name in _misplaced(order, every):
        found += (Step(EventType.DELETED, name, every[name]), Step(EventType.ADDED, name, every[name]))
    gone = [name for name in standing if name not in every]
    return (*found, *(Step(EventType.DELETED, name, standing[name]) for name in gone))


def _selection(document: Document) -> object:
    if not isinstance(document, ContainerDocument) or document.spec.selector is None:
        return None
    return frozenset(document.spec.selector.labels), document.spec.selector.expressions


def _misplaced(order: Sequence[str], wanted: Mapping[str, Document | None]) -> list[str]:
    """The names, ascending, that stand before one which they contradict and which must come before them."""
    place = {name: number for number, name in enumerate(order)}
    says = {name: _says(document) for name, document in wanted.items()}
    moved: list[str] = []
    for name in sorted(wanted):
        before = [each for each in sorted(wanted) if each < name and _contradict(says[each], says[name])]
        if any(place[each] > place[name] for each in before):
            place[name] = len(place) + len(moved)
            moved.append(name)
    return moved


_Says = Mapping[object, object]


def _says(document: Document | None) -> _Says:
    """What a document says of each thing that others may speak of too."""
    if document is None:
        return {"network": None}
    if isinstance(document.body, NetworkSpec):
        verdicts = frozenset(action for _, action in acting(document.body))
        return {"network": verdicts if len(verdicts) == 1 else None}
    space = document.kind
    return {(space, use.subject): use.value for use in uses(document.body)}


def _contradict(one: _Says, other: _Says) -> bool:
    """Whether the order of two documents matters; entries of two network policies with several verdicts may."""
    few, many = (one, other) if len(one) < len(other) else (other, one)
    return any(subject in many and (value is None or many[subject] != value) for subject, value in few.items())
