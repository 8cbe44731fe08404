"""The lock-out guard: a book must not cut those who could mend it, nor those without whom no device recovers.

What lives here: a change of books held against the links that must stay. What must not: finding the links out,
reading files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses
from typing import NamedTuple

from gateway.core.policy.book import Book, Network, Protocol, Service
from gateway.core.policy.check import Finding

Host = IPv4Address | IPv6Address


class Link(NamedTuple):
    """An endpoint of ours in words: ``console``, ``door``, ``agent link``. ``address`` None: all of this host."""

    name: str
    address: Host | None
    port: int
    protocol: Protocol = "tcp"

    def __str__(self) -> str:
        where = "every address of this host" if self.address is None else str(self.address)
        return f"the {self.name} at {where} port {self.port}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Links:
    """What no book may cut.

    ``management``  prefixes from which this site is administered: the book must always allow them.
    ``verifiers``   where the configured verifiers are: the corridor leads to them.
    ``ours``        what this host listens on or speaks to itself: console, operator, doors, agent link.
    ``host``        this host's own addresses, by which an endpoint without one is meant.
    """

    management: tuple[Network, ...] = ()
    verifiers: tuple[Network, ...] = ()
    ours: tuple[Link, ...] = ()
    host: frozenset[Host] = frozenset()


def check_lockout(old: Book | None, new: Book, links: Links) -> tuple[Finding, ...]:
    """Return each rule of ``new``, or missing in it, that would lock somebody out; every finding is an error.

    ``old`` is the book that runs; None at the first load, when only what ``links`` names can be lost.
    """
    return (*_management(old, new, links), *_corridor(old, new, links), *_ours(new, links))


def _management(old: Book | None, new: Book, links: Links) -> Iterator[Finding]:
    lost = None if old is None else _collapsed(old.always_allowed)
    allowed = _collapsed(new.always_allowed)
    for prefix in links.management:
        if _covered(prefix, allowed):
            continue
        had = " any more" if lost is not None and _covered(prefix, lost) else ""
        what = f"management from {prefix} is not in it{had}: who administers the site would reach no gated service"
        yield Finding("error", "always_allowed", what, f"add {prefix} to always_allowed")


def _corridor(old: Book | None, new: Book, links: Links) -> Iterator[Finding]:
    """Ways to a verifier that the old book had and the new one takes away, by leaving them out or by gating."""
    kept = {(entry.address, entry.port, entry.protocol) for entry in new.corridor}
    gated = {(service.address, service.port, service.protocol): service for service in new.services}
    for entry in () if old is None else old.corridor:
        place = (entry.address, entry.port, entry.protocol)
        if not _is_verifier(entry.address, links):
            continue
        named = f"the verifier's endpoint {entry.address} port {entry.port}/{entry.protocol}"
        if place in gated:
            what = f"it gates {named}: a device that failed once could never attest again"
            yield Finding(
                "error", f"service {gated[place].name}", what, f"put it back into the corridor as {entry.name}"
            )
        elif place not in kept:
            what = f"{entry.name} is gone, {named}: a device that failed once could never attest again"
            yield Finding("error", "corridor", what, f"put {entry.name} back")
    if old is None and not any(_is_verifier(entry.address, links) for entry in new.corridor):
        gates = [
            service
            for service in new.services
            if _is_verifier(service.address, links) and not service.address.is_loopback
        ]
        for service in gates:
            what = f"it is on the verifier's address {service.address}, to which the corridor has no way"
            yield Finding("error", f"service {service.name}", what, "list the verifier's endpoint under corridor")


def _ours(new: Book, links: Links) -> Iterator[Finding]:
    for service in new.services:
        for link in links.ours:
            if _is(service, link, links.host):
                what = f"it gates {link}: a cut would reach ourselves"
                yield Finding("error", f"service {service.name}", what, "remove it, or move one of the two")
                break


def _is(service: Service, link: Link, host: frozenset[Host]) -> bool:
    if (service.port, service.protocol) != (link.port, link.protocol):
        return False
    if link.address is None or link.address.is_unspecified:
        return service.address in host or service.address.is_loopback
    return service.address == link.address


def _is_verifier(address: Host, links: Links) -> bool:
    return any(address in prefix for prefix in links.verifiers)


def _collapsed(networks: tuple[Network, ...]) -> tuple[Network, ...]:
    """The same addresses in as few prefixes as can be: two halves cover a whole."""
    four = collapse_addresses(net for net in networks if isinstance(net, IPv4Network))
    six = collapse_addresses(net for net in networks if isinstance(net, IPv6Network))
    return (*four, *six)


def _covered(prefix: Network, networks: tuple[Network, ...]) -> bool:
    return any(
        prefix.version == each.version and each.supernet_of(prefix)  # type: ignore[arg-type]
        for each in networks
    )
