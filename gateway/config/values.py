"""Configured values: the frozen types that the builder takes, and how single values are written.

What lives here: dataclasses, and parsers from text that raise ``ValueError`` naming the rule. What must not: files,
YAML, positions.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Literal, NamedTuple

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.certs.client import ClientFiles
from gateway.certs.material import MaterialFiles
from gateway.config.endpoint import Endpoint
from gateway.config.posters import PostDoor, Poster
from gateway.config.sealing import Sealing
from gateway.core.lifecycle import Rules
from gateway.core.model import Address, Device, DeviceId, SourceName
from gateway.core.policy import Book
from gateway.kubearmor.render import Library

Network = IPv4Network | IPv6Network

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\Z")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)?\Z")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


#: Seconds that a pass may admit at most: a verdict older than a week says nothing of today.
AGE_LEAST, AGE_MOST = 1.0, 7 * 86_400.0
#: Passes that a recovery may ask for.
PASSES_MOST = 10

#: The hint sources' names: the hook's, and what a source's name gets for its feed.
HOOK, FEED, ALERTS = SourceName("hook"), ".feed", ".alerts"


@dataclass(frozen=True, slots=True)
class Api:
    """A verifier's API, and its budget: so many requests to attest within ``per`` seconds."""

    address: Endpoint
    requests: int = 30
    per: float = 60.0


@dataclass(frozen=True, slots=True)
class Source:
    """One configured origin of verdicts. ``peers`` have a connection budget of their own.

    ``feed`` is the verifier's GUI feed, taken as hints, and ``api`` what it can be asked. ``allow_published``
    stands for ``allow_published_keys_that_anyone_can_sign_with``.
    """

    name: SourceName
    public_key: RSAPublicKey
    public_key_path: Path
    verifier_id: str
    peers: tuple[Network, ...] = ()
    rules: Rules = Rules()  # noqa: RUF009 - frozen value
    format: Literal["sediment"] = "sediment"
    allow_published: bool = False
    feed: Endpoint | None = None
    api: Api | None = None

    @property
    def hints(self) -> SourceName:
        """The name under which its feed's hints are known."""
        return SourceName(f"{self.name}{FEED}")


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """``connections`` open in all, ``connections_per_peer`` for a peer that is no configured verifier,
    ``frame_seconds`` for one frame to arrive, ``queue`` envelopes before the door stops accepting."""

    connections: int = 4_096
    connections_per_peer: int = 64
    frame_seconds: float = 5.0
    queue: int = 4_096


@dataclass(frozen=True, slots=True)
class Door:
    """The SEDIMENT door. ``peers`` may connect besides the sources' own peers; nobody else may.

    Without anything in ``listen`` there is none: verdicts come by other doors.
    """

    listen: tuple[Endpoint, ...] = ()
    peers: tuple[Network, ...] = ()
    forward_to: Endpoint | None = None
    limits: DoorLimits = DoorLimits()


@dataclass(frozen=True, slots=True)
class Posting:
    """The sources that post their results, and the doors at which they do."""

    posters: tuple[Poster, ...] = ()
    rest: PostDoor | None = None
    rpc: PostDoor | None = None


@dataclass(frozen=True, slots=True)
class RelyingLimits:
    """``connections`` open in all, ``connections_per_peer`` of one address, seconds for one message of a device
    (``frame_seconds``), between two of them (``idle_seconds``), and for the app server to take one
    (``onward_seconds``)."""

    connections: int = 16_384
    connections_per_peer: int = 1_024
    frame_seconds: float = 5.0
    idle_seconds: float = 180.0
    onward_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Relying:
    """The relying party's port. ``app_server`` names a service of the book.

    ``verifier`` and ``here`` are what devices are told; ``relying_party``: SEDIMENT's own, when we stand beside it.
    ``device_settings``: the text of CONFIG with its NUL, or None. ``clock_ahead``: seconds that a device's clock
    may be ahead of ours.
    """

    listen: tuple[Endpoint, ...]
    app_server: str
    mode: Literal["instead", "beside"] = "instead"
    verifier: Endpoint | None = None
    here: Endpoint | None = None
    relying_party: Endpoint | None = None
    connections: Literal["each", "kept"] = "each"
    device_settings: bytes | None = None
    clock_ahead: float = 2.0
    limits: RelyingLimits = RelyingLimits()


