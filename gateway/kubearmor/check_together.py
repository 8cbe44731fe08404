"""Rules about several documents: names that clash, rules that replace or shadow each other, tables that overflow.

What must not live here: rules about one document.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from gateway.kubearmor.budget import count, effective, uses
from gateway.kubearmor.check_network import is_host, network_of, port_number
from gateway.kubearmor.codes import Notes, quoted
from gateway.kubearmor.documents import Document, NetworkDocument, NetworkSpec, Peers
from gateway.kubearmor.documents import Entry as NetworkEntry
from gateway.kubearmor.findings import Mode, Place
from gateway.kubearmor.prefixes import Span, merge
from gateway.kubearmor.subjects import Subject, same_host, tables
from gateway.kubearmor.vocabulary import TABLE_ENTRIES

#: From here on a table is called nearly full.
_NEAR = TABLE_ENTRIES * 3 // 4
#: Pairs of network entries compared; beyond it the later entries are not compared.
_MAX_PAIRS = 1_000_000


class Usage(NamedTuple):
    """How much of its table a container or host uses for the given documents."""

    subject: str
    entries: int
    limit: int
    documents: int


def check_together(documents: Sequence[Document], notes: Notes) -> tuple[Usage, ...]:
    """Note what is wrong with the documents as a whole, in the order in which they are applied."""
    _check_names(documents, notes)
    subjects = tables(documents)
    seen: set[tuple[Place, Place]] = set()
    for subject in subjects:
        _check_replaced(subject, seen, notes)
    _check_reached([each for each in documents if isinstance(each, NetworkDocument)], notes)
    return tuple(_check_budget(subject, notes) for subject in subjects)


def _check_names(documents: Sequence[Document], notes: Notes) -> None:
    first: dict[tuple[str, ...], Document] = {}
    for document in documents:
        if not document.name:
            continue
        namespace = document.metadata.namespace if notes.mode is Mode.K8S else ""
        place = document.metadata.place("name")
        same = first.setdefault((document.kind, namespace, document.name), document)
        other = first.setdefault(("", "", document.name), document)
        if same is not document:
            what = f"{document.kind} {quoted(document.name)} stands at {same.at} already"
            notes.add("KA-NAME-TWICE", place, what, "give each policy a name of its own")
        elif other.kind != document.kind:
            what = f"{quoted(document.name)} is also the {other.kind} at {other.at}"
            notes.add("KA-NAME-CLASH", place, what, "begin names with the kind: ksp-, hsp-, nsp-")


def _check_replaced(subject: Subject, seen: set[tuple[Place, Place]], notes: Notes) -> None:
    standing: dict[tuple[str, str, str], tuple[Place, tuple[object, ...]]] = {}
    for spec in subject.specs:
        for use in uses(spec):
            before = standing.get(use.subject)
            standing[use.subject] = (use.at, use.value)
            if before is None or before[1] == use.value or (before[0], use.at) in seen:
                continue
            seen.add((before[0], use.at))
            space, name, source = use.subject
            program = f" from {quoted(source)}" if source else ""
            what = f"this {space} rule for {quoted(name)}{program} replaces the one at {before[0]}"
            notes.add("KA-LATER-WINS", use.at, what, "keep the one that is meant")


def _check_budget(subject: Subject, notes: Notes) -> Usage:
    entries = count(subject.specs)
    what = f"{subject.name}: {policies_take(len(subject.specs))} {entries} of {TABLE_ENTRIES} entries"
    if entries > TABLE_ENTRIES:
        mend = "deny a parent directory instead of many paths, or drop rules"
        notes.add("KA-BUDGET", subject.at, what, mend)
    elif entries > _NEAR:
        notes.add("KA-BUDGET-NEAR", subject.at, what, "leave room before you add more")
    return Usage(subject.name, entries, TABLE_ENTRIES, len(subject.specs))


def policies_take(number: int) -> str:
    """The beginning of a sentence about how full a table is."""
    return "1 policy takes" if number == 1 else f"{number} policies take"


class _Reach(NamedTuple):
    """What an entry of a host network policy matches, per family and per protocol."""

    document: NetworkDocument
    at: Place
    verdict: str
    sources: Mapping[int, tuple[Span, ...]]
    interfaces: frozenset[str]
    ports: Mapping[str, tuple[Span, ...]]


def _ranges(spans: Sequence[Span], within: Sequence[Span]) -> bool:
    """Whether every range of ``spans`` lies in one of ``within``, both merged."""
    return all(_holds(within, span) for span in spans)


def _holds(within: Sequence[Span], span: Span) -> bool:
    at = bisect_right(within, span[0], key=itemgetter(0)) - 1
    return at >= 0 and span[1] <= within[at][1]


def _overlap(one: Sequence[Span], other: Sequence[Span]) -> bool:
    """Whether two merged lists of ranges share anything; the shorter one is looked up in the longer."""
    few, many = (one, other) if len(one) < len(other) else (other, one)
    for start, end in few:
        at = bisect_right(many, end, key=itemgetter(0)) - 1
        if at >= 0 and many[at][1] >= start:
            return True
    return False


_ALL: Mapping[int, tuple[Span, ...]] = {4: ((0, (1 << 32) - 1),), 6: ((0, (1 << 128) - 1),)}


def _reach(document: NetworkDocument, entry: NetworkEntry) -> _Reach | None:
    """None when the entry is broken, or a quota, which matches otherwise."""
    if entry.limit or entry.duration:
        return None
    spans: dict[int, list[Span]] = {4: [], 6: []}
    known = entry.peers if isinstance(entry.peers, Peers) else None
    for prefix in () if known is None else known.prefixes:
        spans[prefix.family].append(prefix.span)
    for peer in entry.peers if known is None else ():
        if peer.block is not None and peer.block.cidr:
            network = network_of(peer.block.cidr)
            if network is None:
                return None
            spans[network.version].append((int(network.network_address), int(network.broadcast_address)))
    ports: dict[str, list[Span]] = {}
    for port in entry.ports:
        if port.port:
            number = port_number(port.port)
            if number is None:
                return None
            ports.setdefault(port.protocol.lower() or "tcp", []).append((number, port.end or number))
    return _Reach(
        document,
        entry.at,
        effective(entry, None, document.spec).lower(),
        {family: merge(found) if found else _ALL[family] for family, found in spans.items()},
        frozenset(filter(None, entry.interfaces)),
        {protocol: merge(found) for protocol, found in ports.items()},
    )


def _covers(first: _Reach, then: _Reach) -> bool:
    """Whether everything that ``then`` matches is matched by ``first``."""
    if first.interfaces and not (then.interfaces and then.interfaces <= first.interfaces):
        return False
    if not all(_ranges(then.sources[family], first.sources[family]) for family in (4, 6)):
        return False
    if not first.ports:
        return True
    return bool(then.ports) and all(
        _ranges(spans, first.ports.get(protocol, ())) for protocol, spans in then.ports.items()
    )


def _meets(one: _Reach, other: _Reach) -> bool:
    """Whether some packet is matched by both."""
    if one.interfaces and other.interfaces and not one.interfaces & other.interfaces:
        return False
    if not any(_overlap(one.sources[family], other.sources[family]) for family in (4, 6)):
        return False
    if not one.ports or not other.ports:
        return True
    return any(_overlap(spans, other.ports.get(protocol, ())) for protocol, spans in one.ports.items())


def _check_reached(documents: Sequence[NetworkDocument], notes: Notes) -> None:
    hosts = [each for each in documents if is_host(each.spec)]
    for number in (0, 1):
        reaches = [
            found
            for document in hosts
            for entry in _entries(document.spec, number)
            if (found := _reach(document, entry)) is not None
        ]
        pairs = 0
        for place, then in enumerate(reaches):
            pairs += place
            if pairs > _MAX_PAIRS:
                break
            _check_one(reaches[:place], then, notes)


def _entries(spec: NetworkSpec, direction: int) -> tuple[NetworkEntry, ...]:
    return (spec.ingress, spec.egress)[direction]


def _check_one(before: Sequence[_Reach], then: _Reach, notes: Notes) -> None:
    for first in _on_same_host(before, then):
        if _covers(first, then):
            what = (
                f"the entry at {first.at} takes all that this one is about ({first.verdict} before {then.verdict})"
            )
            notes.add("KA-NET-SHADOW", then.at, what, "put the narrower entry first, or remove it")
            return
    for first in _on_same_host(before, then):
        turns = first.document.name > then.document.name and first.verdict != then.verdict
        if turns and first.document.name and _meets(first, then):
            what = f"after a restart this comes before {quoted(first.document.name)}, which it overlaps"
            notes.add(
                "KA-NET-ORDER", then.at, what, "begin names with numbers in the order that is meant: 10-, 20-"
            )
            return


def _on_same_host(before: Sequence[_Reach], then: _Reach) -> Iterator[_Reach]:
    for first in before:
        if first.document is then.document or same_host(first.document.spec, then.document.spec):
            yield first
