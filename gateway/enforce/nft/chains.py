"""The rules of the path gate as nft text, family by family. Pure.

Names: ``sort`` finds out whether a packet is judged and which end is the client; ``toward`` judges packets from a
client to a protected host, ``back`` those of the other direction; ``arrive`` and ``leave`` are the hooks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: The set that says that the sets of known devices are complete; while it is empty nobody is let through.
FILLED_SET = "filled"
#: The profile whose devices may also answer flows that a protected host opened.
FULL_PROFILE = "admitted"
PROTOCOLS = ("tcp", "udp", "sctp")
#: Just behind DNAT (linux/netfilter_ipv4.h: NF_IP_PRI_NAT_DST is -100, in prerouting and output alike).
HOOK_PRIORITY = -99

_DISCOVERY = "nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert"
_ERRORS6 = "destination-unreachable, packet-too-big, time-exceeded, parameter-problem"
_NET64 = "ffff:ffff:ffff:ffff::"


class Family(NamedTuple):
    """One address family: number, nft protocol word, set datatype, suffixes of its device sets.

    ``6n`` holds /64 keys, matched by the first half of an address.
    """

    number: int
    word: str
    datatype: str
    suffixes: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Bytes of an address."""
        return 4 if self.number == 4 else 16

    @property
    def net_mask(self) -> str:
        """What cuts an address down to its /64, where this family has such keys."""
        return _NET64

    def member(self, end: str, name: str) -> list[str]:
        """Matches, one of which holds when the address at ``end`` (saddr, daddr) is in the device set."""
        plain = f"{self.word} {end} @{name}{self.number}"
        if "6n" not in self.suffixes:
            return [plain]
        return [plain, f"{self.word} {end} & {_NET64} @{name}6n"]

    def stranger(self, end: str) -> str:
        """A match that holds when the address at ``end`` is no device's."""
        plain = f"{self.word} {end} != @known{self.number}"
        return plain if "6n" not in self.suffixes else f"{plain} {self.word} {end} & {_NET64} != @known6n"

    def tuple(self, end: str, name: str) -> str:
        """A match on address, protocol and port at ``end``."""
        port = "dport" if end == "daddr" else "sport"
        return f"{self.word} {end} . meta l4proto . th {port} @{name}{self.number}"

    def published(self, name: str) -> list[str]:
        """Matches, one of which holds when the client of a translated flow asked for what the set holds.

        Connection tracking tells the port only where the protocol was asked for before.
        """
        asked = f"ct original {self.word} daddr . meta l4proto . ct original proto-dst @{name}{self.number}"
        return [f"meta l4proto {protocol} {asked}" for protocol in PROTOCOLS]

    def host(self, end: str) -> str:
        """A match on hosts that have a gated service."""
        return f"{self.word} {end} @hosts{self.number}"


class ConnectionRate(NamedTuple):
    """At most so many new connections of one device: a bucket of ``number``, filled by as many in ``seconds``.

    A bucket is full at first and again after ``seconds`` of quiet. What is not part of a tracked connection counts,
    so of a UDP flow without answers every packet does.
    """

    number: int
    seconds: int  # one of UNITS

    @property
    def limit(self) -> str:
        """The nft expression that holds when the bucket is empty."""
        return f"limit rate over {self.number}/{UNITS[self.seconds]} burst {self.number} packets"


#: Units that nft has for a rate, by their seconds.
UNITS: Mapping[int, str] = {1: "second", 60: "minute", 3_600: "hour"}


def rate_set(profile: str, suffix: str) -> str:
    """Name of the set of buckets of one profile; a dot, so that no profile's own set has it."""
    return f"rate.{profile}{suffix}"


