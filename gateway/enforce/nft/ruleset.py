"""The static baseline as nft text: table, sets, default deny for the protected zone, corridor. Pure.

Who is judged: a packet to or from a gated service, or between a known device and a host that has one. Everything
else is left alone, but for a device's source that does not come from where the device is: that is dropped, whatever
it is for. Judging stands above any connection shortcut: each packet is looked up, so an established flow dies with
its admission. Order: source, corridor, tombstones, profiles, always-allowed clients, the host's own traffic,
drop. What must not live here: devices, elements of device sets, talking to the kernel.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.core.errors import ConfigError
from gateway.core.model import DENY, Address
from gateway.enforce.nft.chains import (
    FILLED_SET,
    FULL_PROFILE,
    HOOK_PRIORITY,
    PROTOCOLS,
    UNITS,
    ConnectionRate,
    Family,
    rate_set,
    render_chains,
)
from gateway.enforce.nft.sources import (
    FILLED_TEXT,
    SPOOFED_COUNTER,
    Anchor,
    complete,
    place_of,
    render_sources,
    source_sets,
    text_of,
)

TABLE = "ragate"
#: Raised when device sets or hooks change their shape, so that a standing table is not taken for this one.
STRUCTURE = 1
#: Room beside twice the inventory: one transaction of 1,000 changes adds before it deletes, and expired elements
#: count until they are collected.
SET_SLACK = 1_024
#: Connections of a rate: with more the kernel's count of nanoseconds could overflow within an hour's bucket.
MOST_CONNECTIONS = 1_000_000
#: Seconds that a bucket is kept longer than it takes to be full again.
BUCKET_SLACK = 1
#: The set whose comment carries the fingerprint; a table's own comment cannot be changed while it stands.
FINGERPRINT_SET = "baseline"

_PROFILE = re.compile(r"[a-z][a-z0-9_]{0,15}\Z")
#: Names that would collide with other sets of the table, or, with a family behind them, with nft's own words.
_RESERVED = frozenset(
    {DENY, "cut", "known", "always", "gated", "hosts", "corridor", "ip", "icmpv", "baseline", FILLED_SET}
)
_HEAD = f"inet {TABLE}"
#: Both families of addresses that devices and services have.
FAMILIES = (Family(4, "ip", "ipv4_addr", ("4",)), Family(6, "ip6", "ipv6_addr", ("6", "6n")))

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Endpoint(NamedTuple):
    """Where a service listens, as packets carry it after DNAT."""

    address: Address
    port: int
    protocol: str  # one of PROTOCOLS

    def __str__(self) -> str:
        return f"{self.protocol} {self.address} port {self.port}"


class GatedService(NamedTuple):
    """A service of the protected zone and the profiles that reach it."""

    endpoint: Endpoint
    profiles: frozenset[str]


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the static part of the path gate is made from.

    ``always_allowed`` are clients that are no devices; ``profiles`` those that have a set, ``admitted`` among
    them; ``inventory_size`` is the number of device addresses to have room for; ``rates`` bound how quickly a
    device of a profile opens connections; ``sources`` names the sets of anchors in use (``sets_in_use``).
    Raises ``ConfigError``.
    """

    services: tuple[GatedService, ...]
    corridor: tuple[Endpoint, ...] = ()
    always_allowed: tuple[Network, ...] = ()
    profiles: tuple[str, ...] = (FULL_PROFILE, "probation")
    inventory_size: int = 0
    rates: Mapping[str, ConnectionRate] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for profile in self.profiles:
            if not _PROFILE.match(profile) or profile in _RESERVED:
                raise _wrong(f"profile name {profile[:64]!r} cannot name a set", "use a-z, 0-9 and _")
        if FULL_PROFILE not in self.profiles or len(set(self.profiles)) != len(self.profiles):
            raise _wrong(f"profiles {', '.join(self.profiles)}", f"list {FULL_PROFILE} and each other once")
        for endpoint in (*(service.endpoint for service in self.services), *self.corridor):
            _check_endpoint(endpoint)
        for service in self.services:
            if not service.profiles <= set(self.profiles):
                extra = ", ".join(sorted(service.profiles - set(self.profiles)))
                raise _wrong(f"{service.endpoint} names the profile {extra}", "use one that the gate has")
            if service.endpoint in self.corridor:
                raise _wrong(f"{service.endpoint} is gated and in the corridor", "remove it from one of them")
        for profile, rate in self.rates.items():
            if (
                profile not in self.profiles
                or rate.seconds not in UNITS
                or not 1 <= rate.number <= MOST_CONNECTIONS
            ):
                mend = f"write 1 to {MOST_CONNECTIONS} a second, minute or hour, for a profile that the gate has"
                raise _wrong(f"rate {rate.number} in {rate.seconds} s of profile {profile[:64]!r}", mend)
        if self.inventory_size < 0:
            raise _wrong(f"inventory size {self.inventory_size}", "count the addresses")

    @property
    def set_size(self) -> int:
        """Declared size of device sets: at least 2 x inventory + 1,024, a power of two so that it rarely moves."""
        return 1 << (2 * self.inventory_size + SET_SLACK - 1).bit_length()

    @property
    def smallest_set_size(self) -> int:
        """The declared size that a standing table must have to be adopted."""
        return 2 * self.inventory_size + SET_SLACK


