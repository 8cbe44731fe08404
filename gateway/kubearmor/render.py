"""From profiles and the devices that have them to the documents that stand at each target.

What stands: every document of the site profile, and every document of a device profile while some device has it.
One document is for many devices: rules are repeated, addresses aggregated. All policies of one container, or of a
host, share one table of the kernel; when the rules for single devices do not fit into it any more, their document
gives way to one of the site that denies their parent directory to everybody. Entries are never left out.
What must not live here: deciding who has which profile, sending, generations, reading files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from gateway.core.model import Decision, Device, DeviceId
from gateway.kubearmor.budget import Use, count, uses
from gateway.kubearmor.check_together import Usage, check_together, policies_take
from gateway.kubearmor.codes import Notes
from gateway.kubearmor.documents import ClusterDocument, ContainerSpec, Document, HostSpec, NetworkSpec
from gateway.kubearmor.expand import Piece, name_of, path_rules, pieces
from gateway.kubearmor.fields import Field, Slot, ValueRefused, depends, field_of, names_in, slots
from gateway.kubearmor.findings import Mode, Place
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.parameters import Scope, of_device
from gateway.kubearmor.subjects import Subject, tables
from gateway.kubearmor.template import Template
from gateway.kubearmor.validate import forbids, judge_alone
from gateway.kubearmor.vocabulary import TABLE_ENTRIES

#: Entries of a host's table for profiles: the other half is the gateway's own host policy's.
HOST_ENTRIES = TABLE_ENTRIES // 2


class TargetKind(NamedTuple):
    """A target and one of its kinds of document: ``network``, ``host``, ``container`` or ``cluster``."""

    target: str
    kind: str

    def __str__(self) -> str:
        return f"{self.target}/{self.kind}"


class Collapse(NamedTuple):
    """A document for single devices that gave way to the site's: ``directories`` are denied as a whole.

    ``name`` is that of the document that stands, ``devices`` how many it is about.
    """

    target: str
    profile: str
    name: str
    devices: int
    directories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Library:
    """Every profile's templates by the profile's name, those of devices and those of the site."""

    devices: Mapping[str, tuple[Template, ...]] = field(default_factory=dict)
    site: Mapping[str, tuple[Template, ...]] = field(default_factory=dict)


class Rendering(NamedTuple):
    """The documents that stand, in the order in which they apply; what gave way; how full each table is."""

    documents: Mapping[TargetKind, tuple[Document, ...]]
    collapses: tuple[Collapse, ...]
    usages: Mapping[str, tuple[Usage, ...]]

    def at(self, target: str) -> tuple[Document, ...]:
        """Every document of one target, in the order of their names."""
        found = (document for place, mine in self.documents.items() if place.target == target for document in mine)
        return tuple(sorted(found, key=lambda document: document.name))

    def texts(self) -> Mapping[str, str]:
        """Each document as JSON, by ``target/kind/name``."""
        return {
            f"{place}/{document.name}": msgspec.json.encode(document.render(), order="deterministic").decode()
            for place, documents in self.documents.items()
            for document in documents
        }


def render_all(
    library: Library,
    targets: Mapping[str, Iterable[str]],
    decisions: Iterable[tuple[Device, Decision]],
    site: str,
) -> Rendering:
    """Return what stands for these decisions under the site profile ``site``, without generation tags.

    ``targets`` are the kinds of document that each target takes (other words, such as ``path_gate``, are not for
    documents). The same arguments, in any order, give the same result. Raises ``DocumentRefused`` for a document
    that KubeArmor would not take or not enforce; whatever a trial of the library has let pass is not refused.
    """
    renderer = Renderer(library, targets)
    for device, decision in decisions:
        renderer.move(device, decision.profile)
    return renderer.render(site)


class Renderer:
    """Keeps in mind who has which profile, and renders anew what depends on what changed since the last time.

    ``library`` and ``targets`` as of ``render_all``, whose result for the same decisions is the same; a document
    that did not change is the same object. For one thread at a time.
    """

    def __init__(self, library: Library, targets: Mapping[str, Iterable[str]]) -> None:
        self._library = library
        self._targets = {target: frozenset(kinds) for target, kinds in sorted(targets.items())}
        self._members: dict[str, dict[DeviceId, Device]] = {
            name: {} for name, mine in library.devices.items() if mine
        }
        self._profiles: dict[DeviceId, str] = {}
        self._versions = dict.fromkeys(self._members, 0)
        self._made: _Made = {}
        self._judged: dict[int, Document] = {}

    @property
    def documented(self) -> frozenset[str]:
        """The profiles of devices that have documents: coming to or leaving another one changes none."""
        return frozenset(self._members)

    def networks(self, target: str) -> frozenset[str]:
        """The names of all network documents that may stand at a target at one time or another."""
        every = [*self._library.devices.values(), *self._library.site.values()]
        wanted = "network" in self._targets.get(target, ())
        return frozenset(name_of(each) for mine in every for each in mine if wanted and each.word == "network")

    def move(self, device: Device, profile: str) -> None:
        """A device has this profile now. At once, whatever the number of devices."""
        old = self._profiles.get(device.id)
        if old is not None and old != profile:
            del self._members[old][device.id]
            del self._profiles[device.id]
            self._versions[old] += 1
        members = self._members.get(profile)
        if members is not None and members.get(device.id) is not device:
            members[device.id] = device
            self._profiles[device.id] = profile
            self._versions[profile] += 1

    def render(self, site: str) -> Rendering:
        """Return what stands now under a site profile. Raises as ``render_all`` does; nothing is lost then."""
        documents: dict[TargetKind, tuple[Document, ...]] = {}
        collapses: list[Collapse] = []
        usages: dict[str, tuple[Usage, ...]] = {}
        made: _Made = {}
        judged: dict[int, Document] = {}
        having = {name: members.values() for name, members in self._members.items() if members}
        for target, wanted in self._targets.items():
            found: list[Piece] = []
            for template, devices in _standing(self._library, having, site):
                if template.word in wanted:
                    found += self._pieces(template, devices, site, target, made)
            chosen, gone = _fit(found, target)
            usages[target] = _check(chosen, target, self._judged)
            judged |= {id(document): document for _, document in chosen}
            collapses += gone
            for kind in sorted(wanted):
                mine = tuple(document for word, document in chosen if word == kind)
                if mine:
                    documents[TargetKind(target, kind)] = mine
        self._made, self._judged = made, judged
        return Rendering(documents, tuple(collapses), usages)

    def _pieces(
        self, template: Template, devices: Collection[Device], site: str, target: str, made: _Made
    ) -> tuple[Piece, ...]:
        """A template's documents: those of the last time, unless something changed that they depend on."""
        key = (target, id(template), site if "site.name" in template.used else "")
        version = self._versions[template.profile] if template.per_device else 0
        known = self._made.get(key)
        if known is None or known[0] != version:
            known = (version, tuple(pieces(template, devices, site, target)))
        made[key] = known
        return known[1]


