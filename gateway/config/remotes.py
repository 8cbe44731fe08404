"""Other hosts where policy is enforced, and what the link to them is made of: parts of the main file, and all of an
agent's own file.

What lives here: reading those sections. What must not: connections, certificates' contents.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from gateway.certs.client import ClientFiles
from gateway.certs.material import MaterialFiles
from gateway.config.common import read_seconds
from gateway.config.document import SMALL_FILE, Problems, Section, Value, compose, read_text
from gateway.config.endpoint import Endpoint
from gateway.config.parsing import parse_endpoint, parse_name, parse_network
from gateway.config.values import LINK_LEASE, AgentConfig, KubeArmor, Network, RelayEntry, RemoteTarget
from gateway.core.errors import ConfigError

#: Seconds. A shorter lease would end under a busy second; a longer one would let an admission stand for hours after
#: the gateway's death.
LEASE_LEAST, LEASE_MOST = 5.0, 3_600.0

REMOTE_KEYS = ("name", "agent", "required", "lease", "services", "relays")
CERTIFICATE_KEYS = ("authority", "certificate", "key", "revoked")

_GATES: tuple[Literal["nft", "relay"], ...] = ("nft", "relay")
#: KubeArmor's streams that can be listened to.
STREAMS = ("alerts", "logs", "messages")
KUBEARMOR_KEYS = ("address", "logs", "health", "tables", "record", "streams", "tls")
KUBEARMOR_TLS_KEYS = ("authority", "certificate", "key", "name")
UNIX = "unix:"
#: A path has 107 bytes at most (``unix(7)``).
_SOCKET = re.compile(r"unix:/[A-Za-z0-9._/@+=-]{1,106}\Z")

TABLES: tuple[Literal["read", "trust", "none"], ...] = ("read", "trust", "none")


def read_certificates(value: Value, base: Path) -> MaterialFiles:
    """The files of one service's certificate, relative to ``base``."""
    section = value.section()
    section.known(*CERTIFICATE_KEYS)
    return MaterialFiles(
        base / section.need("authority", "certs/ca.pem").text(),
        base / section.need("certificate", "certs/gateway-edge.pem").text(),
        base / section.need("key", "certs/gateway-edge.key").text(),
        section.take("revoked", lambda item: base / item.text(), None),
    )


def read_remote(section: Section, places: dict[str, str]) -> RemoteTarget:
    """A target that names an agent. ``places`` remembers where services are named."""
    section.known(*REMOTE_KEYS)
    name = section.need("name", "app-server").parsed(parse_name)
    services = section.get("services")
    listed: tuple[str, ...] | None = None
    if services is not None:
        listed = services.gather(lambda item: item.parsed(parse_name))
        if not listed:
            raise services.wrong("services is empty: this host would gate nothing", "name one, or leave it out")
        places[f"services of {name}"] = services.where
    no_networks: tuple[Network, ...] = ()
    return RemoteTarget(
        name,
        section.need("agent", "app-server").parsed(parse_name),
        section.take("required", Value.truth, default=True),
        section.take("lease", read_lease, LINK_LEASE),
        listed,
        section.take("relays", lambda value: value.gather(lambda item: item.parsed(parse_network)), no_networks),
    )


def read_lease(value: Value) -> float:
    """A lease in seconds."""
    return read_seconds(value, LEASE_LEAST, LEASE_MOST)


def read_relay(item: Value, places: dict[str, str]) -> RelayEntry:
    """Where a relay listens for one service."""
    section = item.section()
    section.name = "a relay entry"
    section.known("service", "listen")
    entry = RelayEntry(
        section.need("service", "feed").parsed(parse_name),
        section.need("listen", "127.0.0.1:8001").parsed(parse_endpoint),
    )
    for key in (f"relay {entry.service}", f"relay at {entry.listen}"):
        earlier = places.setdefault(key, section.where)
        if earlier != section.where:
            raise section.wrong(f"{key} is listed at {earlier} already", "keep one of the two")
    return entry