def _wrong(what: str, mend: str) -> ConfigError:
    return ConfigError("path gate baseline", what, mend)


def _check_endpoint(endpoint: Endpoint) -> None:
    if endpoint.address.prefix == 64:
        raise _wrong(f"{endpoint} is a prefix", "give the service's single address")
    if not 1 <= endpoint.port <= 65_535:
        raise _wrong(f"{endpoint} has no port of 1 to 65535", "give the port that the host listens on")
    if endpoint.protocol not in PROTOCOLS:
        raise _wrong(f"{endpoint} has an unknown protocol", f"use one of {', '.join(PROTOCOLS)}")


def device_sets(profiles: Sequence[str]) -> tuple[str, ...]:
    """Names of the sets whose elements come and go with devices."""
    suffixes = [suffix for family in FAMILIES for suffix in family.suffixes]
    return tuple(f"{name}{suffix}" for name in ("cut", *profiles, "known") for suffix in suffixes)


def rate_sets(baseline: Baseline) -> tuple[str, ...]:
    """Names of the sets of buckets. Their elements are the kernel's own and may be lost at any time."""
    suffixes = [suffix for family in FAMILIES for suffix in family.suffixes]
    return tuple(rate_set(profile, suffix) for profile in baseline.rates for suffix in suffixes)


class StaticSet(NamedTuple):
    """A set that only the baseline fills: what it declares, its elements as nft text and as packed keys.

    ``keys`` are what the kernel keeps: address, protocol and port each padded to four bytes; of an interval its
    first address and the one behind it. ``single`` is whether each of them is an element of its own.
    """

    declaration: str
    elements: tuple[str, ...]
    keys: tuple[bytes, ...]
    key_length: int
    single: bool = True


#: Protocol numbers of linux/in.h, as concatenated keys carry them.
_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}


def _endpoints(family: Family, endpoints: Sequence[Endpoint]) -> StaticSet:
    mine = sorted({endpoint for endpoint in endpoints if endpoint.address.family == family.number})
    return StaticSet(
        f"type {family.datatype} . inet_proto . inet_service",
        tuple(f"{e.address} . {e.protocol} . {e.port}" for e in mine),
        tuple(
            e.address.packed + bytes([_NUMBERS[e.protocol], 0, 0, 0]) + e.port.to_bytes(2, "big") + bytes(2)
            for e in mine
        ),
        family.bytes + 8,
    )


def _hosts(family: Family, services: Sequence[GatedService]) -> StaticSet:
    mine = sorted({s.endpoint.address for s in services if s.endpoint.address.family == family.number})
    return StaticSet(
        f"type {family.datatype}",
        tuple(str(host) for host in mine),
        tuple(host.packed for host in mine),
        family.bytes,
    )


