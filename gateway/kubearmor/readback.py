"""What a node shows of our policies: the probe's host policies, and the nftables rules of the network policy.

KubeArmor's reply says that a policy was taken into a list, nothing about the kernel (interface 1.4); its probe
shows host policies but never network policies (1.7). These functions compare what can be seen with what was sent.
What must not live here: calling the daemon or nft.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from gateway.kubearmor.anchor import of_wire, relabelled
from gateway.kubearmor.budget import effective
from gateway.kubearmor.codes import Notes
from gateway.kubearmor.documents import ContainerDocument, Document, Entry, HostDocument, NetworkDocument, Peers
from gateway.kubearmor.expand import OURS, PROFILE
from gateway.kubearmor.findings import Mode
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.parse import parse
from gateway.kubearmor.pb import policy_pb2
from gateway.kubearmor.policies import Action, NetworkEntry, NetworkPolicy, Port, generation_of
from gateway.kubearmor.prefixes import EVERYBODY, Prefix, Span, merge
from gateway.kubearmor.vocabulary import API_VERSION, NODE_LABEL

TABLE = "kubearmor"
CHAIN = "INPUT"
FAMILIES = {4: "ip", 6: "ip6"}
#: What reading raises for text that is no JSON (or no text, or nested without end) or says something unknown.
_UNREADABLE = (msgspec.DecodeError, RecursionError, KeyError, TypeError, ValueError, AttributeError)
_ALL = {4: ((0, (1 << 32) - 1),), 6: ((0, (1 << 128) - 1),)}


class Rule(NamedTuple):
    """One nft rule in a form that compares: merged source and port ranges, verdict and log prefix."""

    sources: tuple[Span, ...]
    protocol: str
    ports: tuple[Span, ...]
    verdict: str
    prefix: str


class Shown(NamedTuple):
    """A policy as the probe shows it: its kind, its ``spec``, the generation in its tags. ``ours``: by its tags it
    is a document of a profile."""

    kind: str
    spec: Mapping[str, object]
    generation: int | None
    ours: bool


def shown_policies(response: policy_pb2.ProbeResponse) -> Mapping[str, Shown]:
    """Return every host and container policy that the probe shows, by name, in the daemon's order.

    Raises ``DocumentRefused`` when the probe's JSON cannot be read.
    """
    found: dict[str, Shown] = {}
    for policies in response.hostMap.values():
        for data in policies.policyDataList:
            found |= _shown(data.policy, HostDocument.kind)
    for endpoint in response.containerMap.values():
        for data in endpoint.policyDataList:
            found |= _shown(data.policy, ContainerDocument.kind)
    return found


def _shown(data: bytes, kind: str) -> Mapping[str, Shown]:
    try:
        policy = msgspec.json.decode(data)
        name, spec = str(policy["metadata"]["policyName"]), policy["spec"]
        tags = spec.get("tags") or []
        ours = OURS in tags and any(isinstance(tag, str) and tag.startswith(PROFILE) for tag in tags)
        return {name: Shown(kind, spec, generation_of(tags), ours)}
    except _UNREADABLE as error:
        msg = f"the probe shows a {kind} that cannot be read: {str(error)[:120]}"
        raise DocumentRefused(msg) from error


def read_shown(shown: Mapping[str, Shown]) -> Mapping[str, tuple[Document, int]]:
    """Return our documents among what the probe shows, each with its generation (0: none)."""
    found: dict[str, tuple[Document, int]] = {}
    for name, each in shown.items():
        if not each.ours:
            continue
        spec = relabelled(each.spec, of_wire)
        written = {"apiVersion": API_VERSION, "kind": each.kind, "metadata": {"name": name}, "spec": spec}
        try:
            (document,) = parse(msgspec.json.encode(written), name, Notes(Mode.VM))
        except (DocumentRefused, ValueError):
            continue  # nothing that we ever sent
        found[name] = (document, each.generation or 0)
    return found


def as_policy(document: NetworkDocument, generation: int) -> NetworkPolicy | None:
    """Return a network document in the form whose rules can be found; None for one that says more."""
    spec = document.spec
    nodes = dict(spec.node_selector.labels) if spec.node_selector is not None else {}
    if spec.egress or spec.selector is not None or set(nodes) != {NODE_LABEL}:
        return None
    try:
        entries = tuple(_entry(entry, effective(entry, None, spec)) for entry in spec.ingress)
        return NetworkPolicy(document.name, nodes[NODE_LABEL], generation, ingress=entries)
    except (DocumentRefused, ValueError):
        return None


def _entry(entry: Entry, action: str) -> NetworkEntry:
    """Raises ``ValueError`` or ``DocumentRefused`` for an entry that has no such form."""
    if entry.interfaces or entry.limit or entry.duration:
        raise ValueError
    if isinstance(entry.peers, Peers):
        peers = entry.peers.prefixes
    else:
        peers = tuple(Prefix.parse(peer.block.cidr) for peer in entry.peers if peer.block is not None)
    ports = tuple(Port(int(port.port), port.protocol.lower() or "tcp", port.end) for port in entry.ports)
    return NetworkEntry(peers or EVERYBODY, ports, Action(action))


def _entry_rules(entry: NetworkEntry, family: int, name: str) -> frozenset[Rule]:
    """One rule per protocol, in whatever order: KubeArmor walks a map whose order changes each time."""
    sources = merge(peer.span for peer in entry.peers if peer.family == family)
    verdict = "accept" if entry.action is Action.ALLOW else "drop"
    prefix = "" if entry.action is Action.ALLOW else f"{name} Ingress {entry.action.value} host"
    protocols = {port.protocol for port in entry.ports}
    return frozenset(
        Rule(sources, proto, merge((p.number, p.last) for p in entry.ports if p.protocol == proto), verdict, prefix)
        for proto in protocols
    )


def expected_rules(policy: NetworkPolicy, family: int) -> Sequence[frozenset[Rule]]:
    """The rules that KubeArmor makes of a policy in one family's table, one group per entry, groups in order."""
    return [_entry_rules(entry, family, policy.name) for entry in policy.ingress]


