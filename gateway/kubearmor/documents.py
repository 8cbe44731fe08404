"""KubeArmor's four kinds of policy document as typed, frozen values that remember where they were read.

They hold whatever can be written, right or wrong: judging is done elsewhere. Field names and types are those of
``KubeArmor/types/types.go`` of kubearmor/KubeArmor at commit 510cee31.
What must not live here: reading YAML, rules about values.
"""

# ruff: noqa: RUF009 - ``wired`` declares a field

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from gateway.kubearmor.elements import JSON, Acting, Element, Form, Settled, render, wired
from gateway.kubearmor.findings import Place
from gateway.kubearmor.prefixes import Prefix
from gateway.kubearmor.rules import (
    Capabilities,
    Devices,
    Files,
    Preset,
    Processes,
    Sockets,
    Syscalls,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression(Element):
    """A selection by list: ``values`` are ``label=value``, or names of namespaces."""

    key: str = wired("key")
    operator: str = wired("operator")
    values: tuple[str, ...] = wired("values", Form.TEXTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSelector(Element):
    """Which hosts; all labels must match."""

    labels: tuple[tuple[str, str], ...] = wired("matchLabels", Form.LABELS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector(NodeSelector):
    """Which containers."""

    expressions: tuple[Expression, ...] = wired("matchExpressions", Form.MANY, Expression)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec(Acting):
    """What a KubeArmorPolicy or KubeArmorClusterPolicy says."""

    selector: Selector | None = wired("selector", Form.ONE, Selector)
    process: Processes | None = wired("process", Form.ONE, Processes)
    file: Files | None = wired("file", Form.ONE, Files)
    network: Sockets | None = wired("network", Form.ONE, Sockets)
    capabilities: Capabilities | None = wired("capabilities", Form.ONE, Capabilities)
    syscalls: Syscalls | None = wired("syscalls", Form.ONE, Syscalls)
    presets: tuple[Preset, ...] = wired("presets", Form.MANY, Preset)
    apparmor: str = wired("apparmor")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec(Acting):
    """What a KubeArmorHostPolicy says."""

    node_selector: NodeSelector | None = wired("nodeSelector", Form.ONE, NodeSelector, need=True)
    process: Processes | None = wired("process", Form.ONE, Processes)
    file: Files | None = wired("file", Form.ONE, Files)
    network: Sockets | None = wired("network", Form.ONE, Sockets)
    capabilities: Capabilities | None = wired("capabilities", Form.ONE, Capabilities)
    syscalls: Syscalls | None = wired("syscalls", Form.ONE, Syscalls)
    device: Devices | None = wired("device", Form.ONE, Devices)
    apparmor: str = wired("apparmor")


@dataclass(frozen=True, slots=True, kw_only=True)
class IpBlock(Element):
    """A network prefix."""

    cidr: str = wired("cidr", need=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer(Element):
    """The other end."""

    block: IpBlock | None = wired("ipBlock", Form.ONE, IpBlock, need=True)


class Peers(Settled):
    """Peers made of canonical prefixes, ``prefixes``, in their order."""

    prefixes: tuple[Prefix, ...]

    @classmethod
    def of(cls, prefixes: Iterable[Prefix]) -> Peers:
        """Make them; a peer that was made before is the same object."""
        known = tuple(prefixes)
        made = cls(map(_peer, known))
        made.prefixes = known
        return made

    def render(self) -> list[JSON]:
        """As the parts say themselves, without asking each of them how."""
        return [{"ipBlock": {"cidr": peer.block.cidr}} for peer in self]


#: Prefixes whose peers are kept: a document names about 100,000 at most (its 4 MiB), a few hundred bytes each.
_KEPT = 131_072

_NO_PLACES: Mapping[str, Place] = {}


@lru_cache(maxsize=_KEPT)
def _peer(prefix: Prefix) -> Peer:
    # One mapping for all: 100,000 empty ones would be 100,000 more objects for the collector to walk.
    return Peer(places=_NO_PLACES, block=IpBlock(places=_NO_PLACES, cidr=str(prefix)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRange(Element):
    """A port, or a range of ports, as text."""

    port: str = wired("port")
    end: int | None = wired("endPort", Form.WHOLE)
    protocol: str = wired("protocol")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Acting):
    """An entry of a network policy, whichever its direction."""

    interfaces: tuple[str, ...] = wired("iface", Form.TEXTS)
    ports: tuple[PortRange, ...] = wired("ports", Form.MANY, PortRange)
    limit: str = wired("limit")
    duration: str = wired("duration")

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The other ends, for either direction."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressEntry(Entry):
    """What may come in."""

    sources: tuple[Peer, ...] = wired("from", Form.MANY, Peer)

    @property
    def peers(self) -> tuple[Peer, ...]:
        return self.sources


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressEntry(Entry):
    """What may go out."""

    destinations: tuple[Peer, ...] = wired("to", Form.MANY, Peer)

    @property
    def peers(self) -> tuple[Peer, ...]:
        return self.destinations


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec(Acting):
    """What a KubeArmorNetworkPolicy says."""

    node_selector: NodeSelector | None = wired("nodeSelector", Form.ONE, NodeSelector)
    selector: Selector | None = wired("selector", Form.ONE, Selector)
    level: str = wired("level")
    ingress: tuple[IngressEntry, ...] = wired("ingress", Form.MANY, IngressEntry)
    egress: tuple[EgressEntry, ...] = wired("egress", Form.MANY, EgressEntry)

    def directions(self) -> Iterator[tuple[str, tuple[Entry, ...]]]:
        """The entries of each direction, under the direction's name."""
        yield "ingress", self.ingress
        yield "egress", self.egress


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata(Element):
    """The part of Kubernetes' ObjectMeta that people write. Only ``name`` counts without Kubernetes."""

    name: str = wired("name", need=True)
    namespace: str = wired("namespace")
    labels: tuple[tuple[str, str], ...] = wired("labels", Form.LABELS)
    annotations: tuple[tuple[str, str], ...] = wired("annotations", Form.LABELS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document(Element):
    """A policy document of any kind."""

    kind: ClassVar[str]

    api_version: str = wired("apiVersion")
    metadata: Metadata = wired("metadata", Form.ONE, Metadata, always=True)

    @property
    def name(self) -> str:
        """The policy's name; empty when there is none."""
        return self.metadata.name

    @property
    def body(self) -> ContainerSpec | HostSpec | NetworkSpec:
        """What it says, whatever its kind."""
        raise NotImplementedError

    def render(self) -> JSON:
        """The object that goes into an event, or into a file together with ``kind``."""
        return render(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerDocument(Document):
    """A KubeArmorPolicy: for containers, in a cluster those of one namespace."""

    kind = "KubeArmorPolicy"
    spec: ContainerSpec = wired("spec", Form.ONE, ContainerSpec, always=True)

    @property
    def body(self) -> ContainerSpec:
        return self.spec


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterDocument(ContainerDocument):
    """A KubeArmorClusterPolicy: for containers of several namespaces."""

    kind = "KubeArmorClusterPolicy"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDocument(Document):
    """A KubeArmorHostPolicy."""

    kind = "KubeArmorHostPolicy"
    spec: HostSpec = wired("spec", Form.ONE, HostSpec, always=True)

    @property
    def body(self) -> HostSpec:
        return self.spec


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkDocument(Document):
    """A KubeArmorNetworkPolicy."""

    kind = "KubeArmorNetworkPolicy"
    spec: NetworkSpec = wired("spec", Form.ONE, NetworkSpec, always=True)

    @property
    def body(self) -> NetworkSpec:
        return self.spec


#: The kinds by their name.
KINDS: Mapping[str, type[Document]] = {
    kind.kind: kind for kind in (ContainerDocument, HostDocument, NetworkDocument, ClusterDocument)
}