@dataclass(frozen=True, slots=True)
class Hook:
    """The Unix socket for ``ragate-hook``, the user ids that may use it, and the group that may reach it."""

    socket: Path
    uids: frozenset[int]
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Console:
    """The read-only windows. ``hosts``: further accepted Host names."""

    listen: Endpoint = Endpoint("127.0.0.1", 8080)  # noqa: RUF009 - immutable value
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OperatorSocket:
    """The Unix socket for operators, and the group that may use it besides its owner."""

    socket: Path
    group: str | None = None


@dataclass(frozen=True, slots=True)
class RelayEntry:
    """Where the relay listens for one service of the book."""

    service: str
    listen: Endpoint


@dataclass(frozen=True, slots=True)
class KubeArmor:
    """KubeArmor on this host: its policy service, where its alerts are served (None: there, too), its health
    service (None: judged by the probe alone), how its tables and its security module may be known, which streams
    are listened to, and TLS.

    An address is loopback with a port, or ``unix:/PATH``.
    """

    address: str = "127.0.0.1:32767"
    logs: str | None = None
    health: str | None = "127.0.0.1:32766"
    tables: Literal["read", "trust", "none"] = "none"
    record: Path = Path("/tmp/karmorProbeData.cfg")  # noqa: S108 - KubeArmor's own place; believed only if root's
    """Where KubeArmor records which security module it works with."""
    streams: tuple[str, ...] = ("alerts", "logs", "messages")
    tls: ClientFiles | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The place where policy is enforced. ``lease`` in seconds."""

    name: str
    required: bool = True
    path_gate: Literal["nft", "relay"] = "nft"
    lease: float = 120.0
    relay: tuple[RelayEntry, ...] = ()
    kubearmor: KubeArmor | None = None


class Places(NamedTuple):
    """Where to look, as given on the command line or under ``doctor`` in the main file."""

    sediment: tuple[Path, ...] = ()
    compose: tuple[Path, ...] = ()
    kubearmor: tuple[Path, ...] = ()


#: Seconds. Over a link a lease is renewed when half of it is over, in batches.
LINK_LEASE = 60.0


@dataclass(frozen=True, slots=True)
class RemoteTarget:
    """A host that an agent enforces on. ``lease`` in seconds; ``services`` those of the book that are on that host,
    None: all; ``relays`` from where data of relayed services arrives there."""

    name: str
    agent: str
    required: bool = True
    lease: float = LINK_LEASE
    services: tuple[str, ...] | None = None
    relays: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterTarget:
    """A cluster that KubeArmor's documents are kept in. ``kubeconfig`` None: the one that we run in; ``owner`` is
    the label of what is ours; ``nodes`` labels of the nodes that serve gated ``services`` (None: all of a book's).
    """

    name: str
    kubeconfig: Path | None
    context: str | None
    namespace: str
    owner: str
    nodes: tuple[tuple[str, str], ...] | None = None
    services: tuple[str, ...] | None = None


class AgentConfig(NamedTuple):
    """Everything that an agent is built from. Paths are absolute; ``lease`` in seconds is the longest that any
    admission stands on this host."""

    path: Path
    gateway: Endpoint
    certificates: MaterialFiles
    path_gate: Literal["nft", "relay"]
    state: Path
    relay: tuple[RelayEntry, ...] = ()
    lease: float = LINK_LEASE
    kubearmor: KubeArmor | None = None


@dataclass(frozen=True, slots=True)
class Inventory:
    """The devices in file order and their HMAC keys (32 bytes). ``plain_keys``: key files that are not
    sealed, where there is a key to seal with."""

    devices: tuple[Device, ...]
    hmac_keys: Mapping[DeviceId, bytes]
    plain_keys: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that a service is built from. Paths are absolute.

    ``management``: prefixes from which the site is administered, which every book must always allow.
    ``library``: the templates of the book's profiles, tried for every device. ``digest``: sha256 over all files of
    the book. ``remotes``: targets on other hosts; ``agents``: where their agents attach; ``certificates``: this
    host's own; ``clusters``: targets that are clusters.
    """

    path: Path
    journal: Path
    console: Console
    operator: OperatorSocket
    door: Door
    sources: tuple[Source, ...]
    target: Target
    inventory_path: Path
    book_path: Path
    devices: tuple[Device, ...]
    hmac_keys: Mapping[DeviceId, bytes]
    book: Book
    management: tuple[Network, ...] = ()
    library: Library = Library()  # noqa: RUF009 - frozen value
    relying: Relying | None = None
    digest: str = ""
    posting: Posting = Posting()
    hook: Hook | None = None
    sealing: Sealing | None = None
    plain_keys: tuple[Path, ...] = ()
    doctor: Places = Places()  # noqa: RUF009 - immutable value

    remotes: tuple[RemoteTarget, ...] = ()
    agents: Endpoint | None = None
    certificates: MaterialFiles | None = None
    clusters: tuple[ClusterTarget, ...] = ()

    @property
    def hint_sources(self) -> tuple[SourceName, ...]:
        """The names of everything that may hint."""
        hook = () if self.hook is None else (HOOK,)
        feeds = (source.hints for source in self.sources if source.feed is not None)
        return (*hook, *feeds, *alert_sources(self.target, self.remotes).values())


#: Runtime alerts of one source (an address, a container) that are taken in a second.
SOURCE_ALERTS = 200


def alert_sources(own: Target, remotes: Iterable[RemoteTarget]) -> Mapping[str, SourceName]:
    """The names under which the alerts of targets hint. An agent's file says whether its host has KubeArmor, so
    every other host may."""
    heard = [own.name] if own.kubearmor is not None and own.kubearmor.streams else []
    return {name: SourceName(name + ALERTS) for name in (*heard, *(remote.name for remote in remotes))}


def parse_name(text: str) -> str:
    """Return a name: 1 to 64 of A-Z a-z 0-9 . _ -, starting with a letter or digit."""
    if not _NAME.match(text):
        msg = f"{text[:64]!r} must be 1 to 64 of A-Z a-z 0-9 . _ - and start with a letter or digit"
        raise ValueError(msg)
    return text


def parse_source_name(text: str) -> str:
    """The name of a source of verdicts, none that hints have. Raises ``ValueError``."""
    name = parse_name(text)
    if name == HOOK or name.endswith((FEED, ALERTS)):
        msg = f"{name} is the name of hints: {HOOK!r}, and what ends in {FEED!r} or {ALERTS!r}, cannot be a source"
        raise ValueError(msg)
    return name


def parse_duration(text: str) -> float:
    """Return seconds: a number, or one with ms, s, m, h or d behind it."""
    match = _DURATION.match(text)
    if match is None:
        msg = f"{text[:64]!r} is no duration; write seconds, or a number with ms, s, m, h or d, such as 15m"
        raise ValueError(msg)
    return float(match[1]) * _UNITS[match[2] or "s"]


def parse_endpoint(text: str, *, names: bool = False) -> Endpoint:
    """Return ``HOST:PORT``; an IPv6 address stands in brackets. ``names``: host names are taken too."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 1 <= int(port[:6]) <= 65_535:
        msg = f"{text[:80]!r} needs a port from 1 to 65535, such as 127.0.0.1:8000 or '[::1]:8000'"
        raise ValueError(msg)
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        if names and not bracketed and _HOST.match(host) and not host.replace(".", "").isdigit():
            return Endpoint(host, int(port))
        kind = "an address or a host name" if names else "an IPv4 address, or an IPv6 address in brackets"
        msg = f"{text[:80]!r}: the part before the port must be {kind}"
        raise ValueError(msg) from None
    if isinstance(address, IPv6Address) is not bracketed:
        msg = f"{text[:80]!r}: write an IPv6 address in brackets, and only an IPv6 address"
        raise ValueError(msg)
    return Endpoint(str(address), int(port))


def parse_network(text: str) -> Network:
    """Return an address or a prefix without host bits."""
    try:
        return ip_network(text)
    except ValueError as error:
        try:
            loose = ip_network(text, strict=False)
        except ValueError:
            msg = f"{text[:80]!r} is no address or prefix, such as 10.77.2.2 or 10.77.2.0/24"
        else:
            msg = f"{text[:80]!r} has host bits; write {loose}"
        raise ValueError(msg) from error


def parse_address(text: str) -> Address:
    """Return a device's address; as ``Address.parse``, with a short way for the common forms (10 times faster)."""
    try:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        if "/" in text:
            return Address.parse(text)
        msg = f"{text[:64]!r} is no address; write 10.77.1.11, fd77::11, or an IPv6 prefix such as fd77:0:0:1::/64"
        raise ValueError(msg) from None
    # Unicast by its first byte: 1 to 223, or global (2000::/3) and unique local (fc00::/7). The rest is looked at.
    first = packed[0]
    if len(packed) == 4 and 1 <= first <= 223:
        return Address(packed, 32)
    if len(packed) == 16 and (0x20 <= first <= 0x3F or 0xFC <= first <= 0xFD):
        return Address(packed, 128)
    return Address.parse(text)
