"""What the doctor finds in SEDIMENT's files, keys and databases, and around its ports.

What lives here: judging evidence of SEDIMENT, whose facts are those of v1.0.0. What must not: gathering it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from gateway.config.doctor.containers import ports_of
from gateway.config.doctor.evidence import Board, Evidence
from gateway.config.doctor.found import TRUE, Found, listed, shown
from gateway.config.values import Config
from gateway.core.policy import rules_for
from gateway.sediment.keys import HMAC_KEY_SIZE, is_published_hmac_key, is_published_signing_key

#: SEDIMENT's unsigned services, as its verifier opens them unless told otherwise: GUI feed and API.
FEED_PORT, API_PORT = 8101, 8102


#: Seconds by which the verifier's clock may be ahead; the window in which a pass is taken.
AHEAD = 2.0
#: Seconds that a pass admits where there is no configuration to ask.
MAX_AGE = 900.0


_HEX_KEY = re.compile(r"[0-9A-Fa-f]{64}\Z")


def _servers(evidence: Evidence) -> Iterator[Board]:
    """The files of verifier and firewall: what a prover's file says of passports, its device alone knows."""
    return (board for board in evidence.boards if not any(key.startswith("prover ") for key in board.values))


def pass_through(evidence: Evidence) -> Iterator[Found]:
    """Devices that fail get a passport all the same."""
    for board in _servers(evidence):
        if board.values.get("pass_thru_enabled", "").lower() in TRUE:
            yield Found(str(board.path), "pass_thru_enabled is true")


def published_keys(evidence: Evidence) -> Iterator[Found]:
    """Keys that stand in SEDIMENT's public repository."""
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
            yield Found(str(database.path), f"published authKeys: {listed(named)}")
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


def feed_reachable(evidence: Evidence) -> Iterator[Found]:
    """Unsigned services that others than this gateway reach."""
    ports = _unsigned_ports(evidence.config)
    for each in evidence.sockets or ():
        if each.port in ports and not each.address.is_loopback:
            yield Found(f"port {each.port}", f"is open on {shown(each)}, on this host")
    config = evidence.config
    if config is not None:
        named = [(str(each.address), each.port) for each in config.book.corridor]
        named += [(str(each.address), each.port) for each in config.book.services]
        for address, number in sorted(set(named)):
            if number in ports:
                yield Found(f"port {number} at {address}", "the policy book lets devices reach it")
    for compose in evidence.composes:
        for name, service in compose.services.items():
            for port in ports_of(service):
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


def passport_life(evidence: Evidence) -> Iterator[Found]:
    """Passports that last longer than a pass admits here."""
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


def clocks(evidence: Evidence) -> Iterator[Found]:
    """Clocks apart."""
    if evidence.synchronised is False:
        yield Found("this host", "its clock follows no other (adjtimex: unsynchronised)")
    for database in evidence.databases:
        ahead = database.newest - evidence.now
        if ahead > AHEAD:
            yield Found(str(database.path), f"its newest attestation lies {ahead:.0f} s in the future")
    if evidence.stale:
        yield Found("the journal", f"{evidence.stale} authentic alerts of the last day were refused for their time")
