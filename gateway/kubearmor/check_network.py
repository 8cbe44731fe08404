"""Rules about network policies, which KubeArmor renders into one nft script for the whole node (interface 4).

What must not live here: rules about several documents.
"""

from __future__ import annotations

import ipaddress
import re

from gateway.kubearmor.budget import effective
from gateway.kubearmor.check_select import check_containers, check_nodes
from gateway.kubearmor.codes import Notes, quoted
from gateway.kubearmor.documents import Entry, NetworkDocument, NetworkSpec, Peer, Peers, PortRange
from gateway.kubearmor.vocabulary import LEVELS, MAX_INTERFACE, PORT_NAMES, PORT_PROTOCOLS

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LIMIT = re.compile(r"[0-9]+(KB|MB|GB|K|M|G)?\Z")
#: What Go takes for a duration, without signs.
_DURATION = re.compile(r"([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_INTERFACE = re.compile(rf"[A-Za-z0-9_.:@*-]{{1,{MAX_INTERFACE}}}\Z")
_NUMBER = re.compile(r"[0-9]{1,5}\Z")
_EVERYBODY = {"0.0.0.0/0", "::/0"}


def check_network(document: NetworkDocument, notes: Notes) -> None:
    """Note what is wrong with a network policy."""
    spec = document.spec
    containers = spec.selector is not None and bool(spec.selector.labels or spec.selector.expressions)
    _check_selection(document, notes, containers=containers)
    if spec.level and spec.level not in LEVELS:
        notes.add("KA-LEVEL", spec.place("level"), f"level {quoted(spec.level)}", "write Pod or Policy")
    if spec.level and not containers:
        notes.add("KA-NET-LEVEL", spec.place("level"), "level is ignored in a host policy", "remove it")
    if spec.action.lower() == "allow" and not containers:
        mend = "write action: Block on the spec and action: Allow on the entries, a Block entry last"
        notes.add("KA-NET-LOCKOUT", spec.place("action"), "action: Allow is for the whole host", mend)
    for direction, entries in spec.directions():
        allowed = False
        for entry in entries:
            action = effective(entry, None, spec).lower()
            if not containers and not allowed and _blocks_all(entry, action):
                mend = "write an Allow entry for management before it, or name ports or interfaces"
                notes.add("KA-NET-BLOCK-ALL", entry.at, f"this cuts all {direction} of the host", mend)
            _check_entry(entry, direction, action, notes, containers=containers)
            allowed = allowed or action in {"allow", "audit"}


def _check_selection(document: NetworkDocument, notes: Notes, *, containers: bool) -> None:
    spec = document.spec
    if containers and spec.node_selector is not None:
        mend = "keep one; write two policies for both"
        notes.add("KA-CEL-SELECTOR", spec.place("selector"), "selector stands beside nodeSelector", mend)
    if containers:
        check_containers(document, spec.selector, notes)
        mend = "write nodeSelector, and use the path gate for containers"
        notes.add("KA-NET-POD-VM", spec.place("selector"), "no rule is made for containers here", mend)
    elif spec.node_selector is None:
        mend = "write nodeSelector: {matchLabels: {…}}"
        notes.add("KA-NODE-EMPTY", document.place("spec"), "nodeSelector is missing", mend)
    if spec.node_selector is not None:
        check_nodes(spec.node_selector, notes)


def _blocks_all(entry: Entry, action: str) -> bool:
    if action in {"allow", "audit"} or _quota(entry):
        return False
    if isinstance(entry.peers, Peers) and all(prefix.length for prefix in entry.peers.prefixes):
        return False
    peers = {peer.block.cidr for peer in entry.peers if peer.block is not None and peer.block.cidr}
    everybody = not peers or bool(peers & _EVERYBODY)
    return everybody and not any(port.port for port in entry.ports) and not any(entry.interfaces)


def _check_entry(entry: Entry, direction: str, action: str, notes: Notes, *, containers: bool) -> None:
    families = _check_peers(entry, notes)
    if families in ({4}, {6}) and not containers and not _quota(entry):
        missing = 4 if families == {6} else 6
        filler = "192.0.2.255/32" if missing == 4 else "100::/128"
        what = f"this {direction} entry matches all of IPv{missing}"
        notes.add("KA-NET-FAMILY", entry.at, what, f"add {filler}, which nobody has, or the IPv{missing} addresses")
    for port in entry.ports:
        _check_port(port, notes)
    blocks_all = notes.has("KA-NET-BLOCK-ALL", entry.at)
    if not entry.ports and not containers and not _quota(entry) and not blocks_all:
        notes.add(
            "KA-NET-NO-PORTS", entry.at, "this entry is for every protocol", "name ports where they are meant"
        )
    for interface in entry.interfaces:
        if not _INTERFACE.match(interface):
            what = f"interface {quoted(interface)} is no name"
            mend = f"use up to {MAX_INTERFACE} letters, digits and . _ - : @"
            notes.add("KA-NET-INTERFACE", entry.place("interfaces"), what, mend)
    if action == "audit":
        mend = "put it last, or write Allow or Block"
        notes.add("KA-NET-AUDIT", entry.place("action"), "Audit accepts and ends the search", mend)
    _check_quota(entry, notes, containers=containers)


def _check_peers(entry: Entry, notes: Notes) -> set[int]:
    """The families of the addresses; 0 stands for one that is none."""
    families: set[int] = set()
    if isinstance(entry.peers, Peers):
        return {prefix.family for prefix in entry.peers.prefixes}
    for peer in entry.peers:
        network = _check_peer(peer, notes)
        families.add(network.version if network is not None else 0)
    return families


def _check_peer(peer: Peer, notes: Notes) -> Network | None:
    block = peer.block
    if block is None or not block.cidr:
        return None
    read = _read(block.cidr)
    if read is None:
        mend = "write an address or a prefix, as 10.0.0.0/8 or 2001:db8::/32"
        notes.add("KA-NET-CIDR", block.place("cidr"), f"{quoted(block.cidr)} is no prefix", mend)
        return None
    address, network = read
    if address != network.network_address:
        what = f"{quoted(block.cidr)} is the whole of {network}"
        notes.add("KA-NET-HOST-BITS", block.place("cidr"), what, f"write {network}")
    return network


def network_of(text: str) -> Network | None:
    """Return the network that an address or prefix stands for; None when nft would not take it as one."""
    read = _read(text)
    return None if read is None else read[1]


def _read(text: str) -> tuple[Address, Network] | None:
    word, slash, length = text.partition("/")
    if "%" in word or (slash and not _NUMBER.match(length)):
        return None
    try:
        address = ipaddress.ip_address(word)
        bits = int(length) if slash else address.max_prefixlen
        if isinstance(address, ipaddress.IPv4Address):
            return address, ipaddress.IPv4Network((int(address), bits), strict=False)
        return address, ipaddress.IPv6Network((int(address), bits), strict=False)
    except ValueError:
        return None


def _check_port(port: PortRange, notes: Notes) -> None:
    place = port.place("port")
    if not port.port and notes.has("KA-TYPE", place):
        return
    if not port.port:
        mend = 'write port: "443"; without one leave ports out'
        notes.add("KA-NET-PORT-MISSING", port.at, "this item has no port and is ignored", mend)
        return
    number = port_number(port.port)
    if number is None:
        mend = f"write a number from 1 to 65535 in quotes, or one of: {', '.join(PORT_NAMES)}"
        notes.add("KA-NET-PORT", place, f"port {quoted(port.port)} is no port", mend)
    elif port.end is not None and not number <= port.end <= 65535:
        what = f"the range {number} to {port.end}"
        notes.add("KA-NET-PORT-RANGE", port.place("end"), what, "write endPort from the port up to 65535")
    if port.protocol.lower() not in ("", *PORT_PROTOCOLS):
        what = f"protocol {quoted(port.protocol)} has no ports"
        notes.add("KA-NET-PROTOCOL", port.place("protocol"), what, "write TCP, UDP or SCTP")


def port_number(text: str) -> int | None:
    """Return the number of a port given as text; None when it is none."""
    number = PORT_NAMES.get(text.lower(), int(text) if _NUMBER.match(text) else 0)
    return number if 1 <= number <= 65535 else None


def _quota(entry: Entry) -> bool:
    return bool(entry.limit and entry.duration)


def _check_quota(entry: Entry, notes: Notes, *, containers: bool) -> None:
    if entry.limit and not _LIMIT.match(entry.limit):
        what = f"limit {quoted(entry.limit)}"
        notes.add("KA-NET-LIMIT", entry.place("limit"), what, "write a number and KB, MB or GB, as 500MB")
    if entry.duration and not duration_ok(entry.duration):
        what = f"duration {quoted(entry.duration)}"
        notes.add("KA-NET-DURATION", entry.place("duration"), what, "write one of a second or more, as 1h or 30m")
    if containers and not _quota(entry):
        mend = "write limit: and duration:"
        notes.add("KA-CEL-QUOTA", entry.at, "this entry for containers is no quota", mend)
    elif bool(entry.limit) != bool(entry.duration):
        missing = "duration" if entry.limit else "limit"
        what = f"{missing} is missing"
        notes.add("KA-NET-QUOTA-HALF", entry.at, what, f"write {missing}: or take the other away")
    elif _quota(entry) and not containers and _LIMIT.match(entry.limit) and duration_ok(entry.duration):
        mend = "use a policy without limit for addresses and ports, and put the quota last"
        notes.add("KA-NET-QUOTA", entry.place("limit"), "this counts the whole host", mend)


def duration_ok(text: str) -> bool:
    """Whether the engine makes a quota of this duration: Go's form, at least a second."""
    seconds, at = 0.0, 0
    units = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
    for match in _DURATION.finditer(text):
        if match.start() != at:
            return False
        at = match.end()
        seconds += float(match.group(1)) * units.get(match.group(3), 1e-6)
    return at == len(text) and seconds >= 1


def is_host(spec: NetworkSpec) -> bool:
    """Whether a network policy is for hosts and not for containers."""
    return spec.selector is None or not (spec.selector.labels or spec.selector.expressions)