_Made = dict[tuple[str, int, str], tuple[int, tuple[Piece, ...]]]


def _standing(
    library: Library, having: Mapping[str, Collection[Device]], site: str
) -> Iterator[tuple[Template, Collection[Device]]]:
    for template in library.site.get(site, ()):
        yield template, ()
    for profile in sorted(having):
        for template in library.devices[profile]:
            yield template, having[profile]


Chosen = list[tuple[str, Document]]


def _fit(made: Sequence[Piece], target: str) -> tuple[Chosen, list[Collapse]]:
    """Choose for each piece its full or its collapsed form, so that every table has room for all of its rules."""
    collapsed = {number for number, piece in enumerate(made) if piece.full is None}
    while True:
        chosen = [piece.wide if number in collapsed else piece.full for number, piece in enumerate(made)]
        numbers = {id(document.body): number for number, document in enumerate(chosen) if document is not None}
        overfull = _overfull([document for document in chosen if document is not None])
        if not overfull:
            break
        before = frozenset(collapsed)
        for subject in overfull:
            members = {numbers[id(spec)] for spec in subject.specs}
            if members & collapsed - before:
                continue  # one of its documents has just given way for another table: look again first
            can = [number for number in members - collapsed if made[number].wide is not None]
            if not can:
                raise _overflow(subject, target)
            collapsed.add(min(can, key=lambda number: _cost(made[number])))
    gone = [made[number].collapse(target) for number in sorted(collapsed)]
    named = _sorted([(piece.word, document) for piece, document in zip(made, chosen, strict=True)])
    return named, [Collapse(*each) for each in gone]