def read_kubearmor(value: Value, base: Path) -> KubeArmor:
    """KubeArmor on the same host; its TLS files are relative to ``base``."""
    section = value.section()
    section.known(*KUBEARMOR_KEYS)
    standard = KubeArmor()
    found = KubeArmor(
        section.take("address", lambda item: item.parsed(_local), standard.address),
        section.take("logs", lambda item: item.parsed(_local), standard.logs),
        section.take("health", lambda item: item.parsed(_health), standard.health),
        section.take("tables", lambda item: item.choice(TABLES), standard.tables),
        section.take("record", lambda item: item.parsed(_absolute), standard.record),
        section.take("streams", _streams, standard.streams),
        section.take("tls", lambda item: _tls(item, base), None),
    )
    if found.tls is not None and found.address.startswith(UNIX) and (found.logs or UNIX).startswith(UNIX):
        what = "tls is for ports, and only Unix sockets are dialled: their rights guard them"
        raise section.wrong(what, "remove tls, or write an address with a port")
    return found


def _streams(value: Value) -> tuple[str, ...]:
    found = value.gather(lambda item: item.choice(STREAMS))
    return tuple(dict.fromkeys(found))


def _tls(value: Value, base: Path) -> ClientFiles:
    section = value.section()
    section.known(*KUBEARMOR_TLS_KEYS)
    files = ClientFiles(
        base / section.need("authority", "/var/lib/kubearmor/tls/ca.crt").text(),
        base / section.need("certificate", "certs/kubearmor-client.pem").text(),
        base / section.need("key", "certs/kubearmor-client.key").text(),
        section.take("name", lambda item: item.parsed(_certified), ""),
    )
    try:
        files.check()
    except ConfigError as error:
        raise section.wrong(str(error)) from error
    return files


def _certified(text: str) -> str:
    """Whom a certificate is for: an IP address as a rule. Raises ``ValueError``."""
    try:
        return str(ip_address(text))
    except ValueError:
        return parse_endpoint(f"{text}:1", names=True).host


def _health(text: str) -> str | None:
    return None if text == "none" else _local(text)


def _local(text: str) -> str:
    """An address of this host. Raises ``ValueError``."""
    if text.startswith(UNIX):
        if not _SOCKET.match(text):
            msg = f"{text[:80]!r} is no Unix socket; write unix: and an absolute path without spaces"
            raise ValueError(msg)
        return text
    endpoint = parse_endpoint(text)
    if not (endpoint.host.startswith("127.") or endpoint.host == "::1"):
        msg = f"{text} is not on this host; KubeArmor's port is open to whoever reaches it: use loopback"
        raise ValueError(msg)
    return str(endpoint)


def _absolute(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        msg = f"{text} is no absolute path"
        raise ValueError(msg)
    return path


def is_agent_file(path: Path) -> bool:
    """Whether a file is an agent's own and not a gateway's. Raises ``ConfigError`` when it cannot be read."""
    top = compose(read_text(path, SMALL_FILE), path, Problems())
    return top.get("gateway") is not None and top.get("doors") is None


def load_agent(path: Path) -> AgentConfig:
    """Return everything that an agent is built from. Raises ``ConfigError`` naming every mistake."""
    problems = Problems()
    base = path.absolute().parent
    top = compose(read_text(path, SMALL_FILE), path, problems)
    top.known("gateway", "certificates", "path_gate", "state", "relay", "lease", "kubearmor")
    places: dict[str, str] = {}
    no_relay: tuple[RelayEntry, ...] = ()
    gateway = top.take("gateway", lambda value: value.parsed(_named), None)
    certificates = top.take("certificates", lambda value: read_certificates(value, base), None)
    gate = top.take("path_gate", lambda value: value.choice(_GATES), _GATES[0])
    relay = top.take("relay", lambda value: value.gather(lambda item: read_relay(item, places)), no_relay)
    config = (
        top.take("state", lambda value: base / value.text(), base / "var"),
        relay,
        top.take("lease", read_lease, LINK_LEASE),
        top.take("kubearmor", lambda value: read_kubearmor(value, base), None),
    )
    for key, example in (
        ("gateway", "10.77.3.1:8444"),
        ("certificates", "{authority: ca.pem, certificate: agent.pem, key: agent.key, revoked: ca.crl}"),
    ):
        if top.get(key) is None:
            problems.add(top.where, f"the file needs {key!r}", f"write {key}: {example}")
    if gate == "nft" and relay:
        problems.add(top.where, "relay entries need path_gate: relay", "change one of the two")
    if gate == "relay" and not relay and not problems:
        mend = "write relay: [{service: feed, listen: 10.77.3.2:8001}]"
        problems.add(top.where, "path_gate relay without relay entries would carry nothing", mend)
    problems.settle()
    assert gateway is not None
    assert certificates is not None
    return AgentConfig(path.absolute(), gateway, certificates, gate, *config)


def _named(text: str) -> Endpoint:
    return parse_endpoint(text, names=True)
