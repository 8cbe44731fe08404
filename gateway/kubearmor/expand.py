"""One template for the devices that have its profile: its documents, and what each gives way to when too large.

What must not live here: choosing between the two, the other documents of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gateway.core.model import Device
from gateway.kubearmor.codes import quoted
from gateway.kubearmor.documents import (
    ContainerDocument,
    ContainerSpec,
    Document,
    EgressEntry,
    Entry,
    HostDocument,
    HostSpec,
    IngressEntry,
    NetworkDocument,
    Peer,
    Peers,
    Selector,
)
from gateway.kubearmor.elements import Element
from gateway.kubearmor.fields import (
    DEVICE_ADDRESS,
    PathRule,
    ValueRefused,
    depends,
    fill,
    names_in,
    path_of,
    slots,
    widened,
)
from gateway.kubearmor.names import document_name
from gateway.kubearmor.parameters import Scope, of_device
from gateway.kubearmor.prefixes import Prefix, both_families, of_addresses
from gateway.kubearmor.rules import FileDirectory, Files, ProcessDirectory, Processes
from gateway.kubearmor.template import VITAL, Template
from gateway.kubearmor.vocabulary import TABLE_ENTRIES

#: Documents of one template: the outer map of the engine has 256 containers with policies (interface 5).
MAX_GROUPS = 256
#: Tags of every document of a profile, by which it is known again; the profile's name follows the second.
OURS, PROFILE = "RAGATE", "PROFILE="
#: Tag of a document that denies a parent directory for devices that do not fit.
COLLAPSED = "COLLAPSED"

E = TypeVar("E", bound=Element)
S = TypeVar("S", bound=ContainerSpec | HostSpec)
R = TypeVar("R", bound=PathRule)


@dataclass(frozen=True, slots=True)
class Piece:
    """A document of a template. ``full``: with a rule for each device; None when that is sure not to fit.
    ``wide``: with the parent directories instead; None when nothing in it is repeated."""

    template: Template
    devices: int
    full: Document | None
    wide: Document | None
    directories: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """Its kind, as names have it."""
        return self.template.word

    def collapse(self, target: str) -> tuple[str, str, str, int, tuple[str, ...]]:
        """What stands instead: target, profile, name, devices, directories."""
        assert self.wide is not None
        return target, self.template.profile, self.wide.name, self.devices, self.directories


def name_of(template: Template) -> str:
    """Return the name of a template's document; of one that is made for several containers, none of theirs."""
    identity = f"{template.profile}/{template.document.name}"
    return document_name(template.order, template.word, template.slug, identity)


def pieces(template: Template, devices: Collection[Device], site: str, target: str) -> Iterator[Piece]:
    """Return a template's documents at one target. Raises ``DocumentRefused`` for a value that does not fit.

    The order of the devices changes nothing.
    """
    scope = Scope(template.declared, site, target)
    document = template.document
    if isinstance(document, NetworkDocument):
        yield Piece(template, len(devices), _finish(_network(document, devices, scope), template, ""), None)
        return
    groups: dict[Selector | None, list[Device]] = {None: list(devices)}
    if template.grouped:
        assert isinstance(document, ContainerDocument)
        groups = _groups(document, devices, scope)
    for selector, members in groups.items():
        chosen = document
        if selector is not None and isinstance(document, ContainerDocument):
            chosen = replace(document, spec=replace(document.spec, selector=selector))
        assert isinstance(chosen, (ContainerDocument, HostDocument))
        yield _repeated(template, chosen, members, scope, "" if selector is None else repr(selector.labels))


def _groups(
    document: ContainerDocument, devices: Iterable[Device], scope: Scope
) -> dict[Selector | None, list[Device]]:
    """The devices by the containers that their labels select."""
    groups: dict[Selector | None, list[Device]] = {}
    by_values: dict[object, list[Device]] = {}
    assert document.spec.selector is not None
    values = _values_of(document.spec.selector)
    for device in devices:
        known = by_values.get(values(device))
        if known is not None:
            known.append(device)
            continue
        selector = fill(document.spec.selector, replace(scope, device=device))
        by_values[values(device)] = groups.setdefault(selector, [])
        groups[selector].append(device)
        if len(groups) > MAX_GROUPS:
            what = f"the devices' labels select more than {MAX_GROUPS} containers: KubeArmor keeps no more"
            raise ValueRefused(document.spec.selector.place("labels"), f"{what}; select by a coarser label")
    return groups


def _finish(document: Document, template: Template, group: str, *, wide: bool = False) -> Document:
    """Give a document its name and the tags by which alerts tell where it comes from."""
    owner, slug = ("site/", f"site-{template.slug}") if wide else ("", template.slug)
    identity = f"{owner}{template.profile}/{template.document.name}" + (f"/{group}" if group else "")
    name = document_name(template.order, template.word, slug, identity)
    body: Any = document.body
    tags = (*body.tags, OURS, f"{PROFILE}{template.profile}", *((COLLAPSED,) if wide else ()))
    body = _changed(body, tags=tuple(dict.fromkeys(tags)))
    return _changed(document, metadata=replace(document.metadata, name=name), spec=body)


# --- rules repeated for each device -------------------------------------------------------------------------------


class _TooMany(Exception):
    """More rules than a table has entries."""


