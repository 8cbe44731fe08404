"""The main settings file: doors, sources, target, windows. Paths in it are relative to its own folder."""

from __future__ import annotations

import pwd
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import yaml

from gateway.certs.material import MaterialFiles
from gateway.config.clusters import read_cluster
from gateway.config.document import SMALL_FILE, Problems, Section, Value, compose, read_text
from gateway.config.endpoint import Endpoint
from gateway.config.keyfiles import UNSAFE, read_public_key
from gateway.config.posters import PostDoor, Poster
from gateway.config.posting import check_doors, check_posters, read_post_door, read_poster
from gateway.config.relying import read_relying
from gateway.config.remotes import (
    read_certificates,
    read_kubearmor,
    read_lease,
    read_relay,
    read_remote,
)
from gateway.config.sealing import Sealing, read_sealing
from gateway.config.values import (
    AGE_LEAST,
    AGE_MOST,
    PASSES_MOST,
    Api,
    ClusterTarget,
    Console,
    Door,
    DoorLimits,
    Hook,
    Network,
    OperatorSocket,
    Places,
    Posting,
    RelayEntry,
    Relying,
    RemoteTarget,
    Source,
    Target,
    parse_duration,
    parse_endpoint,
    parse_name,
    parse_network,
    parse_source_name,
)
from gateway.core.errors import ConfigError
from gateway.core.lifecycle import Rules
from gateway.core.model import SourceName
from gateway.verdicts import FORMATS

#: Bytes of a name in SEDIMENT's messages: its length is one byte.
VERIFIER_ID = 255
#: Seconds to send one frame.
FRAME_LEAST, FRAME_MOST = 0.1, 60.0

#: Requests to attest in a budget, and its seconds: SEDIMENT's verifier attests some ninety devices a second.
REQUESTS_MOST = 10_000
PER_LEAST, PER_MOST = 1.0, 3_600.0

#: Open connections: one would let a single silent peer shut the door; no process has more descriptors than ports.
CONNECTIONS_LEAST, CONNECTIONS_MOST = 2, 65_536
#: Envelopes that wait, each up to 4 KiB.
QUEUE_MOST = 1_000_000

GATES: tuple[Literal["nft", "relay"], ...] = ("nft", "relay")


DOORS_KEYS = ("sediment", "relying", "hook", "rest", "rpc")
VERDICT_DOORS = ("sediment", "relying", "rest", "rpc")
"""Doors at which verdicts arrive; what comes by the hook is a hint."""

DOOR_EXAMPLE = "{sediment: {listen: 127.0.0.1:8000}}"
KEYS = (
    "journal",
    "console",
    "operator",
    "doors",
    "sources",
    "targets",
    "inventory",
    "book",
    "management",
    "agents",
    "certificates",
    "sealing",
    "doctor",
)


class Settings(NamedTuple):
    """What the main file says. ``places``: where ``inventory``, ``book`` and relay entries stand."""

    journal: Path
    console: Console
    operator: OperatorSocket
    door: Door
    sources: tuple[Source, ...]
    target: Target
    inventory: Path
    book: Path
    places: dict[str, str]
    management: tuple[Network, ...] = ()
    relying: Relying | None = None
    hook: Hook | None = None
    sealing: Sealing | None = None
    doctor: Places = Places()
    remotes: tuple[RemoteTarget, ...] = ()
    agents: Endpoint | None = None
    certificates: MaterialFiles | None = None
    posting: Posting = Posting()
    clusters: tuple[ClusterTarget, ...] = ()

    @property
    def posters(self) -> tuple[Poster, ...]:
        """The sources that post their results."""
        return self.posting.posters

    @property
    def everyone(self) -> tuple[Source | Poster, ...]:
        """Every source of whatever kind."""
        return (*self.sources, *self.posters)


