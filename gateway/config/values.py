"""Configured values: the frozen types that the builder takes.

What lives here: dataclasses. What must not: files, YAML, positions, parsing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal, NamedTuple

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.certs.client import ClientFiles
from gateway.certs.material import MaterialFiles
from gateway.config.endpoint import Endpoint
from gateway.config.posters import PostDoor, Poster
from gateway.config.sealing import Sealing
from gateway.core.lifecycle import Rules
from gateway.core.model import Device, DeviceId, SourceName
from gateway.core.policy import Book
from gateway.kubearmor.render import Library

Network = IPv4Network | IPv6Network


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
