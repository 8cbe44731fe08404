"""Reading the sources that post their results, and the doors at which they do.

What lives here: the sections ``sources[]`` of every format but SEDIMENT's, ``doors.rest`` and ``doors.rpc``, and
what they must be to one another. What must not: the other sections.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from collections.abc import Mapping, Sequence
from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cryptography import x509

from gateway.config.common import read_seconds
from gateway.config.document import Problems, Section, Value, read_bytes
from gateway.config.endpoint import Endpoint
from gateway.config.parsing import parse_endpoint, parse_source_name
from gateway.config.posters import PostDoor, Poster, PostLimits
from gateway.core.errors import ConfigError
from gateway.core.lifecycle import Rules
from gateway.core.model import SourceName
from gateway.verdicts import Algorithm, Format, Key, Proof, VerdictSource, load_key
from gateway.verdicts.keylime import DEFAULT_KEY

KEY_FILE = 1 << 14  #: bytes of one key's or certificate's file
CA_FILE = 1 << 20  #: bytes of a bundle of certificates or a revocation list
KEYS = 100_000  #: keys of one source; Keylime has one for each agent
RATE, RATE_MOST = 20_000, 1_000_000  #: verdicts a second of one source

POSTER_KEYS = (
    "name",
    "format",
    "proof",
    "keys",
    "certificates",
    "subject",
    "zone",
    "max_age",
    "grace",
    "recovery_passes",
    "rate",
)
DOOR_KEYS = ("listen", "certificate", "key", "client_ca", "client_crl", "limits")
LIMIT_KEYS = ("connections", "silent", "connections_per_peer", "body", "request_seconds", "idle_seconds")

CONNECTIONS_MOST = 65_536  #: no process has more descriptors than ports
BODY_LEAST, BODY_MOST = 1_024, 1 << 20  #: bytes of one document
SECONDS_LEAST, SECONDS_MOST = 0.1, 3_600.0  #: of a request, and of silence

#: How a client's certificate is named.
CERTIFICATE = r"^(sha256:[0-9a-f]{64}|dns:[a-z0-9*][a-z0-9.*-]{0,252}|uri:[!-~]{1,512})$"
_CERTIFICATE = re.compile(CERTIFICATE)
_KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")


# --- sources ------------------------------------------------------------------------------------------------------


def read_poster(section: Section, base: Path, form: Format, rules: Rules) -> Poster:
    """Return one source of a posted format. Raises ``ConfigError``; single mistakes are remembered."""
    section.known(*POSTER_KEYS)
    name = SourceName(section.need("name", "verifier").parsed(parse_source_name))
    proofs = {proof.value: proof for proof in form.proofs}
    proof = section.take("proof", lambda item: proofs[item.choice(tuple(proofs))], form.proofs[0])
    no_keys: tuple[Key, ...] = ()
    no_certificates: tuple[str, ...] = ()
    keys = section.take("keys", lambda item: _keys(item, base, form), no_keys)
    certificates = section.take("certificates", lambda item: item.gather(_certificate), no_certificates)
    if not section.problems:
        if proof.signature and not keys:
            mend = f"write keys: [{{id: {DEFAULT_KEY}, file: {name}.pem}}]"
            section.problems.add(section.where, f"source {name} must sign, and no key of it is listed", mend)
        if proof.certificate and not certificates:
            mend = "write certificates: ['dns:NAME'], or sha256: and the fingerprint"
            what = f"source {name} is known by its client certificate, and none is listed"
            section.problems.add(section.where, what, mend)
        if not proof.signature and keys:
            what = f"source {name} has keys, but its proof is the client certificate alone"
            section.problems.add(section.where, what, "write proof: both, or leave the keys out")
    subject = ""
    if form.subjects:
        subject = section.take("subject", lambda item: item.choice(form.subjects), form.subjects[0])
    elif section.get("subject") is not None:
        section.problems.add(section.where, f"format {form.name} names its devices itself", "leave subject out")
    zone: tzinfo = UTC
    if form.zoned:
        zone = section.take("zone", lambda item: item.parsed(_zone), zone)
    elif section.get("zone") is not None:
        section.problems.add(section.where, f"format {form.name} writes UTC", "leave zone out")
    rate = section.take("rate", lambda item: item.whole(1, RATE_MOST), RATE)
    source = VerdictSource(name, {key.id: key for key in keys}, proof, subject, zone)
    return Poster(source, form.name, certificates, rules, float(rate))


def _keys(value: Value, base: Path, form: Format) -> tuple[Key, ...]:
    places: dict[str, str] = {}

    def read(item: Value) -> Key:
        section = item.section()
        section.name = "a key"
        section.known("id", "algorithm", "file")
        algorithms = {each.value: each for each in form.algorithms}
        algorithm: Algorithm = section.take(
            "algorithm", lambda each: algorithms[each.choice(tuple(algorithms))], form.algorithms[0]
        )
        key_id = section.need("id", DEFAULT_KEY).parsed(_key_id)
        earlier = places.setdefault(key_id, section.where)
        if earlier != section.where:
            raise section.wrong(f"key {key_id} is listed at {earlier} already", "give each key its own id")
        place = section.need("file", "verifier.pem")
        try:
            return load_key(key_id, algorithm, read_bytes(base / place.text(), KEY_FILE))
        except (ConfigError, ValueError) as error:
            raise place.wrong(str(error)) from error

    if len(value.items()) > KEYS:
        raise value.wrong(f"more than {KEYS} keys", "make it several sources")
    return value.gather(read)


def _key_id(text: str) -> str:
    if not _KEY_ID.fullmatch(text):
        msg = f"{text[:64]!r} must be 1 to 64 of A-Z a-z 0-9 . _ : - and start with a letter or digit"
        raise ValueError(msg)
    return text


def _certificate(value: Value) -> str:
    text = value.text()
    if not _CERTIFICATE.fullmatch(text):
        what = f"{text[:80]!r} names no certificate"
        mend = "write 'sha256:' and 64 hex digits, or 'dns:' and a name, in small letters, or 'uri:' and a URI"
        raise value.wrong(what, mend)
    return text


def _zone(text: str) -> tzinfo:
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        msg = f"{text[:64]!r} is no time zone that this host knows, such as Europe/Berlin"
        raise ValueError(msg) from error


def check_posters(posters: Sequence[Poster], where: Mapping[SourceName, str], problems: Problems) -> None:
    """Remember what no two sources may share: one key or one certificate could otherwise speak for both."""
    keys: dict[str, SourceName] = {}
    names: dict[str, SourceName] = {}
    for poster in posters:
        for key in poster.verdicts.keys.values():
            other = keys.setdefault(key.fingerprint, poster.name)
            if other != poster.name:
                what = f"key {key.id} is a key of source {other}, too: whoever has it would speak for both"
                problems.add(where[poster.name], what, "make a key of its own for each source")
        for certificate in poster.certificates:
            other = names.setdefault(certificate, poster.name)
            if other != poster.name:
                what = f"certificate {certificate} belongs to source {other} already"
                problems.add(where[poster.name], what, "give each source's client a certificate of its own")


# --- doors --------------------------------------------------------------------------------------------------------


def read_post_door(value: Value, base: Path) -> PostDoor:
    """Return ``doors.rest`` or ``doors.rpc``. Raises ``ConfigError``."""
    section = value.section()
    section.known(*DOOR_KEYS)
    door = PostDoor(
        _listen(section.need("listen", "0.0.0.0:8443")),
        base / section.need("certificate", "gateway.pem").text(),
        base / section.need("key", "gateway.key").text(),
        section.take("client_ca", lambda item: base / item.text(), None),
        section.take("client_crl", lambda item: base / item.text(), None),
        section.take("limits", _limits, PostLimits()),
    )
    if door.client_crl is not None and door.client_ca is None:
        raise section.wrong("client_crl without client_ca revokes nothing", "name the CA, or leave the list out")
    _check_files(section, door)
    return door


def _listen(value: Value) -> tuple[Endpoint, ...]:
    values = value.items() if value.is_list else [value]
    found = tuple(item.parsed(parse_endpoint) for item in values)
    if not found or len(set(found)) != len(found):
        raise value.wrong("listen names no place, or one twice", "write listen: 0.0.0.0:8443")
    return found


def _limits(value: Value) -> PostLimits:
    section = value.section()
    section.known(*LIMIT_KEYS)
    standard = PostLimits()

    def number(item: Value) -> int:
        return item.whole(1, CONNECTIONS_MOST)

    def seconds(item: Value) -> float:
        return read_seconds(item, SECONDS_LEAST, SECONDS_MOST)

    return PostLimits(
        section.take("connections", number, standard.connections),
        section.take("silent", number, standard.silent),
        section.take("connections_per_peer", number, standard.connections_per_peer),
        section.take("body", lambda item: item.whole(BODY_LEAST, BODY_MOST), standard.body),
        section.take("request_seconds", seconds, standard.request_seconds),
        section.take("idle_seconds", seconds, standard.idle_seconds),
    )


def _check_files(section: Section, door: PostDoor) -> None:
    """A door that could not shake hands is found at start, not at the first client."""
    place = section.need("key", "")
    try:
        mode = door.key.stat().st_mode
    except OSError as error:
        what = f"{door.key} cannot be read: {error.strerror}"
        raise place.wrong(what, "check the path and its rights") from error
    if stat.S_IMODE(mode) & (stat.S_IRWXO | stat.S_IRWXG) & ~stat.S_IRGRP:
        what = f"others may use {door.key.name} (mode {stat.S_IMODE(mode):04o})"
        raise place.wrong(what, f"chmod 600 {door.key.name}, and make a new key")
    try:
        read_bytes(door.certificate, CA_FILE)
    except ConfigError as error:
        raise section.need("certificate", "").wrong(f"{error.where}: {error.what}", error.mend) from error
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(door.certificate, door.key, _no_password)
    except (ssl.SSLError, OSError) as error:
        what = f"certificate and key cannot be used: {error}"
        raise place.wrong(what, "give the chain as PEM, and the key that belongs to it, unencrypted") from error
    for name, path in (("client_ca", door.client_ca), ("client_crl", door.client_crl)):
        if path is None:
            continue
        try:
            data = read_bytes(path, CA_FILE)
            if name == "client_ca":
                x509.load_pem_x509_certificates(data)
            else:
                x509.load_pem_x509_crl(data)
        except ConfigError as error:
            raise section.need(name, "").wrong(f"{error.where}: {error.what}", error.mend) from error
        except ValueError as error:
            raise section.need(name, "").wrong(f"{os.fspath(path)} is not PEM of its kind: {error}") from error


def _no_password() -> str:
    raise ConfigError("the key", "is encrypted", "give it unencrypted, readable by the service alone")


def check_doors(
    posters: Sequence[Poster],
    doors: Sequence[PostDoor | None],
    places: Mapping[SourceName, str],
    problems: Problems,
) -> None:
    """Remember sources that no door could serve, and doors for nobody."""
    standing = [door for door in doors if door is not None]
    for poster in posters:
        where = places[poster.name]
        if not standing:
            mend = "write doors: {rest: {listen: 0.0.0.0:8443, certificate: gateway.pem, key: gateway.key}}"
            problems.add(where, f"source {poster.name} posts its results, and there is no door for that", mend)
        elif poster.verdicts.proof is not Proof.SIGNATURE and all(door.client_ca is None for door in standing):
            what = f"source {poster.name} is known by its client certificate, and no door asks for one"
            problems.add(where, what, "name client_ca at the door")