def read_settings(path: Path) -> Settings:
    """Return what the file says. Raises ``ConfigError`` naming every mistake."""
    problems = Problems()
    base = path.absolute().parent
    top = compose(read_text(path, SMALL_FILE), path, problems)
    top.known(*KEYS)
    places: dict[str, str] = {}
    no_sources: tuple[Source | Poster, ...] = ()
    where: dict[SourceName, str] = {}
    listed = top.take("sources", lambda value: _sources(value, base, where), no_sources)
    sources = tuple(each for each in listed if isinstance(each, Source))
    posters = tuple(each for each in listed if isinstance(each, Poster))
    check_posters(posters, where, problems)
    targets = top.take("targets", lambda value: _targets(value, base, places), None)
    agents = top.take("agents", _agents, None)
    certificates = top.take("certificates", lambda value: read_certificates(value, base), None)
    doors = top.take("doors", lambda value: _doors(value, base), None)
    door, hook = doors or (Door(), None)
    relying = top.take("doors", lambda value: _relying(value, places), None)
    for key, example in (
        ("doors", DOOR_EXAMPLE),
        ("sources", "a list of verifiers"),
        ("targets", "[{name: gateway}]"),
        ("inventory", "devices.yaml"),
        ("book", "policies/book.yaml"),
    ):
        value = top.get(key)
        places[key] = top.where if value is None else value.where
        if value is None:
            problems.add(top.where, f"the file needs {key!r}", f"write {key}: {example}")
    posting = top.take("doors", lambda value: _posting(value, base, posters, where), Posting(posters))
    _check_alerts(door, relying, sources, places["doors"], problems)
    settings = (
        top.take("journal", lambda value: base / value.text(), base / "var/journal.db"),
        top.take("console", _console, Console()),
        top.take("operator", lambda value: _operator(value, base), OperatorSocket(base / "var/operator.sock")),
        top.take("inventory", lambda value: base / value.text(), base),
        top.take("book", lambda value: base / value.text(), base),
    )
    no_networks: tuple[Network, ...] = ()
    management = top.take("management", _networks, no_networks)
    sealing = top.take("sealing", lambda value: read_sealing(value.section(), base), None)
    doctor = top.take("doctor", lambda value: _doctor(value.section(), base), Places())
    if targets is not None:
        _check_link(top, targets[1], agents, certificates)
    problems.settle()
    assert targets is not None
    target, remotes, clusters = targets
    journal, console, operator, inventory, book = settings
    return Settings(
        journal,
        console,
        operator,
        door,
        sources,
        target,
        inventory,
        book,
        places,
        management,
        relying,
        hook,
        sealing,
        doctor,
        remotes,
        agents,
        certificates,
        posting,
        clusters,
    )


# --- windows ------------------------------------------------------------------------------------------------------


def _console(value: Value) -> Console:
    section = value.section()
    section.known("listen", "hosts")
    return Console(
        section.take("listen", lambda item: item.parsed(parse_endpoint), Console().listen),
        section.take("hosts", lambda item: item.gather(Value.text), ()),
    )


def _operator(value: Value, base: Path) -> OperatorSocket:
    section = value.section()
    section.known("socket", "group")
    return OperatorSocket(
        section.take("socket", lambda item: base / item.text(), base / "var/operator.sock"),
        section.take("group", lambda item: item.parsed(parse_name), None),
    )


def _doctor(section: Section, base: Path) -> Places:
    section.known(*Places._fields)
    no_paths: tuple[Path, ...] = ()
    found = (
        section.take(name, lambda value: value.gather(lambda item: base / item.text()), no_paths)
        for name in Places._fields
    )
    return Places(*found)


# --- the door -----------------------------------------------------------------------------------------------------


def _doors(value: Value, base: Path) -> tuple[Door, Hook | None]:
    doors = value.section()
    doors.known(*DOORS_KEYS)
    hook = doors.take("hook", lambda item: _hook(item.section(), base), None)
    if all(doors.get(key) is None for key in VERDICT_DOORS):
        what = "no door takes verdicts: none of sediment, relying, rest and rpc is written"
        raise value.wrong(what, f"write doors: {DOOR_EXAMPLE}, or one of the others")
    return doors.take("sediment", _door, Door()), hook