def _sorted(documents: Iterable[tuple[str, Document | None]]) -> Chosen:
    """In the order of their names, which is the one that KubeArmor has after a restart."""
    found = [(word, document) for word, document in documents if document is not None]
    return sorted(found, key=lambda each: each[1].name)


def _cost(piece: Piece) -> tuple[int, str]:
    """The largest comes first; its name settles ties."""
    assert piece.full is not None
    assert not isinstance(piece.full.body, NetworkSpec)
    return -count([piece.full.body]), piece.full.name


def limit_of(subject: Subject) -> int:
    """Entries that profiles may take of a container's or host's table."""
    return HOST_ENTRIES if isinstance(subject.specs[0], HostSpec) else TABLE_ENTRIES


def _overfull(documents: Sequence[Document]) -> list[Subject]:
    return [each for each in tables(documents) if count(each.specs) > limit_of(each)]


def _overflow(subject: Subject, target: str) -> ValueRefused:
    entries, limit = count(subject.specs), limit_of(subject)
    what = (
        f"target {target}: {subject.name}: {policies_take(len(subject.specs))} {entries} entries of its table,"
        f" {limit} are granted; deny parent directories instead of many paths, or drop rules"
    )
    return ValueRefused(subject.at, what)


def _check(chosen: Chosen, target: str, judged: Mapping[int, Document]) -> tuple[Usage, ...]:
    """Judge what was made as a whole; ``judged`` are documents, by identity, that were good by themselves before.

    Raises ``DocumentRefused`` for the first error, and for a rule that KubeArmor would take and not enforce.
    """
    notes, of_clusters = Notes(Mode.VM), Notes(Mode.K8S)
    for _, document in chosen:
        if judged.get(id(document)) is not document:
            judge_alone(document, of_clusters if isinstance(document, ClusterDocument) else notes)
    usages = check_together([document for _, document in chosen], notes)
    for each in (*notes.found, *of_clusters.found):
        if forbids(each):
            place = Place(each.file, each.line, each.column)
            raise ValueRefused(place, f"target {target}: {each.code}: {each.what}; {each.mend}")
    subjects = tables([document for _, document in chosen])
    _check_order(subjects)
    granted = {subject.name: limit_of(subject) for subject in subjects}
    return tuple(usage._replace(limit=granted[usage.subject]) for usage in usages)


# --- the trial ----------------------------------------------------------------------------------------------------


def try_library(
    library: Library, targets: Mapping[str, Iterable[str]], devices: Sequence[Device], most: int = 20
) -> tuple[DocumentRefused, ...]:
    """Return up to ``most`` refusals that some decisions for these devices could meet; none: there are none.

    Every value of every device is tried in every profile, and every site profile beside all device profiles at
    once, collapsed as far as they collapse: whatever stands later needs no more room than that.
    """
    refused: list[DocumentRefused] = []
    for template in (each for mine in library.devices.values() for each in mine if each.per_device):
        for refusal in _values(template, devices):
            refused.append(refusal)
            if len(refused) >= most:
                return tuple(refused)
    if refused:
        return tuple(refused)
    for target, kinds in sorted(targets.items()):
        for site in sorted(library.site) or ("normal",):
            try:
                _try_together(library, target, frozenset(kinds), devices, site)
            except DocumentRefused as error:
                refused.append(error)
    return tuple(refused[:most])


