"""KubeArmor's policy documents as far as they are used here: typed, validated, rendered to its JSON.

KubeArmor checks next to nothing on the gRPC path: unknown fields are dropped, a wrong JSON type refuses the whole
message, a bad prefix is answered "Applied" and freezes the rule set of the node (interface 1.3, 4.3). So a
document that cannot be built here cannot be sent. What must not live here: what to put into a policy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import msgspec

from gateway.kubearmor.names import DocumentRefused, Kind, check_name
from gateway.kubearmor.prefixes import Prefix, check_prefix

#: Bytes of one event: KubeArmor's gRPC server keeps the library's default of 4 MiB for a received message
#: (interface 1.8); 64 bytes are left for the protobuf envelope.
MAX_EVENT = 4 * 1024 * 1024 - 64

#: KubeArmor's user-space path buffers hold 200 bytes with the final zero; longer paths are cut in silence.
MAX_PATH = 199

#: The kernel side looks for directory separators in the first 64 bytes of a path only.
MAX_DIRECTORY = 64

PROTOCOLS = ("tcp", "udp", "sctp")
NODE_LABEL = "kubearmor.io/hostname"

_NODE = re.compile(r"(?:\*|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}))\Z")
_TAG = re.compile(r"[A-Za-z0-9_.:=-]{1,63}\Z")
_MESSAGE = re.compile(r"[ -~]{0,200}\Z")
_PATH = re.compile(r"(?:/[A-Za-z0-9._@+=:-]+)+\Z")
_GENERATION = re.compile(r"gen=([0-9]{1,18})\Z")

JSON = dict[str, object]


class Action(Enum):
    """KubeArmor's actions, spelt as it compares them: below the spec level nothing is case-normalised."""

    ALLOW = "Allow"
    BLOCK = "Block"


def _refuse(what: str) -> DocumentRefused:
    return DocumentRefused(what)


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """A port or a range of ports of one transport protocol.

    Only tcp, udp and sctp: another protocol with a port makes the node's whole rule set fail (interface 4.3).
    """

    number: int
    protocol: str = "tcp"
    end: int | None = None

    def __post_init__(self) -> None:
        last = self.number if self.end is None else self.end
        if self.protocol not in PROTOCOLS:
            msg = f"protocol {self.protocol[:16]!r}: use one of {', '.join(PROTOCOLS)}"
            raise _refuse(msg)
        if not 1 <= self.number <= last <= 65535:
            msg = f"port {self.number} to {last}: use 1 to 65535, ascending"
            raise _refuse(msg)

    @property
    def last(self) -> int:
        """The last port of the range."""
        return self.number if self.end is None else self.end

    def overlaps(self, other: Port) -> bool:
        """Whether the two share a port of the same protocol."""
        return self.protocol == other.protocol and self.number <= other.last and other.number <= self.last

    def render(self) -> JSON:
        """A numeric ``port`` would refuse the whole message: it is a string on the wire."""
        rendered: JSON = {"port": str(self.number), "protocol": self.protocol.upper()}
        if self.end is not None:
            rendered["endPort"] = self.end
        return rendered


@dataclass(frozen=True, slots=True)
class NetworkEntry:
    """One ingress entry: these peers to these ports. Entries are judged in order, the first match wins.

    Both families must be among the peers, because KubeArmor drops the address match of a family that is not;
    ports must be given, because an entry without them matches every protocol (interface 4.2).
    """

    peers: tuple[Prefix, ...]
    ports: tuple[Port, ...]
    action: Action

    def __post_init__(self) -> None:
        for peer in self.peers:
            check_prefix(peer)
        if {peer.family for peer in self.peers} != {4, 6}:
            msg = "a network entry needs a prefix of each family: KubeArmor lets the other one match everybody"
            raise _refuse(msg)
        if not self.ports:
            msg = "a network entry needs ports: without them it matches every protocol"
            raise _refuse(msg)

    def render(self) -> JSON:
        """This entry as JSON.

        The peers are text already: 100,000 objects of their own would cost a garbage collection that stops every
        thread for longer than the path gate may wait. A prefix's text needs no escaping.
        """
        peers = ",".join(f'{{"ipBlock":{{"cidr":"{peer}"}}}}' for peer in self.peers)
        return {
            "from": msgspec.Raw(f"[{peers}]".encode()),
            "ports": [port.render() for port in self.ports],
            "action": self.action.value,
        }


@dataclass(frozen=True, slots=True)
class _Policy:
    """What all kinds share. The action of the whole is always Block: a spec-level Allow would turn the default
    of the host's INPUT and OUTPUT to drop (interface 4.2). ``generation`` tells one sending from another."""

    name: str
    node: str
    generation: int
    tags: tuple[str, ...] = ()
    message: str = ""
    severity: int = 5

    def _check(self) -> None:
        check_name(self.name)
        if not _NODE.match(self.node):
            msg = f"node {self.node[:64]!r}: use '*' or the host name that KubeArmor goes by; empty matches nothing"
            raise _refuse(msg)
        if self.generation < 0 or not 1 <= self.severity <= 10:
            msg = f"generation {self.generation} or severity {self.severity}: use 0 or more, and 1 to 10"
            raise _refuse(msg)
        for tag in self.tags:
            if not _TAG.match(tag):
                msg = f"tag {tag[:64]!r}: use 1 to 63 of A-Z a-z 0-9 _ . : = - (alerts join tags with commas)"
                raise _refuse(msg)
        if not _MESSAGE.match(self.message):
            msg = "message: use up to 200 printable ASCII characters"
            raise _refuse(msg)

    def _object(self, rules: JSON) -> JSON:
        spec: JSON = {"nodeSelector": {"matchLabels": {NODE_LABEL: self.node}}, **rules}
        spec |= {"severity": self.severity, "tags": [*self.tags, f"gen={self.generation}"], "action": "Block"}
        if self.message:
            spec["message"] = self.message
        return {"metadata": {"name": self.name}, "spec": spec}


