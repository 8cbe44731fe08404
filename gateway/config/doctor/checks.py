"""What the doctor looks for: one table, one row a check, each with what it found, why it matters and the mend.

What lives here: judging evidence. What must not: gathering it. Facts about SEDIMENT are those of v1.0.0; facts
about KubeArmor those of its ``KubeArmor/config/config.go`` and ``feeder``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from gateway.config.doctor.evidence import Board, Evidence, Listening
from gateway.config.values import Config
from gateway.core.policy import rules_for
from gateway.sediment.keys import HMAC_KEY_SIZE, is_published_hmac_key, is_published_signing_key

#: SEDIMENT's unsigned services, as its verifier opens them unless told otherwise: GUI feed and API.
FEED_PORT, API_PORT = 8101, 8102
#: KubeArmor's policy service.
KUBEARMOR_PORT = 32_767
#: Seconds by which the verifier's clock may be ahead; the window in which a pass is taken.
AHEAD = 2.0
#: Seconds that a pass admits where there is no configuration to ask.
MAX_AGE = 900.0
#: Devices named in one diagnosis; the rest are counted.
NAMED = 5

_TRUE = frozenset({"true", "1", "yes", "on"})
_HEX_KEY = re.compile(r"[0-9A-Fa-f]{64}\Z")
_PRIVILEGED_CAPABILITIES = frozenset({"ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE"})


class Diagnosis(NamedTuple):
    """One insecure counterpart: the check's name, what it is about, what it is, why it matters, and the mend."""

    check: str
    subject: str
    what: str
    why: str
    mend: str


class Found(NamedTuple):
    """Something that a check found: what it is about, and what it is."""

    subject: str
    what: str


class Check(NamedTuple):
    """One row of the table. ``needs`` says what to give when ``has`` finds no evidence."""

    name: str
    why: str
    mend: str
    has: Callable[[Evidence], bool]
    needs: str
    look: Callable[[Evidence], Iterator[Found]]


class Report(NamedTuple):
    """``diagnoses`` in the table's order; ``clean`` checks that found nothing; ``unexamined`` (name, what to
    give)."""

    diagnoses: tuple[Diagnosis, ...]
    clean: tuple[str, ...]
    unexamined: tuple[tuple[str, str], ...]


def examine(evidence: Evidence, checks: Sequence[Check] | None = None) -> Report:
    """Go through the table."""
    diagnoses: list[Diagnosis] = []
    clean: list[str] = []
    unexamined: list[tuple[str, str]] = []
    for check in CHECKS if checks is None else checks:
        if not check.has(evidence):
            unexamined.append((check.name, check.needs))
            continue
        found = list(dict.fromkeys(check.look(evidence)))
        diagnoses += (Diagnosis(check.name, each.subject, each.what, check.why, check.mend) for each in found)
        if not found:
            clean.append(check.name)
    return Report(tuple(diagnoses), tuple(clean), tuple(unexamined))


# --- SEDIMENT -----------------------------------------------------------------------------------------------------


def _servers(evidence: Evidence) -> Iterator[Board]:
    """The files of verifier and firewall: what a prover's file says of passports, its device alone knows."""
    return (board for board in evidence.boards if not any(key.startswith("prover ") for key in board.values))


def _pass_through(evidence: Evidence) -> Iterator[Found]:
    for board in _servers(evidence):
        if board.values.get("pass_thru_enabled", "").lower() in _TRUE:
            yield Found(str(board.path), "pass_thru_enabled is true")