def _always(family: Family, networks: Sequence[Network]) -> StaticSet:
    if family.number == 4:
        four = [net for net in networks if isinstance(net, ipaddress.IPv4Network)]
        mine: list[Network] = list(ipaddress.collapse_addresses(four))
    else:
        six = [net for net in networks if isinstance(net, ipaddress.IPv6Network)]
        mine = list(ipaddress.collapse_addresses(six))
    bounds = {bound for net in mine for bound in (int(net[0]), int(net[-1]) + 1)}
    # where one network ends and the next begins both bounds stand; behind the last address there is none
    keys = tuple(
        bound.to_bytes(family.bytes, "big") for bound in sorted(bounds) if bound >> (8 * family.bytes) == 0
    )
    return StaticSet(
        f"type {family.datatype}; flags interval", tuple(map(str, mine)), keys, family.bytes, single=False
    )


def static_sets(baseline: Baseline) -> dict[str, StaticSet]:
    """The sets that only the baseline fills, by name."""
    sets: dict[str, StaticSet] = {}
    for family in FAMILIES:
        number = family.number
        sets[f"gated{number}"] = _endpoints(family, [s.endpoint for s in baseline.services])
        sets[f"hosts{number}"] = _hosts(family, baseline.services)
        sets[f"corridor{number}"] = _endpoints(family, baseline.corridor)
        sets[f"always{number}"] = _always(family, baseline.always_allowed)
        for profile in baseline.profiles:
            mine = [s.endpoint for s in baseline.services if profile in s.profiles]
            sets[f"services_{profile}{number}"] = _endpoints(family, mine)
    return sets


def _device_declarations(baseline: Baseline, size: int) -> list[str]:
    lines = []
    for family in FAMILIES:
        for suffix in family.suffixes:
            plain = f"type {family.datatype}; size {size};"
            lines += [f"set {name}{suffix} {{ {plain} }}" for name in ("cut", "known")]
            timed = f"{plain} flags timeout; gc-interval 1s;"
            lines += [f"set {profile}{suffix} {{ {timed} }}" for profile in baseline.profiles]
            lines += [
                f"set {rate_set(profile, suffix)} {{ {plain} flags dynamic,timeout;"
                f" timeout {rate.seconds + BUCKET_SLACK}s; }}"
                for profile, rate in baseline.rates.items()
            ]
    if baseline.sources:
        declared = source_sets(FAMILIES, baseline.sources)
        lines += [f"set {name} {{ type {kind}; size {size}; }}" for name, (kind, _) in declared.items()]
        lines += [f"set {FILLED_SET} {{ type nf_proto; }}", f"counter {SPOOFED_COUNTER} {{ }}"]
    return lines


def chains(baseline: Baseline) -> dict[str, tuple[str, ...]]:
    """Rules by chain, base chains last; a base chain's first line is its hook."""
    checked = render_sources(FAMILIES, baseline.sources)
    return checked | render_chains(FAMILIES, baseline.profiles, baseline.rates, checked=bool(checked))


def fingerprint(baseline: Baseline) -> str:
    """What a standing table's mark must say to be this baseline: structure and sha256 of the static part."""
    digest = hashlib.sha256()
    for name, static in sorted(static_sets(baseline).items()):
        digest.update(f"{name} {static.declaration} {' '.join(static.elements)}\n".encode())
    for chain, rules in sorted(chains(baseline).items()):
        digest.update("\n".join((chain, *rules, "")).encode())
    return f"{TABLE}/{STRUCTURE} sha256={digest.hexdigest()}"


def render_static(baseline: Baseline, obsolete: Sequence[str] = (), size: int | None = None) -> str:
    """Text of one transaction that makes the static part this one, whatever part of it stands.

    Rules and static sets are emptied and filled anew, device sets keep their elements. ``obsolete`` are commands
    run once nothing refers to the old objects any more; ``size`` is what standing device sets declare.
    """
    sets = static_sets(baseline)
    lines = [f"add table {_HEAD}", f"flush table {_HEAD}", *obsolete, f"table {_HEAD} {{"]
    lines.append(f'\tset {FINGERPRINT_SET} {{ type mark; comment "{fingerprint(baseline)}"; }}')
    lines += [f"\t{line}" for line in _device_declarations(baseline, size or baseline.set_size)]
    lines += [f"\tset {name} {{ {static.declaration}; }}" for name, static in sets.items()]
    lines.append("}")
    lines += [f"flush set {_HEAD} {name}" for name in sets]
    lines += [
        f"add element {_HEAD} {name} {{ {', '.join(static.elements)} }}"
        for name, static in sets.items()
        if static.elements
    ]
    lines += [f"table {_HEAD} {{", *_chain_lines(chains(baseline)), "}", ""]
    return "\n".join(lines)