def render_chains(
    families: Sequence[Family], profiles: Sequence[str], rates: Mapping[str, ConnectionRate], *, checked: bool
) -> dict[str, tuple[str, ...]]:
    """Rules by chain; chains come before those that jump to them; a base chain's first line is its hook.

    ``checked``: chains ``source4`` and ``source6`` look at where a device's packets come from.
    """
    rules: dict[str, tuple[str, ...]] = {"refuse": ("counter drop",)}
    for family in families:
        number = family.number
        rules[f"exempt{number}"] = _exempt(family)
        rules[f"sever{number}"] = _sever(family)
        rules[f"translated_toward{number}"] = _translated(family, profiles, "saddr", rates)
        rules[f"translated_back{number}"] = _translated(family, profiles, "daddr", {})
        rules[f"toward{number}"] = _judge(family, profiles, "saddr", "daddr", rates, checked=checked)
        rules[f"back{number}"] = _judge(family, profiles, "daddr", "saddr", {}, checked=checked)
        for hook, own_toward, own_back in _TAILS:
            for direction, own in (("toward", own_toward), ("back", own_back)):
                rules[f"{hook}_{direction}{number}"] = (f"jump {direction}{number}", *own)
            rules[f"{hook}_published{number}"] = _published(family, hook)
            rules[f"{hook}_sort{number}"] = _sort(family, hook)
    dispatch = "meta nfproto vmap {{ ipv4 : goto {0}_sort4, ipv6 : goto {0}_sort6 }}"
    rules["arrive"] = (
        f"type filter hook prerouting priority {HOOK_PRIORITY}; policy accept;",
        'iif "lo" accept',  # this host sent it: it was judged when it left
        *(["meta nfproto vmap { ipv4 : jump source4, ipv6 : jump source6 }"] if checked else []),
        dispatch.format("arrive"),
    )
    rules["leave"] = (
        f"type filter hook output priority {HOOK_PRIORITY}; policy accept;",
        dispatch.format("leave"),
    )
    return rules


# Behind judging, when no device is the client: what this host's own programs ask of a service is theirs to ask, and
# the answers come in; answers of a local service go to local clients only.
_TAILS = (
    ("arrive", ("goto refuse",), ("fib daddr type local ct direction reply accept", "goto refuse")),
    ("leave", ("accept",), ("fib daddr type local accept", "goto refuse")),
)


def _sort(family: Family, hook: str) -> tuple[str, ...]:
    toward, back = (f"goto {hook}_{direction}{family.number}" for direction in ("toward", "back"))
    rules = [f"{family.tuple('daddr', 'gated')} {toward}", f"{family.tuple('saddr', 'gated')} {back}"]
    rules += [f"{family.host('daddr')} {match} {toward}" for match in family.member("saddr", "known")]
    rules += [f"{family.host('saddr')} {match} {back}" for match in family.member("daddr", "known")]
    # Fragments come reassembled (connection tracking does that) unless somebody switched tracking off before it.
    # Ports cannot be read then: judged by the host alone.
    later = "ip frag-off & 0x1fff != 0" if family.number == 4 else "frag frag-off != 0"
    rules += [f"{later} {family.host('daddr')} {toward}", f"{later} {family.host('saddr')} {back}"]
    # A source route hides where the packet ends: from a device it counts as one to a protected host.
    routed = ("ip option lsrr exists", "ip option ssrr exists") if family.number == 4 else ("rt seg-left != 0",)
    rules += [f"{route} {match} {toward}" for route in routed for match in family.member("saddr", "known")]
    return (*rules, f"ct status dnat goto {hook}_published{family.number}")


def _published(family: Family, hook: str) -> tuple[str, ...]:
    """What was translated on its way in, by what its client asked for: a published port is gated, too."""
    directions = (("original", "toward"), ("reply", "back"))
    return tuple(
        f"ct direction {which} {match} goto {hook}_{direction}{family.number}"
        for which, direction in directions
        for match in family.published("gated")
    )


