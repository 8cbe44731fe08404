"""The checks that a book must pass by itself and against an inventory.

What lives here: findings. What must not: places in files, other configuration.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, NamedTuple

from gateway.core.model import DENY, Address, Device
from gateway.core.policy.book import ADMITTED, Book, CorridorEntry, Service

Severity = Literal["error", "warning"]


class Finding(NamedTuple):
    """Something about a book that an operator should mend; an ``error`` keeps the book from being used."""

    severity: Severity
    subject: str
    what: str
    mend: str


def check(book: Book) -> tuple[Finding, ...]:
    """Return what is wrong with a book by itself, errors and warnings in the book's order."""
    found: list[Finding] = []
    found += _duplicates("service", book.services)
    found += _duplicates("corridor entry", book.corridor)
    gated = {(service.address, service.port, service.protocol): service.name for service in book.services}
    for service in book.services:
        if ADMITTED not in service.profiles:
            what = "probation reaches it and admitted does not: a lower profile would reach more"
            found.append(Finding("error", f"service {service.name}", what, "list admitted too"))
    for entry in book.corridor:
        opened = gated.get((entry.address, entry.port, entry.protocol))
        if opened is not None:
            what = f"it opens the gated service {opened} to every known device, whatever its standing"
            found.append(Finding("error", f"corridor entry {entry.name}", what, "remove it from the corridor"))
    for network in book.always_allowed:
        if network.prefixlen == 0:
            what = "it allows every client, devices too: nothing would be gated"
            found.append(Finding("error", f"always_allowed {network}", what, "name the clients' own prefixes"))
    if not book.services:
        found.append(Finding("warning", "services", "the book protects no service", "list the gated services"))
    elif book.node_default == DENY and all(profile == DENY for profile in book.devices.values()):
        what = "no device reaches anything, trusted or not"
        found.append(Finding("warning", "node_default", what, "set it to admitted, or list devices"))
    return tuple(found)


def check_against(book: Book, devices: Iterable[Device]) -> tuple[Finding, ...]:
    """Return where a book and an inventory contradict each other: gates that open or lock out by themselves."""
    endpoints = {entry.address.packed: f"corridor entry {entry.name}" for entry in book.corridor}
    endpoints |= {service.address.packed: f"service {service.name}" for service in book.services}
    allowed = tuple((network, _span(network)) for network in book.always_allowed)
    nets = {packed[:8]: packed for packed in endpoints if len(packed) == 16}
    found: list[Finding] = []
    unlisted = dict(book.devices)
    for device in devices:
        unlisted.pop(device.id, None)
        for address in device.binding.addresses:
            packed = address.packed if address.prefix != 64 else nets.get(address.packed[:8], b"")
            if packed in endpoints:
                what = f"its address {address} is that of {endpoints[packed]}: cutting one would cut the other"
                found.append(Finding("error", f"device {device.id}", what, "give each an address of its own"))
            if allowed:
                found += _bypasses(device, address, allowed)
    for name in unlisted:
        what = "the book gives it a profile, but the inventory does not list it"
        found.append(Finding("error", f"device {name}", what, "correct the name, or remove it from the book"))
    return tuple(found)


def _bypasses(
    device: Device,
    address: Address,
    allowed: tuple[tuple[IPv4Network | IPv6Network, tuple[int, int, int]], ...],
) -> Iterable[Finding]:
    first = int.from_bytes(address.packed)
    last = first | ((1 << 64) - 1) if address.prefix == 64 else first
    for network, (size, low, high) in allowed:
        if len(address.packed) == size and low <= last and first <= high:
            what = f"its address {address} lies in always_allowed {network}: it would never be gated"
            yield Finding("error", f"device {device.id}", what, "narrow the prefix, or move the device out of it")


def _span(network: IPv4Network | IPv6Network) -> tuple[int, int, int]:
    """Address length in bytes, lowest and highest address of a network."""
    return len(network.network_address.packed), int(network.network_address), int(network.broadcast_address)


def _duplicates(kind: str, entries: Iterable[Service | CorridorEntry]) -> Iterable[Finding]:
    names: set[str] = set()
    places: dict[tuple[object, int, str], str] = {}
    for entry in entries:
        if entry.name in names:
            yield Finding(
                "error", f"{kind} {entry.name}", "the name is listed twice", "give each a name of its own"
            )
        names.add(entry.name)
        place = (entry.address, entry.port, entry.protocol)
        first = places.setdefault(place, entry.name)
        if first != entry.name:
            what = f"{entry.address} port {entry.port}/{entry.protocol} is listed already as {first}"
            yield Finding("error", f"{kind} {entry.name}", what, "keep one of the two")