def _hook(section: Section, base: Path) -> Hook:
    section.known("socket", "users", "group")
    users = section.need("users", "[sediment]")
    uids = users.gather(lambda item: item.parsed(_user_id))
    if not uids and not section.problems:
        raise users.wrong("no user is listed: nobody could hand in a hint", "name the user that SEDIMENT runs as")
    return Hook(
        section.take("socket", lambda item: base / item.text(), base / "var/hook.sock"),
        frozenset(uids),
        section.take("group", lambda item: item.parsed(parse_name), None),
    )


def _user_id(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 10:
        return int(text)
    try:
        return pwd.getpwnam(parse_name(text)).pw_uid
    except KeyError:
        msg = f"there is no user {text!r} on this host; name one, or write its number"
        raise ValueError(msg) from None


def _door(value: Value) -> Door:
    section = value.section()
    section.known("listen", "peers", "forward_to", "limits")
    return Door(
        _listen(section.need("listen", "0.0.0.0:8000")),
        section.take("peers", _networks, ()),
        section.take("forward_to", lambda item: item.parsed(_named_endpoint), None),
        section.take("limits", _limits, DoorLimits()),
    )


def _check_alerts(
    door: Door, relying: Relying | None, sources: Sequence[Source], where: str, problems: Problems
) -> None:
    """A SEDIMENT verifier needs a port for its alerts, and the port a verifier that may connect to it."""
    if door.listen and sources and not (door.peers or any(source.peers for source in sources)):
        mend = "list the verifier's address under peers of its source"
        problems.add(where, "nobody may connect to the door: no peers are listed", mend)
    if problems:
        return  # a door or a source that could not be read is none that is missing
    if door.listen and not sources:
        what = "nobody's alerts could be believed at the door: no source has format sediment"
        problems.add(where, what, "remove sediment from doors, or list the verifier under sources")
    if sources and not door.listen and relying is None:
        names = ", ".join(source.name for source in sources)
        what = f"no door takes the alerts of {names}: neither sediment nor relying is written"
        problems.add(where, what, "write sediment: {listen: 127.0.0.1:8000}, or remove the source")


def _relying(value: Value, places: dict[str, str]) -> Relying | None:
    try:
        section = value.section().get("relying")
    except ConfigError:
        return None  # told by the reader of the door
    if section is None:
        return None
    places["relying"] = section.where
    return read_relying(section, _listen(section.section().need("listen", "0.0.0.0:8000")))


def _listen(value: Value) -> tuple[Endpoint, ...]:
    try:
        values = value.items()
    except ConfigError:
        values = [value]
    found: list[Endpoint] = []
    for item in values:
        endpoint = item.parsed(parse_endpoint)
        if endpoint in found:
            raise item.wrong(f"{endpoint} is listed twice", "keep one of the two")
        found.append(endpoint)
    if not found:
        raise value.wrong("listen is empty: the door would take nothing", "write listen: 0.0.0.0:8000")
    return tuple(found)


def _posting(value: Value, base: Path, posters: tuple[Poster, ...], where: dict[SourceName, str]) -> Posting:
    doors = value.section()
    nothing: PostDoor | None = None
    rest = doors.take("rest", lambda item: read_post_door(item, base), nothing)
    rpc = doors.take("rpc", lambda item: read_post_door(item, base), nothing)
    if not doors.problems:
        check_doors(posters, (rest, rpc), where, doors.problems)
    return Posting(posters, rest, rpc)


def _named_endpoint(text: str) -> Endpoint:
    return parse_endpoint(text, names=True)


def _limits(value: Value) -> DoorLimits:
    section = value.section()
    section.known("connections", "connections_per_peer", "frame_seconds", "queue")
    standard = DoorLimits()
    return DoorLimits(
        section.take(
            "connections", lambda item: item.whole(CONNECTIONS_LEAST, CONNECTIONS_MOST), standard.connections
        ),
        section.take(
            "connections_per_peer", lambda item: item.whole(1, CONNECTIONS_MOST), standard.connections_per_peer
        ),
        section.take("frame_seconds", lambda item: _seconds(item, FRAME_LEAST, FRAME_MOST), standard.frame_seconds),
        section.take("queue", lambda item: item.whole(1, QUEUE_MOST), standard.queue),
    )


def _networks(value: Value) -> tuple[Network, ...]:
    return value.gather(lambda item: item.parsed(parse_network))


def _seconds(value: Value, least: float, most: float) -> float:
    seconds = value.parsed(parse_duration)
    if not least <= seconds <= most:
        what = f"{value.name} of {seconds:g} seconds is out of range"
        raise value.wrong(what, f"write {least:g} to {most:g} seconds")
    return seconds


# --- sources ------------------------------------------------------------------------------------------------------


def _sources(value: Value, base: Path, where: dict[SourceName, str]) -> tuple[Source | Poster, ...]:
    places: dict[str, str] = {}
    taken: dict[Network, str] = {}

    def read(item: Value) -> Source | Poster:
        section = item.section()
        section.name = "a source"
        source = _source(section, base)
        earlier = places.setdefault(source.name, section.where)
        if earlier != section.where:
            raise section.wrong(f"source {source.name} is listed at {earlier} already", "give each its own name")
        where[source.name] = section.where
        for peer in source.peers if isinstance(source, Source) else ():
            other = taken.setdefault(peer, source.name)
            if other != source.name:
                what = f"peer {peer} belongs to source {other} already: nobody could say whose rules hold"
                raise section.wrong(what, "give each source peers of its own")
        return source

    found = value.gather(read)
    if not found and not value.problems:
        raise value.wrong("no source is listed: no verdict could be believed", "list the verifier")
    return found


def _source(section: Section, base: Path) -> Source | Poster:
    form = FORMATS.get(section.need("format", "sediment").choice(("sediment", *FORMATS)))
    if form is not None:
        return read_poster(section, base, form, _rules(section))
    section.known(
        "name",
        "format",
        "public_key",
        "verifier_id",
        "peers",
        "max_age",
        "grace",
        "recovery_passes",
        "feed",
        "api",
        UNSAFE,
    )
    name = SourceName(section.need("name", "verifier").parsed(parse_source_name))
    unsafe = section.take(UNSAFE, Value.truth, default=False)
    place = section.need("public_key", "verifier.pem")
    key_path = base / place.text()
    try:
        key = read_public_key(key_path, allow_published=unsafe)
    except ConfigError as error:
        raise place.wrong(str(error)) from error
    return Source(
        name,
        key,
        key_path,
        section.need("verifier_id", "RAP_Server").parsed(_verifier_id),
        section.take("peers", _networks, ()),
        _rules(section),
        allow_published=unsafe,
        feed=section.take("feed", lambda item: item.parsed(_named_endpoint), None),
        api=section.take("api", _api, None),
    )


def _api(value: Value) -> Api:
    """``HOST:PORT``, or a section with the budget."""
    if isinstance(value.node, yaml.ScalarNode):
        return Api(value.parsed(_named_endpoint))
    section = value.section()
    section.known("address", "requests", "per")
    address = section.need("address", "10.77.2.2:8102").parsed(_named_endpoint)
    standard = Api(address)
    return Api(
        address,
        section.take("requests", lambda item: item.whole(1, REQUESTS_MOST), standard.requests),
        section.take("per", lambda item: _seconds(item, PER_LEAST, PER_MOST), standard.per),
    )


def _rules(section: Section) -> Rules:
    standard = Rules()
    return Rules(
        max_age=section.take("max_age", lambda item: _seconds(item, AGE_LEAST, AGE_MOST), standard.max_age),
        grace=section.take("grace", lambda item: _seconds(item, 0.0, AGE_MOST), standard.grace),
        recovery_passes=section.take(
            "recovery_passes", lambda item: item.whole(1, PASSES_MOST), standard.recovery_passes
        ),
    )


def _verifier_id(text: str) -> str:
    if not (text.isprintable() and 1 <= len(text.encode()) <= VERIFIER_ID):
        msg = f"must be 1 to {VERIFIER_ID} bytes of printable text, as the verifier writes it in its alerts"
        raise ValueError(msg)
    return text


# --- the target ---------------------------------------------------------------------------------------------------


Targets = tuple[Target, tuple[RemoteTarget, ...], tuple[ClusterTarget, ...]]


def _targets(value: Value, base: Path, places: dict[str, str]) -> Targets:
    """The target on this host, those that agents enforce on, and clusters."""
    items = value.items()
    if not items:
        raise value.wrong("no target is listed: nothing would be enforced", "write targets: [{name: gateway}]")
    own: list[Target] = []
    remotes: list[RemoteTarget] = []
    clusters: list[ClusterTarget] = []
    for item in items:
        section = item.section()
        section.name = "a target"
        found = _any_target(section, base, places)
        if isinstance(found, Target) and own:
            mend = "name its agent: {name: app-server, agent: app-server}"
            raise item.wrong("a second target of this host: a host has one path gate", mend)
        others: list[Target | RemoteTarget | ClusterTarget] = [*own, *remotes, *clusters]
        for other in others:
            if other.name == found.name:
                raise item.wrong(f"two targets are called {found.name}", "give each a name of its own")
            if isinstance(found, RemoteTarget) and isinstance(other, RemoteTarget) and other.agent == found.agent:
                raise item.wrong(f"agent {found.agent} is named twice", "one agent enforces on one host")
        if isinstance(found, RemoteTarget):
            remotes.append(found)
        elif isinstance(found, ClusterTarget):
            clusters.append(found)
        else:
            own.append(found)
    if not own:
        mend = "add the gateway's own: {name: gateway, path_gate: nft}"
        raise value.wrong("no target of this host is listed: nothing would be enforced here", mend)
    return own[0], tuple(remotes), tuple(clusters)


def _any_target(section: Section, base: Path, places: dict[str, str]) -> Target | RemoteTarget | ClusterTarget:
    if section.get("agent") is not None:
        return read_remote(section, places)
    if section.get("kubernetes") is not None:
        return read_cluster(section, base, places)
    return _target(section, places, base)


def _agents(value: Value) -> Endpoint:
    section = value.section()
    section.known("listen")
    return section.need("listen", "10.77.3.1:8444").parsed(parse_endpoint)


def _check_link(
    top: Section, remotes: tuple[RemoteTarget, ...], agents: Endpoint | None, certificates: MaterialFiles | None
) -> None:
    """Targets with agents, where agents attach, and with which certificate, go together."""
    if remotes and agents is None:
        what = f"target {remotes[0].name} has an agent, and nowhere agents could attach"
        top.problems.add(top.where, what, "write agents: {listen: 10.77.3.1:8444}")
    if agents is not None and certificates is None:
        mend = "write certificates: {authority: certs/ca.pem, certificate: ..., key: ..., revoked: certs/ca.crl}"
        top.problems.add(top.where, "agents attach by certificates, and none are named", mend)
    if agents is not None and not remotes:
        what = "agents may attach, but no target names one"
        top.problems.add(top.where, what, "add {name: app-server, agent: app-server} to targets, or leave it out")


def _target(section: Section, places: dict[str, str], base: Path) -> Target:
    section.known("name", "required", "path_gate", "lease", "relay", "kubearmor")
    gate = section.take("path_gate", lambda item: item.choice(GATES), GATES[0])
    no_relay: tuple[RelayEntry, ...] = ()
    relay = section.take("relay", lambda value: value.gather(lambda item: read_relay(item, places)), no_relay)
    target = Target(
        section.need("name", "gateway").parsed(parse_name),
        section.take("required", Value.truth, default=True),
        gate,
        section.take("lease", read_lease, Target("").lease),
        relay,
        section.take("kubearmor", lambda item: read_kubearmor(item, base), None),
    )
    if not target.required:
        what = "the target of this host must be required: without it nothing is enforced"
        section.problems.add(section.where, what, "write required: true, or leave it out")
    if gate == "nft" and relay:
        section.problems.add(section.where, "relay entries need path_gate: relay", "change one of the two")
    if gate == "relay" and not relay and not section.problems:
        mend = "write relay: [{service: feed, listen: 127.0.0.1:8001}]"
        section.problems.add(section.where, "path_gate relay without relay entries would carry nothing", mend)
    return target