def _exempt(family: Family) -> tuple[str, ...]:
    """The corridor: attestation endpoints with known devices, DHCP, ND and RA, related ICMP errors."""
    ends = (("daddr", "saddr"), ("saddr", "daddr"))
    rules = [
        f"{family.tuple(endpoint, 'corridor')} {match} accept"
        for endpoint, device in ends
        for match in family.member(device, "known")
    ]
    if family.number == 4:
        rules += [
            "udp sport . udp dport { 67 . 67, 67 . 68, 68 . 67 } accept",
            "ct state related icmp type { destination-unreachable, time-exceeded, parameter-problem } accept",
        ]
    else:
        rules += [
            "udp sport . udp dport { 546 . 547, 547 . 546, 547 . 547 } accept",
            # 255: sent on this link (RFC 4861, section 7.1)
            f"ip6 hoplimit 255 icmpv6 type {{ {_DISCOVERY} }} accept",
            f"ct state related icmpv6 type {{ {_ERRORS6} }} accept",
        ]
    return tuple(rules)


def _sever(family: Family) -> tuple[str, ...]:
    return tuple(f"{match} counter drop" for end in ("saddr", "daddr") for match in family.member(end, "cut"))


def _judge(
    family: Family,
    profiles: Sequence[str],
    client: str,
    server: str,
    rates: Mapping[str, ConnectionRate],
    *,
    checked: bool,
) -> tuple[str, ...]:
    """Judge one packet whose client's address is at ``client``; returns to the caller for a stranger."""
    number = family.number
    rules = [f"jump exempt{number}", f"jump sever{number}"]
    if checked:
        rules.append(f"meta nfproto != @{FILLED_SET} goto refuse")
    rules += [rule for profile, rate in rates.items() for rule in _slowed(family, profile, rate, client, server)]
    rules += [
        f"{match} {family.tuple(server, f'services_{profile}')} accept"
        for profile in profiles
        for match in family.member(client, profile)
    ]
    rules.append(f"ct status dnat jump translated_{'toward' if client == 'saddr' else 'back'}{number}")
    rules += _answers(family, client, server)
    rules += [f"{match} goto refuse" for match in family.member(client, "known")]
    rules.append(f"{family.word} {client} @always{number} accept")
    return tuple(rules)


def _slowed(family: Family, profile: str, rate: ConnectionRate, client: str, server: str) -> list[str]:
    """What a profile's device opens beyond its rate. A device with a /64 has one bucket for all its addresses."""
    return _beyond(family, profile, rate, client, family.tuple(server, f"services_{profile}"))


def _beyond(family: Family, profile: str, rate: ConnectionRate, client: str, services: str) -> list[str]:
    address = f"{family.word} {client}"
    keys = [address, f"{address} & {_NET64}"]
    return [
        f"{match} {services} ct state new,invalid,untracked"
        f" update @{rate_set(profile, suffix)} {{ {key} {rate.limit} }} goto refuse"
        for match, suffix, key in zip(family.member(client, profile), family.suffixes, keys, strict=False)
    ]


def _translated(
    family: Family, profiles: Sequence[str], client: str, rates: Mapping[str, ConnectionRate]
) -> tuple[str, ...]:
    """Accept what a profile's device asked for by the name that is published, within the profile's rate."""
    rules = [
        rule
        for profile, rate in rates.items()
        for asked in family.published(f"services_{profile}")
        for rule in _beyond(family, profile, rate, client, asked)
    ]
    rules += [
        f"{match} {asked} accept"
        for profile in profiles
        for match in family.member(client, profile)
        for asked in family.published(f"services_{profile}")
    ]
    return tuple(rules)


def _answers(family: Family, client: str, server: str) -> list[str]:
    """What belongs to a flow that the protected host opened to a fully admitted device."""
    host = f"{family.host(server)} {family.stranger(server)}"
    members = family.member(client, FULL_PROFILE)
    if server == "daddr":
        return [f"{match} {host} ct direction reply accept" for match in members]
    # Tracking may take up a flow in its middle and then takes the first sender for its opener: a TCP flow counts
    # as opened by the host only if it began with a bare SYN.
    rules = [
        f"{match} {host} ct direction original ct state new tcp flags & (fin | syn | rst | ack) != syn goto refuse"
        for match in members
    ]
    return rules + [f"{match} {host} ct direction original accept" for match in members]