def _chain_lines(rules_of: Mapping[str, tuple[str, ...]]) -> list[str]:
    lines = []
    for chain, rules in rules_of.items():
        lines += [f"\tchain {chain} {{", *(f"\t\t{rule}" for rule in rules), "\t}"]
    return lines


def render_fresh(baseline: Baseline, tombstones: Mapping[str, Sequence[str]] | None = None) -> str:
    """Text of one transaction that replaces whatever stands by an empty, shut table.

    ``tombstones`` are elements to carry over, by set name.
    """
    carried = [
        f"add element {_HEAD} {name} {{ {', '.join(texts)} }}"
        for name, texts in (tombstones or {}).items()
        if texts
    ]
    return "\n".join((render_uninstall() + render_static(baseline) + "\n".join(carried), ""))


def render_shut(baseline: Baseline) -> str:
    """Text of one short transaction that replaces whatever stands and lets nobody reach a gated service.

    Five times quicker to read than the whole, and to be followed by it at once: without a corridor.
    """
    gated = {name: static for name, static in static_sets(baseline).items() if name.startswith("gated")}
    sets = [
        f"set {name} {{ {static.declaration}; elements = {{ {', '.join(static.elements)} }}; }}"
        for name, static in gated.items()
        if static.elements
    ]
    drops = [
        f"{family.tuple(end, 'gated')} drop"
        for family in FAMILIES
        if gated[f"gated{family.number}"].elements
        for end in ("daddr", "saddr")
    ]
    hooks = (("arrive", "prerouting"), ("leave", "output"))
    for chain, hook in hooks:
        rules = (f"type filter hook {hook} priority {HOOK_PRIORITY}; policy accept;", *drops)
        sets += _chain_lines({chain: rules})
    return "\n".join((render_uninstall() + f"table {_HEAD} {{", *sets, "}", ""))


def render_filled() -> str:
    """Text that says that known addresses and their anchors all stand: from here on admissions count."""
    return f"add element {_HEAD} {FILLED_SET} {{ {FILLED_TEXT} }}\n"


def render_baseline_file(baseline: Baseline, known: Sequence[Address] = (), anchors: Sequence[Anchor] = ()) -> str:
    """Text for loading before the network is up (``nft -f FILE``): shut, device sets empty.

    Loading it beside a running gateway changes nothing that stands in device sets. ``known`` are the
    inventory's addresses, so that devices are told from other hosts from the first packet on, and ``anchors``
    say where they may come from.
    """
    lines = ["#!/usr/sbin/nft -f", "", render_static(baseline)]
    for suffix, prefix in (("4", 32), ("6", 128), ("6n", 64)):
        texts = [str(ipaddress.ip_address(a.packed)) for a in known if a.prefix == prefix]
        if texts:
            lines.append(f"add element {_HEAD} known{suffix} {{ {', '.join(texts)} }}")
    if not baseline.sources:
        return "\n".join((*lines, ""))
    places: dict[str, list[str]] = {name: [] for name in baseline.sources}
    for anchor in complete(known, anchors):
        places.get(place_of(anchor)[0], []).append(text_of(anchor))
    lines += [f"add element {_HEAD} {name} {{ {', '.join(texts)} }}" for name, texts in places.items() if texts]
    return "\n".join((*lines, render_filled()))


def render_uninstall() -> str:
    """Text that leaves nothing of the path gate, whether it stands or not."""
    return f"add table {_HEAD}\ndelete table {_HEAD}\n"
