"""Judging what was seen of interfaces, routes, filters and flowtables: is there a way around the path gate?

Pure: observations in, findings out. What must not live here: sockets, time, doing anything about it.

The path gate judges packets where they pass this host's prerouting hook. They do not when they are switched inside
one link (no packet passes), when a flowtable has taken the flow over (packets skip every later hook from the
flowtable's ingress on: kernel documentation ``networking/nf_flowtable``), or when a program or filter at a device's
ingress sends them elsewhere first (XDP and traffic control both run before netfilter).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

MOST_NAMED = 3
"""Addresses that a finding names; the rest are counted."""


class Interface(NamedTuple):
    """One network interface. ``kind`` is the kernel's word for a virtual one (``bridge``, ``veth``), "" for others;
    ``xdp``: a program is attached; ``filters``: traffic control filters stand at its ingress."""

    number: int
    name: str
    kind: str = ""
    xdp: bool = False
    filters: bool = False


class Route(NamedTuple):
    """Where this host sends packets for an address: out of ``interface``, or (``local``) to itself."""

    interface: int
    local: bool


class Behind(NamedTuple):
    """Devices to which packets leave by one interface: the ``first`` few addresses, and how many in all."""

    first: tuple[str, ...]
    total: int


class Seen(NamedTuple):
    """One look. ``devices`` are those behind each interface; ``services`` gives each address its route, None where
    there is none."""

    interfaces: Mapping[int, Interface]
    devices: Mapping[int, Behind]
    services: Mapping[str, Route | None]
    flowtables: Sequence[str]


class Bypass(NamedTuple):
    """One way around the gate: what was found, and how to mend it."""

    what: str
    mend: str


def behind(routes: Iterable[tuple[str, Route | None]]) -> dict[int, Behind]:
    """Who is behind which interface. Addresses without a route, and this host's own, are behind none."""
    first: dict[int, list[str]] = {}
    counts: Counter[int] = Counter()
    for address, route in routes:
        if route is None or route.local:
            continue
        counts[route.interface] += 1
        if counts[route.interface] <= MOST_NAMED:
            first.setdefault(route.interface, []).append(address)
    return {interface: Behind(tuple(first[interface]), count) for interface, count in counts.items()}


def judge(seen: Seen) -> tuple[Bypass, ...]:
    """Every way around the gate that these observations show, the widest first."""
    return (*_shared(seen), *_taken_over(seen), *_flowtables(seen))


def _shared(seen: Seen) -> Iterable[Bypass]:
    """Links that devices and a gated service have in common: what passes there never comes by."""
    for service, route in seen.services.items():
        if route is None or route.local or route.interface not in seen.devices:
            continue
        interface = _named(seen, route.interface)
        link = f"the bridge {interface.name}" if interface.kind == "bridge" else f"the link of {interface.name}"
        yield Bypass(
            f"devices ({_some(seen.devices[route.interface])}) and the service at {service} share {link}: they "
            "reach each other without passing this host",
            "put devices and services on links of their own, with this host as the only router between them",
        )


def _taken_over(seen: Seen) -> Iterable[Bypass]:
    used = {route.interface for route in seen.services.values() if route is not None and not route.local}
    for index in sorted(used | seen.devices.keys()):
        interface = _named(seen, index)
        if interface.xdp:
            yield Bypass(
                f"an XDP program is attached to {interface.name}: it sees packets before the gate and may send "
                "them past it",
                f"remove it (ip link set dev {interface.name} xdp off), or move what it does behind the gate",
            )
        if interface.filters:
            yield Bypass(
                f"traffic control filters stand at the ingress of {interface.name}: they see packets before the "
                "gate and may send them past it",
                f"remove them (tc filter show dev {interface.name} ingress lists them)",
            )


def _flowtables(seen: Seen) -> Iterable[Bypass]:
    for name in seen.flowtables:
        yield Bypass(
            f"the flowtable {name} takes flows over: their packets pass no rule any more, ours included",
            "delete it and the rules that say 'flow add', or keep the gated services' flows out of it",
        )


def _named(seen: Seen, index: int) -> Interface:
    return seen.interfaces.get(index) or Interface(index, f"interface {index}")


def _some(devices: Behind) -> str:
    told = ", ".join(devices.first)
    more = devices.total - len(devices.first)
    return f"{told} and {more:,} more" if more > 0 else told