def _published_keys(evidence: Evidence) -> Iterator[Found]:
    config = evidence.config
    for source in () if config is None else config.sources:
        if is_published_signing_key(source.public_key):
            yield Found(f"source {source.name}", "its public key is SEDIMENT's published demo key")
        elif source.allow_published:
            yield Found(f"source {source.name}", "published keys are allowed")
    for pem in evidence.pems:
        key = _public_of(pem.data)
        if key is not None and is_published_signing_key(key):
            yield Found(str(pem.path), "is SEDIMENT's published demo signing key")
    for database in evidence.databases:
        named = [row.text for row in database.devices if row.published]
        if named:
            yield Found(str(database.path), f"published authKeys: {_listed(named)}")
    for board in evidence.boards:
        for name, value in board.values.items():
            if _HEX_KEY.match(value) and is_published_hmac_key(bytes.fromhex(value)[:HMAC_KEY_SIZE]):
                yield Found(str(board.path), f"{name} is a published demo key")


def _public_of(data: bytes) -> RSAPublicKey | None:
    try:
        if b"PRIVATE KEY-----" in data:
            private = load_pem_private_key(data, password=None)
            return private.public_key() if isinstance(private, RSAPrivateKey) else None
        public = load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # a certificate, an encrypted key, something else
        return None
    return public if isinstance(public, RSAPublicKey) else None


def _feed_reachable(evidence: Evidence) -> Iterator[Found]:
    ports = _unsigned_ports(evidence.config)
    for each in evidence.sockets or ():
        if each.port in ports and not each.address.is_loopback:
            yield Found(f"port {each.port}", f"is open on {_shown(each)}, on this host")
    config = evidence.config
    if config is not None:
        named = [(str(each.address), each.port) for each in config.book.corridor]
        named += [(str(each.address), each.port) for each in config.book.services]
        for address, number in sorted(set(named)):
            if number in ports:
                yield Found(f"port {number} at {address}", "the policy book lets devices reach it")
    for compose in evidence.composes:
        for name, service in compose.services.items():
            for port in _ports(service):
                if port.inside in ports and not port.loopback:
                    yield Found(f"{compose.path}: {name}", f"publishes port {port.inside} to every address")


def _unsigned_ports(config: Config | None) -> frozenset[int]:
    """The ports of feeds and APIs: SEDIMENT's own, and those that the configuration names."""
    ports = {FEED_PORT, API_PORT}
    for source in () if config is None else config.sources:
        if source.feed is not None:
            ports.add(source.feed.port)
        if source.api is not None:
            ports.add(source.api.address.port)
    return frozenset(ports)


def _passport_life(evidence: Evidence) -> Iterator[Found]:
    longest = _longest_age(evidence.config)
    for board in _servers(evidence):
        period = board.values.get("passport_period", "")
        if period.isascii() and period.isdigit() and int(period[:10]) > longest:
            yield Found(str(board.path), f"passport_period is {period} s; a pass admits for {longest:g} s at most")


def _longest_age(config: Config | None) -> float:
    """The longest that any device's pass admits, in seconds."""
    if config is None:
        return MAX_AGE
    rules = {source.name: source.rules for source in config.sources}
    ages = [
        rules_for(device, rules[source], config.book).max_age
        for device in config.devices
        for source in device.sources
        if source in rules
    ]
    return max(ages, default=max((each.max_age for each in rules.values()), default=MAX_AGE))


def _clocks(evidence: Evidence) -> Iterator[Found]:
    if evidence.synchronised is False:
        yield Found("this host", "its clock follows no other (adjtimex: unsynchronised)")
    for database in evidence.databases:
        ahead = database.newest - evidence.now
        if ahead > AHEAD:
            yield Found(str(database.path), f"its newest attestation lies {ahead:.0f} s in the future")
    if evidence.stale:
        yield Found("the journal", f"{evidence.stale} authentic alerts of the last day were refused for their time")


# --- containers ---------------------------------------------------------------------------------------------------


class _Port(NamedTuple):
    inside: int
    outside: str  # as written; "": the engine chooses one
    loopback: bool


def _ports(service: Mapping[str, Any]) -> Iterator[_Port]:
    """A service's published ports, in the short and the long form of the compose specification."""
    listed = service.get("ports")
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict):
            host, outside, inside = (
                str(entry.get("host_ip", "")),
                entry.get("published"),
                str(entry.get("target", "")),
            )
            yield from _span(inside, "" if outside is None else str(outside), host)
            continue
        text = str(entry).partition("/")[0]
        head, _, inside = text.rpartition(":")
        host, colon, outside = head.rpartition(":")
        yield from _span(inside, outside if colon else head, host.strip("[]"))