def _repeated(
    template: Template,
    document: ContainerDocument | HostDocument,
    devices: Collection[Device],
    scope: Scope,
    group: str,
) -> Piece:
    body = document.spec
    number = len(devices)
    try:
        full = _finish(_changed(document, spec=_expanded(body, devices, scope)), template, group)
    except _TooMany:
        full = None
    if not any(depends(rule) for rule in path_rules(body)):
        assert full is not None
        return Piece(template, number, full, None)
    wide, directories = _widened(body, scope)
    return Piece(
        template, number, full, _finish(_changed(document, spec=wide), template, group, wide=True), directories
    )


def _changed(element: E, **fields: object) -> E:
    """``replace``, where the type checker cannot know which of several types it is."""
    one: Any = element
    made: E = replace(one, **fields)
    return made


def _sections(body: ContainerSpec | HostSpec) -> Iterator[tuple[str, Processes | Files]]:
    if body.process is not None:
        yield "process", body.process
    if body.file is not None:
        yield "file", body.file


def path_rules(body: ContainerSpec | HostSpec) -> Iterator[PathRule]:
    """The rules that may be repeated."""
    for _, section in _sections(body):
        yield from section.paths
        yield from section.directories


def _values_of(element: Element) -> Callable[[Device], object]:
    """What of a device decides how an element is filled in: for those alike it is filled in once."""
    names = {name for slot in slots(element) for name in names_in(slot.text) if of_device(name)}
    if names <= {"device.id"}:
        return lambda device: device.id
    return (lambda device: (device.id, device.labels)) if "device.id" in names else lambda device: device.labels


def _each_device(rule: R, devices: Iterable[Device], scope: Scope, most: int) -> list[R]:
    """A rule for each device, equal ones once, in an order that is not the devices'. Raises ``_TooMany`` for more
    than ``most``, and ``DocumentRefused`` for a value that does not fit."""
    made: set[R] = set()
    seen: set[object] = set()
    values = _values_of(rule)
    for device in devices:
        value = values(device)
        if value not in seen:
            seen.add(value)
            made.add(fill(rule, replace(scope, device=device)))
            if len(made) > most:
                raise _TooMany
    return sorted(made, key=lambda one: (path_of(one), one.message, one.tags))


def _expanded(body: S, devices: Collection[Device], scope: Scope) -> S:
    def rules(found: Iterable[PathRule]) -> Iterator[PathRule]:
        number = 0
        for rule in found:
            if depends(rule):
                made = _each_device(rule, devices, scope, TABLE_ENTRIES - number)
                number += len(made)
                yield from made
            else:
                number += 1
                yield rule

    sections: dict[str, Any] = {}
    for name, section in _sections(body):
        paths, directories = tuple(rules(section.paths)), tuple(rules(section.directories))
        sections[name] = _changed(section, paths=paths, directories=directories)
    return fill(_changed(body, **sections), scope)


def _widened(body: S, scope: Scope) -> tuple[S, tuple[str, ...]]:
    """The body with parent directories for the rules that depend on the device, behind the others."""
    sections: dict[str, Any] = {}
    denied: dict[str, None] = {}
    for name, section in _sections(body):
        wide: dict[tuple[object, ...], FileDirectory | ProcessDirectory] = {}
        for rule in (*section.paths, *section.directories):
            if depends(rule):
                one = fill(widened(rule), scope)
                _check_parent(one)
                denied[one.directory] = None
                before = wide.get((one.directory, one.sources))
                # What denies reading too is the stricter of two.
                if before is None or getattr(before, "read_only", False):
                    wide[one.directory, one.sources] = one
        sections[name] = _changed(
            section,
            paths=tuple(rule for rule in section.paths if not depends(rule)),
            directories=(*(rule for rule in section.directories if not depends(rule)), *wide.values()),
        )
    return fill(_changed(body, **sections), scope), tuple(denied)


def _check_parent(rule: FileDirectory | ProcessDirectory) -> None:
    if rule.directory in VITAL:
        what = f"with too many devices all of {quoted(rule.directory)} would be denied"
        mend = "put a directory of its own before the parameter, as /srv/feeds/${device.id}/"
        raise ValueRefused(rule.at, f"{what}; {mend}")


# --- addresses aggregated -----------------------------------------------------------------------------------------


def _network(document: NetworkDocument, devices: Collection[Device], scope: Scope) -> NetworkDocument:
    spec = document.spec
    prefixes: tuple[Prefix, ...] = ()
    if any(_is_device(peer) for _, entries in spec.directions() for entry in entries for peer in entry.peers):
        prefixes = of_addresses(address for device in devices for address in device.binding.addresses)
    ingress: tuple[IngressEntry, ...] = tuple(
        replace(entry, sources=_peers(entry, prefixes)) for entry in spec.ingress
    )
    egress: tuple[EgressEntry, ...] = tuple(
        replace(entry, destinations=_peers(entry, prefixes)) for entry in spec.egress
    )
    return replace(document, spec=fill(replace(spec, ingress=ingress, egress=egress), scope))


def _is_device(peer: Peer) -> bool:
    return peer.block is not None and peer.block.cidr == DEVICE_ADDRESS


def _peers(entry: Entry, prefixes: Sequence[Prefix]) -> tuple[Peer, ...]:
    """The entry's own prefixes and the devices', with the filler of a family that would else match everybody."""
    if not any(map(_is_device, entry.peers)):
        return entry.peers
    own = [peer for peer in entry.peers if not _is_device(peer)]
    known = [Prefix.parse(peer.block.cidr) for peer in own if peer.block is not None and peer.block.cidr]
    return Peers.of(both_families(dict.fromkeys((*known, *prefixes)) if known else prefixes))