def _number(text: object, family: int) -> int:
    """Read one address of the family; raises ``ValueError`` or ``TypeError`` for anything else."""
    parse = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    if not isinstance(text, str):
        msg = f"an address in an unknown form: {str(text)[:80]}"
        raise TypeError(msg)
    return int(parse(text))


def _address(value: object, family: int) -> Span:
    if isinstance(value, dict) and "prefix" in value:
        inner = value["prefix"]
        return Prefix(family, _number(inner["addr"], family), int(inner["len"])).span
    if isinstance(value, dict) and "range" in value:
        first, last = value["range"]
        return _number(first, family), _number(last, family)
    single = _number(value, family)
    return single, single


def _port(value: object) -> Span:
    if isinstance(value, int):
        return value, value
    if isinstance(value, dict) and "range" in value:
        first, last = value["range"]
        return int(first), int(last)
    msg = f"a port in an unknown form: {str(value)[:80]}"
    raise TypeError(msg)


def _elements(right: object) -> Iterable[object]:
    if isinstance(right, dict) and "set" in right:
        return list(right["set"])
    return [right]


def _read_rule(expressions: Sequence[Mapping[str, object]], family: int) -> Rule | None:
    """Read one rule; None when it holds anything that our rules never do (interface, conntrack, limits)."""
    sources: tuple[Span, ...] = _ALL[family]
    protocol, verdict, prefix = "", "", ""
    ports: tuple[Span, ...] = ()
    for expression in expressions:
        ((key, value),) = expression.items()
        if key == "match" and isinstance(value, dict) and value.get("op") == "==":
            payload = value["left"].get("payload", {}) if isinstance(value["left"], dict) else {}
            elements = _elements(value["right"])
            if payload.get("field") == "saddr":
                sources = merge(_address(element, family) for element in elements)
            elif payload.get("field") == "dport":
                protocol = str(payload["protocol"])
                ports = merge(_port(element) for element in elements)
            else:
                return None
        elif key == "log" and isinstance(value, dict):
            prefix = str(value.get("prefix", ""))
        elif key in {"accept", "drop"}:
            verdict = key
        else:
            return None
    return Rule(sources, protocol, ports, verdict, prefix)


def read_rules(listing: bytes, family: int) -> Sequence[Rule | None]:
    """Read the rules of the INPUT chain from ``nft -j list table``, in order; None for a rule of another sort.

    Raises ``DocumentRefused`` when the text is not what nft prints.
    """
    try:
        objects = msgspec.json.decode(listing)["nftables"]
        rules = [item["rule"] for item in objects if "rule" in item]
        return [_read_rule(rule["expr"], family) for rule in rules if rule["chain"] == CHAIN]
    except _UNREADABLE as error:
        msg = f"nft's listing of table {FAMILIES[family]} {TABLE} cannot be read: {str(error)[:120]}"
        raise DocumentRefused(msg) from error


def find(policy: NetworkPolicy, rules: Sequence[Rule | None], family: int) -> int | None:
    """Return where in the chain the policy's rules stand, complete and without gaps, or None."""
    groups = expected_rules(policy, family)
    length = sum(len(group) for group in groups)
    for start in range(len(rules) - length + 1):
        at = start
        for group in groups:
            if frozenset(rules[at : at + len(group)]) != group:
                break
            at += len(group)
        else:
            return start
    return None