def _span(inside: str, outside: str, host: str) -> Iterator[_Port]:
    first, _, last = inside.partition("-")
    if not (first.isdigit() and (last or first).isdigit()):
        return
    loopback = host.startswith("127.") or host in {"::1", "localhost"}
    for port in range(int(first), min(int(last or first), int(first) + 1_000) + 1):
        yield _Port(port, outside.strip(), loopback)


def _is_kubearmor(name: str, service: Mapping[str, Any]) -> bool:
    return "kubearmor" in f"{name} {service.get('image', '')}".lower()


def _privileged(evidence: Evidence) -> Iterator[Found]:
    for compose in evidence.composes:
        for name, service in compose.services.items():
            if _is_kubearmor(name, service):  # it loads BPF programs: nothing less would do
                continue
            where = f"{compose.path}: {name}"
            if str(service.get("privileged", "")).lower() in _TRUE:
                yield Found(where, "runs privileged")
            added = service.get("cap_add")
            names = {str(each).upper().removeprefix("CAP_") for each in added} if isinstance(added, list) else set()
            if names & _PRIVILEGED_CAPABILITIES:
                yield Found(where, f"has {', '.join(sorted(names & _PRIVILEGED_CAPABILITIES))}")


def _random_ports(evidence: Evidence) -> Iterator[Found]:
    for compose in evidence.composes:
        for name, service in compose.services.items():
            chosen = sorted({port.inside for port in _ports(service) if port.outside in {"", "0"}})
            spans = sorted({port.outside for port in _ports(service) if "-" in port.outside})
            if chosen:
                listed = ", ".join(map(str, chosen[:NAMED]))
                yield Found(f"{compose.path}: {name}", f"publishes {listed} on ports that the engine chooses")
            elif spans and len({port.inside for port in _ports(service)}) == 1:
                yield Found(f"{compose.path}: {name}", f"publishes its port somewhere in {', '.join(spans)}")


# --- KubeArmor ----------------------------------------------------------------------------------------------------


def _kubearmor_port(evidence: Evidence) -> Iterator[Found]:
    ports = {KUBEARMOR_PORT, *_kubearmor_ports(evidence)}
    tls = bool(evidence.kubearmor) and all(_truth(each.values.get("tlsenabled")) for each in evidence.kubearmor)
    for each in evidence.sockets or ():
        if each.port in ports and not each.address.is_loopback and not tls:
            said = "without TLS" if evidence.kubearmor else "and nothing shows that it asks for TLS"
            yield Found(f"port {each.port}", f"is open on {_shown(each)}, {said}")
    for file in evidence.kubearmor:
        if not _truth(file.values.get("tlsenabled")):
            yield Found(str(file.path), "tlsEnabled is not true: it takes policies from anybody who connects")
    for compose in evidence.composes:
        for name, service in compose.services.items():
            if any(port.inside in ports and not port.loopback for port in _ports(service)):
                yield Found(f"{compose.path}: {name}", "publishes KubeArmor's port to every address")


def _kubearmor_ports(evidence: Evidence) -> Iterator[int]:
    for file in evidence.kubearmor:
        text = str(file.values.get("grpc", ""))
        if text.isascii() and text.isdigit() and 0 < int(text[:6]) <= 65_535:
            yield int(text)


def _kubearmor_debug(evidence: Evidence) -> Iterator[Found]:
    for file in evidence.kubearmor:
        if not _truth(file.values.get("debug")):
            yield Found(str(file.path), "debug is not true")


# --- small things -------------------------------------------------------------------------------------------------


def _truth(value: object) -> bool:
    return str(value).lower() in _TRUE