@dataclass(frozen=True, slots=True)
class NetworkPolicy(_Policy):
    """A KubeArmorNetworkPolicy in its host form: with ``nodeSelector``, ingress only."""

    ingress: tuple[NetworkEntry, ...] = ()

    def __post_init__(self) -> None:
        self._check()
        if not self.ingress:
            msg = f"{self.name}: a network policy without entries does nothing"
            raise _refuse(msg)

    @property
    def kind(self) -> Kind:
        """Which RPC takes it."""
        return Kind.NETWORK

    def render(self) -> JSON:
        """The object as JSON."""
        return self._object({"ingress": [entry.render() for entry in self.ingress]})


@dataclass(frozen=True, slots=True)
class FileRule:
    """A rule about one path, or about a directory and all below it. The action is always Block.

    ``read_only``: nobody writes, creates, removes or renames there, its owner and root included; reading stays.
    ``owner_only``: nobody but the uid that owns the file opens, writes or removes it; the owner may do all.
    A directory takes only ``read_only``: KubeArmor also stores each parent as a look-up key with the same flags,
    and the flags of the two other forms would deny opening the parents themselves.
    """

    path: str
    directory: bool = False
    read_only: bool = False
    owner_only: bool = False

    def __post_init__(self) -> None:
        parts = self.path.split("/")
        if not _PATH.match(self.path) or "." in parts or ".." in parts:
            msg = f"path {self.path[:80]!r}: use an absolute path of plain names without '.', '..' or a final '/'"
            raise _refuse(msg)
        limit = MAX_DIRECTORY - 1 if self.directory else MAX_PATH
        if len(self.path) > limit:
            msg = f"path {self.path[:80]!r}... has {len(self.path)} bytes, KubeArmor matches up to {limit}"
            raise _refuse(msg)
        if self.read_only == self.owner_only:
            msg = f"{self.path}: choose read_only or owner_only"
            raise _refuse(msg)
        if self.directory and self.owner_only:
            msg = f"{self.path}: owner_only on a directory would also close its parents; name the files"
            raise _refuse(msg)

    def keys(self) -> frozenset[str]:
        """The entries this rule takes in KubeArmor's BPF map: a path one; a directory itself with and without
        its final slash, and each ancestor (shared with other directories)."""
        if not self.directory:
            return frozenset({self.path})
        names = self.path.split("/")[1:]
        ancestors = ("/" + "".join(f"{name}/" for name in names[:depth]) for depth in range(len(names)))
        return frozenset({self.path, f"{self.path}/", *ancestors})

    def render(self) -> JSON:
        """This rule as JSON; KubeArmor knows a directory by its final slash."""
        flag: JSON = {"readOnly": True} if self.read_only else {"ownerOnly": True}
        if self.directory:
            return {"dir": f"{self.path}/", "recursive": True, **flag}
        return {"path": self.path, **flag}


@dataclass(frozen=True, slots=True)
class HostPolicy(_Policy):
    """A KubeArmorHostPolicy of file rules."""

    files: tuple[FileRule, ...] = ()

    def __post_init__(self) -> None:
        self._check()
        if not self.files:
            msg = f"{self.name}: a host policy without rules does nothing"
            raise _refuse(msg)

    @property
    def kind(self) -> Kind:
        """Which RPC takes it."""
        return Kind.HOST

    @property
    def cost(self) -> int:
        """Entries taken of the 256 that the host's BPF map has for all host policies together."""
        return len(frozenset().union(*(rule.keys() for rule in self.files)))

    def render(self) -> JSON:
        """The object as JSON."""
        files: JSON = {}
        paths = [rule.render() for rule in self.files if not rule.directory]
        directories = [rule.render() for rule in self.files if rule.directory]
        if paths:
            files["matchPaths"] = paths
        if directories:
            files["matchDirectories"] = directories
        return self._object({"file": files})


Policy = NetworkPolicy | HostPolicy


class Sendable(Protocol):
    """What can be sent: a policy built here, or a document that was read."""

    @property
    def name(self) -> str:
        """The policy's name."""

    def render(self) -> JSON:
        """The object as JSON."""


class EventType(Enum):
    """What to do with a document. MODIFIED is missing on purpose: for an unknown name it is stored on disk but
    not in memory, or ends the daemon (interface 1.4); ADDED updates what exists."""

    ADDED = "ADDED"
    DELETED = "DELETED"


def render_event(event: EventType, policy: Sendable) -> bytes:
    """Return the JSON that goes into ``policy.policy``. Raises ``DocumentRefused`` when it is too large."""
    data = msgspec.json.encode({"type": event.value, "object": policy.render()})
    if len(data) > MAX_EVENT:
        msg = f"{policy.name}: {len(data)} bytes as JSON, KubeArmor takes {MAX_EVENT}: too many separate prefixes"
        raise DocumentRefused(msg)
    return data


def generation_of(tags: object) -> int | None:
    """Return N of the tag ``gen=N`` in a document read back, or None when there is none."""
    if not isinstance(tags, list):
        return None
    found = (_GENERATION.match(tag) for tag in tags if isinstance(tag, str))
    return next((int(match.group(1)) for match in found if match), None)