def _try_together(
    library: Library, target: str, kinds: frozenset[str], devices: Sequence[Device], site: str
) -> None:
    """Everything collapsed, for all devices; and nothing collapsed, for one of them in all profiles at once."""
    for holders, collapsed in ((devices, True), (devices[:1], False)):
        having = {profile: holders for profile, mine in library.devices.items() if mine}
        made = [
            piece
            for template, mine in _standing(library, having, site)
            if template.word in kinds
            for piece in pieces(template, mine, site, target)
        ]
        chosen = _sorted([(piece.word, (piece.wide if collapsed else None) or piece.full) for piece in made])
        for subject in _overfull([document for _, document in chosen]):
            raise _overflow(subject, target)
        _check(chosen, target, {})


def _values(template: Template, devices: Iterable[Device]) -> Iterator[DocumentRefused]:
    """Refusals of single devices' values. No target or site profile is in them: those come with the whole."""
    body = template.document.body
    if isinstance(body, NetworkSpec):
        return
    found = [slot for rule in path_rules(body) if depends(rule) for slot in slots(rule)]
    if template.grouped and isinstance(body, ContainerSpec) and body.selector is not None:
        found += slots(body.selector)
    alike, good = _alike(found), set[object]()
    for device in devices:
        if (like := alike(device)) in good:
            continue
        scope = Scope(template.declared, "normal", "target", device)
        try:
            for slot in found:
                slot.fill(scope)
        except DocumentRefused as error:
            yield error
        else:
            good.add(like)


#: Fields that take every character of a device's id: only its length can be wrong in them.
_ANY_ID = frozenset({Field.PATH, Field.DIRECTORY, Field.MESSAGE, Field.TAG})


def _alike(found: Sequence[Slot]) -> Callable[[Device], object]:
    """What two devices must have in common so that either both fit these texts or neither does."""
    names = {name for slot in found for name in names_in(slot.text) if of_device(name)}
    with_id = [slot for slot in found if "device.id" in names_in(slot.text)]
    if any(field_of(slot.element, slot.name, slot.label) not in _ANY_ID for slot in with_id):
        return lambda device: (device.id, device.labels)
    if names <= {"device.id"}:
        return lambda device: len(device.id)
    return lambda device: (len(device.id), device.labels)


# --- the stricter of two rules ------------------------------------------------------------------------------------


def _check_order(subjects: Iterable[Subject]) -> None:
    """Of two rules for one path the engine takes the later: it must not be the looser. Raises ``ValueRefused``."""
    for subject in subjects:
        standing: dict[tuple[str, str, str], Use] = {}
        for spec in subject.specs:
            for use in uses(spec):
                before = standing.setdefault(use.subject, use)
                if before.value != use.value and _looser(use.value, before.value):
                    space, name, _ = use.subject
                    what = f"this {space} rule for {name[:64]!r} would loosen the one at {before.at}"
                    mend = "the later policy wins: begin the name of the stricter one with a higher number"
                    raise ValueRefused(use.at, f"{what}; {mend}")
                standing[use.subject] = use


def _looser(new: tuple[object, ...], old: tuple[object, ...]) -> bool:
    """Whether ``new`` is not at least as strict as ``old`` in each respect: action, exceptions, depth."""
    action, read_only, owner_only, recursive, *rest = new
    was, had_read_only, had_owner_only, was_recursive, *others = old
    if was != "Block":
        return False
    exceptions = (read_only and not had_read_only) or (owner_only and not had_owner_only)
    return action != "Block" or bool(exceptions) or bool(was_recursive and not recursive) or rest != others