def _shown(socket: Listening) -> str:
    return "every address" if socket.address.is_unspecified else str(socket.address)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _has_boards(evidence: Evidence) -> bool:
    return bool(evidence.boards)


def _has_keys(evidence: Evidence) -> bool:
    return bool(evidence.boards or evidence.databases or evidence.pems or evidence.config)


def _has_ports(evidence: Evidence) -> bool:
    return bool(evidence.composes or evidence.config) or evidence.sockets is not None


def _has_composes(evidence: Evidence) -> bool:
    return bool(evidence.composes)


def _has_kubearmor(evidence: Evidence) -> bool:
    return bool(evidence.kubearmor)


def _has_kubearmor_port(evidence: Evidence) -> bool:
    return bool(evidence.kubearmor or evidence.composes) or evidence.sockets is not None


def _has_clocks(evidence: Evidence) -> bool:
    return evidence.synchronised is not None or bool(evidence.databases) or evidence.stale is not None


_SEDIMENT = "--sediment: its folder, or the files of configs/boards"
_COMPOSE = "--compose: the compose file of SEDIMENT's containers"
_KUBEARMOR = "--kubearmor: its kubearmor.yaml"

#: Everything that is looked for, in the order in which it is told.
CHECKS: tuple[Check, ...] = (
    Check(
        "pass-through",
        "a device that fails attestation gets a passport all the same, and its data goes on",
        "pass_thru_enabled false in the verifier's and the firewall's file, and restart both",
        _has_boards,
        _SEDIMENT,
        _pass_through,
    ),
    Check(
        "published-keys",
        "anybody can sign verdicts or speak as the device with them: they are in SEDIMENT's public repository",
        "make keys of your own (docs/sediment.md, Keys), in SEDIMENT and here",
        _has_keys,
        _SEDIMENT,
        _published_keys,
    ),
    Check(
        "unsigned-feed",
        "feed and API ask for no password: whoever reaches them makes honest attestations fail, has alerts "
        "signed for any name, or holds the verifier up by not reading",
        "let only this gateway reach the verifier's 8101 and 8102 (docs/sediment.md, Ports)",
        _has_ports,
        "--config, or --compose",
        _feed_reachable,
    ),
    Check(
        "kubearmor-port",
        "whoever reaches KubeArmor's port can remove every policy: it is plaintext and asks for no password",
        "keep the port to loopback with a packet filter, or set tlsEnabled: true",
        _has_kubearmor_port,
        _KUBEARMOR,
        _kubearmor_port,
    ),
    Check(
        "privileged-container",
        "who breaks into it owns the host, path gate and keys included; SEDIMENT's programs need no privileges",
        "remove privileged and cap_add; run it as a user of its own, read-only",
        _has_composes,
        _COMPOSE,
        _privileged,
    ),
    Check(
        "random-ports",
        "packet filter, corridor and path gate name ports: one that changes at each start is closed to the "
        "right ones or open to the wrong ones",
        "publish each port as HOST_ADDRESS:PORT:PORT",
        _has_composes,
        _COMPOSE,
        _random_ports,
    ),
    Check(
        "passport-life",
        "devices attest again when their passport ends: until then they lapse here, and in SEDIMENT a failed "
        "device keeps a passport from before",
        "passport_period below max_age by one retry: 600 with max_age: 15m",
        _has_boards,
        _SEDIMENT,
        _passport_life,
    ),
    Check(
        "clocks",
        "a pass older than 120 s or more than 2 s ahead raises nobody: devices lapse though they attest",
        "let verifier and gateway follow the same time server (chronyc tracking)",
        _has_clocks,
        "--config, or --sediment with the verifier's database",
        _clocks,
    ),
    Check(
        "kubearmor-debug",
        "KubeArmor tells of policies that it could not apply only while debug is on: an accepted policy may stand "
        "nowhere",
        "debug: true in kubearmor.yaml",
        _has_kubearmor,
        _KUBEARMOR,
        _kubearmor_debug,
    ),
)
