"""Where a device's packets may come from: the anchors of its addresses, as sets, keys and rules. Pure.

Every known address stands in exactly one kind of set, and a packet that arrives with a known source passes only if
one of them holds it: what is missing is shut. One element a device and address, never a rule. Interfaces go by name
and not by number: the baseline is loaded before they exist, and one that is made anew keeps its name.

What must not live here: devices, the inventory's words for anchors, talking to the kernel.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gateway.core.model import Address
from gateway.enforce.nft.chains import Family

#: Bytes of an interface's name, the closing zero among them (linux/if.h: IFNAMSIZ).
NAME_BYTES = 16
MAC_BYTES = 6
#: The elements of the set that says that all others are complete: NFPROTO_IPV4, NFPROTO_IPV6 (linux/netfilter.h).
FILLED_KEYS = (bytes([2]), bytes([10]))
FILLED_TEXT = "ipv4, ipv6"
#: Counts the packets dropped for their source.
SPOOFED_COUNTER = "spoofed"


class Anchor(NamedTuple):
    """What must be true of a packet that carries a device's address as its source.

    ``interface``: the one it arrives by ("": any); ``mac``: its link's source address, six bytes (b"": any; needs
    an interface); ``routed_back``: the route to that address leads out by the interface it arrived on.
    """

    address: Address
    interface: str = ""
    mac: bytes = b""
    routed_back: bool = False


class Kind(NamedTuple):
    """One kind of anchor. ``parts``: what precedes the address in a key; ``routed_back``: the route back is asked
    for beside the look-up."""

    name: str
    parts: tuple[str, ...]
    routed_back: bool = False


_NAME, _MAC = "iifname", "ether saddr"
_TYPES = {_NAME: "ifname", _MAC: "ether_addr"}
_BYTES = {_NAME: NAME_BYTES, _MAC: 8}  # in a key each part is padded to whole registers of four
#: In the order of looking: what most sites have comes first.
LOOSE, BOUND, OWN, BACK, SEAT = KINDS = (
    Kind("loose", ()),
    Kind("bound", (_NAME, _MAC)),
    Kind("own", (_NAME,), routed_back=True),
    Kind("back", (), routed_back=True),
    Kind("seat", (_NAME,)),
)


def kind_of(anchor: Anchor) -> Kind:
    """The kind of sets an anchor stands in."""
    if anchor.mac:
        return BOUND
    if anchor.routed_back:
        return OWN if anchor.interface else BACK
    return SEAT if anchor.interface else LOOSE


def set_name(kind: Kind, suffix: str) -> str:
    """Name of one set of sources; a dot, so that no profile's own set has it."""
    return f"from.{kind.name}{suffix}"


def source_sets(families: Sequence[Family], names: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Datatype and key length of each of these sets of sources, by name."""
    return {
        name: (
            " . ".join((*(_TYPES[part] for part in kind.parts), family.datatype)),
            sum(_BYTES[part] for part in kind.parts) + family.bytes,
        )
        for family in families
        for suffix in family.suffixes
        for kind in KINDS
        if (name := set_name(kind, suffix)) in names
    }


_SUFFIX = {32: "4", 128: "6", 64: "6n"}


def place_of(anchor: Anchor) -> tuple[str, bytes]:
    """The set that an anchor stands in, and its key there."""
    kind = kind_of(anchor)
    key = b""
    if _NAME in kind.parts:
        key += anchor.interface.encode("ascii").ljust(NAME_BYTES, b"\0")
    if _MAC in kind.parts:
        key += anchor.mac + b"\0\0"
    return set_name(kind, _SUFFIX[anchor.address.prefix]), key + anchor.address.packed


def text_of(anchor: Anchor) -> str:
    """An anchor as an element in nft text."""
    kind = kind_of(anchor)
    parts = [f'"{anchor.interface}"'] if _NAME in kind.parts else []
    parts += [anchor.mac.hex(":")] if _MAC in kind.parts else []
    return " . ".join((*parts, str(ipaddress.ip_address(anchor.address.packed))))


def complete(known: Sequence[Address], anchors: Iterable[Anchor]) -> tuple[Anchor, ...]:
    """One or more anchors for each known address: those given, and for the rest one that asks for nothing.

    An anchor of an address that is not known is left out: nothing would ask for it.
    """
    wanted = set(known)
    given = [anchor for anchor in anchors if anchor.address in wanted]
    strict = {anchor.address for anchor in given if kind_of(anchor) is not LOOSE}
    kept = [anchor for anchor in given if anchor.address in strict and kind_of(anchor) is not LOOSE]
    return tuple(dict.fromkeys((*kept, *(Anchor(address) for address in known if address not in strict))))


def sets_in_use(known: Sequence[Address], anchors: Sequence[Anchor]) -> tuple[str, ...]:
    """Names of the sets that these addresses stand in; none for a kind of address that nothing is asked of."""
    every = complete(known, anchors)
    asked = {anchor.address.prefix for anchor in every if kind_of(anchor) is not LOOSE}
    return tuple(sorted({place_of(anchor)[0] for anchor in every if anchor.address.prefix in asked}))


def placed(anchors: Iterable[Anchor], names: Sequence[str]) -> Mapping[str, list[bytes]]:
    """The keys of anchors by the set that they stand in, for these sets."""
    sets: dict[str, list[bytes]] = {name: [] for name in names}
    for anchor in anchors:
        name, key = place_of(anchor)
        if name in sets:
            sets[name].append(key)
    return sets


def render_sources(families: Sequence[Family], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The chains that look at the source of what arrives, by name; callers come behind those they jump to."""
    if not names:
        return {}
    rules: dict[str, tuple[str, ...]] = {"spoofed": (f'counter name "{SPOOFED_COUNTER}" drop',)}
    for family in families:
        rules[f"source{family.number}"] = _source(family, names)
    return rules


def _source(family: Family, names: Sequence[str]) -> tuple[str, ...]:
    rules = [f"{family.stranger('saddr')} return"]
    for suffix in family.suffixes:
        whole = suffix == str(family.number)
        address = f"{family.word} saddr" if whole else f"{family.word} saddr & {family.net_mask}"
        used = [kind for kind in KINDS if set_name(kind, suffix) in names]
        rules += [_holds(kind, address, suffix) for kind in used]
        # An address that is some device's own is not another's because it lies in that one's prefix.
        rules.append(f"{address} @known{suffix} {'goto spoofed' if used else 'return'}")
    return tuple(rules)


def _holds(kind: Kind, address: str, suffix: str) -> str:
    back = " fib saddr . iif oif exists" if kind.routed_back else ""
    return f"{' . '.join((*kind.parts, address))} @{set_name(kind, suffix)}{back} return"
