"""Posted results: strict readers, the containers of signatures, every format from its bytes to verdicts."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from contextlib import suppress

import cbor2

from gateway.core.errors import InputRefused
from gateway.core.model import Envelope, Instant, Outcome, Presented, Rejected, Verdict
from gateway.verdicts import Algorithm, Proof, cose, ear, jws, load_key, strict_cbor, strict_json
from tests.fuzz.decoders.shape import Attempt, Target
from tests.posting import cwt, ear_cbor, jwt, key_for, posted, public_pem, revocation, sign, status, verdict
from tests.posting import ear as ear_claims
from tests.verdicts.bench import SOURCE, Bench

NOW = 1_795_283_400
ES256 = key_for("k1", "ES256")
KEYLIME = key_for("default", "Keylime")
JSON_WORDS = (
    b'{"',
    b'":',
    b'"}',
    b"[",
    b"]",
    b"null",
    b"true",
    b"1e9",
    b"-0",
    b"\\u0000",
    b"\\ud800",
    b'"iat":',
    b'"exp":',
    b'"submods":{',
    b'"ear_status":',
    b'"ear_trustworthiness_vector":{',
    b'"eat_profile":',
    b'"device":"cam-1"',
    b'"result":"passed"',
    b'"issued_at":',
    b'"expires_at":',
    b'"nonce":"',
    b'"source":"src"',
    b'"verdicts":[',
    b'"agent_id":"cam-1"',
    b'"results":{',
    b'"attestation_status":"PASS"',
    b'"last_received_quote":',
    b'"operational_state":3',
    b'"msg":"',
    b'"signature":"',
    b'"event_time":"',
    b'"alg":"none"',
    b'"crit":["b64"]',
)
CBOR_WORDS = (
    b"\xa1",
    b"\xbf",
    b"\xff",
    b"\x9f",
    b"\xf6",
    b"\xf9\x7e\x00",
    b"\xd2\x84",
    b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x19\x01\x09",
    b"\x19\x01\x0a",
    b"\x19\x03\xe8",
    b"\x19\x03\xe9",
    b"\x19\x03\xec",
    b"\xc2\x41\x01",
    b"\xd8\x3d",
)


def _judged(bench: Bench, data: bytes, presented: Presented | None = None) -> None:
    """One document at a clean bench: declared results only, and a pass only inside the window."""
    envelope = Envelope(data, bench.source.name, "192.0.2.9", Instant(float(NOW), 100.0), presented)
    opened = bench.authenticator.open(envelope)
    if isinstance(opened, Rejected):
        assert len(opened.detail) < 400
        return
    for statement in opened:
        result = bench.authenticator.appraise(statement, envelope, bench.records.get)
        assert isinstance(result, Verdict | Rejected)
        if isinstance(result, Verdict):
            assert str(result.device) in bench.records
            if result.outcome is Outcome.PASSED:
                assert NOW - 120 <= result.issued_at <= NOW + 2


def _posted() -> Attempt:
    bench = Bench("ragate", {}, proof=Proof.CERTIFICATE)
    return lambda data: _judged(bench, data, Presented(True))


def _detached() -> Attempt:
    """A document of somebody without the key, with a signature of another."""
    bench = Bench("ragate", {"k1": "Ed25519"})
    genuine = posted(SOURCE, verdict("cam-1", issued_at=NOW, expires_at=NOW + 600))
    signature = sign(key_for("k1"), "", genuine)

    def attempt(data: bytes) -> None:
        envelope = Envelope(
            data, bench.source.name, "", Instant(float(NOW), 1.0), Presented(False, "k1", signature)
        )
        assert isinstance(bench.authenticator.open(envelope), Rejected) == (data != genuine)
        name = data[:40].decode("utf-8", "replace")
        for presented in (Presented(False, name, signature), Presented(False, "k1", data[:80])):
            found = bench.authenticator.open(envelope._replace(data=genuine, presented=presented))
            # The only key need not be named.
            assert isinstance(found, Rejected) or (
                presented.key_id in ("", "k1") and presented.signature == signature
            )

    return attempt


def _by(how: Callable[[bytes], bytes], bench: Bench) -> Attempt:
    """The first byte: whether what follows is the container, or what somebody with the key has put into one."""

    def attempt(data: bytes) -> None:
        if data:
            _judged(bench, how(data[1:]) if data[0] & 1 else data[1:])

    return attempt


def _ear_jwt() -> Attempt:
    return _by(lambda claims: jwt(ES256, "ES256", claims), Bench("ear-jwt", {"k1": "ES256"}))


def _ear_cwt() -> Attempt:
    return _by(lambda claims: cwt(ES256, "ES256", claims), Bench("ear-cwt", {"k1": "ES256"}))


def _signed_message(message: bytes) -> bytes:
    signature = base64.b64encode(sign(KEYLIME, "Keylime", message)).decode()
    return json.dumps({"msg": message.decode("utf-8", "replace"), "signature": signature}).encode()


def _keylime() -> Attempt:
    return _by(_signed_message, Bench("keylime", {"default": "Keylime"}))


def _keylime_status() -> Attempt:
    bench = Bench("keylime-status", {})
    return lambda data: _judged(bench, data, Presented(True))


def _ear() -> Attempt:
    """Claims as any CBOR has them, past every signature."""
    source = Bench("ear-cwt", {"k1": "ES256"}).source

    def attempt(data: bytes) -> None:
        for read in (strict_cbor.decode, strict_json.decode):
            with suppress(InputRefused):
                for statement in ear.statements_of(read(data), data, source):
                    assert len(statement.reason) <= ear.REASON

    return attempt


def _strict_json() -> Attempt:
    def attempt(data: bytes) -> None:
        with suppress(InputRefused):
            value = strict_json.decode(data)
            assert strict_json.decode(json.dumps(value).encode()) == value

    return attempt


def _strict_cbor() -> Attempt:
    def attempt(data: bytes) -> None:
        with suppress(InputRefused):
            value = strict_cbor.decode(data)
            assert repr(strict_cbor.decode(cbor2.dumps(value))) == repr(value)
        with suppress(InputRefused):
            strict_cbor.untag(data, 18, 61)

    return attempt


def _containers() -> Attempt:
    with_jwt, with_cwt = Bench("ear-jwt", {"k1": "ES256"}).source, Bench("ear-cwt", {"k1": "ES256"}).source
    token, message = _jwt(), _cwt()
    genuine = {jws.verified(token, with_jwt), cose.verified(message, with_cwt)}

    def attempt(data: bytes) -> None:
        with suppress(InputRefused):
            assert jws.verified(data, with_jwt) in genuine, "nobody has the key"
        with suppress(InputRefused):
            assert cose.verified(data, with_cwt) in genuine, "nobody has the key"

    return attempt


def _load_key() -> Attempt:
    def attempt(data: bytes) -> None:
        for algorithm in Algorithm:
            with suppress(ValueError):
                assert load_key("k", algorithm, data).algorithm is algorithm

    return attempt


def _jwt() -> bytes:
    return jwt(ES256, "ES256", ear_claims(iat=NOW, jti="a"))


def _cwt() -> bytes:
    return cwt(ES256, "ES256", {**ear_cbor(), 6: NOW, 7: b"a"})


def _documents() -> Sequence[bytes]:
    one = verdict("cam-1", issued_at=NOW, expires_at=NOW + 600, nonce="00112233")
    return [posted(SOURCE, one), posted(SOURCE, one, verdict("cam-2", "failed", issued_at=NOW, nonce="aa"))]


def _revocations() -> Sequence[bytes]:
    made = revocation(KEYLIME, "cam-1", event_time="Sat Nov 21 11:50:00 2026")
    return [b"\0" + made, b"\1" + json.loads(made)["msg"].encode()]


def _statuses() -> Sequence[bytes]:
    told = {"last_received_quote": NOW, "last_successful_attestation": NOW}
    return [status("cam-1", **told), status("cam-1", attestation_status="FAIL", operational_state=9, **told)]


def _json_claims() -> bytes:
    return json.dumps(ear_claims(iat=NOW, jti="a")).encode()


def _cbor_claims() -> bytes:
    return cbor2.dumps({**ear_cbor(), 6: NOW, 7: b"a"})


TARGETS = (
    Target("verdicts.posted", ("gateway.verdicts.posted",), _posted, _documents, JSON_WORDS),
    Target(
        "verdicts.detached",
        ("gateway.verdicts.proof", "gateway.verdicts.posted"),
        _detached,
        _documents,
        JSON_WORDS,
    ),
    Target(
        "verdicts.ear-jwt",
        ("gateway.verdicts.ear_jwt", "gateway.verdicts.ear", "gateway.verdicts.jws"),
        _ear_jwt,
        lambda: [b"\0" + _jwt(), b"\1" + _json_claims()],
        JSON_WORDS,
    ),
    Target(
        "verdicts.ear-cwt",
        ("gateway.verdicts.ear_cwt", "gateway.verdicts.ear", "gateway.verdicts.cose"),
        _ear_cwt,
        lambda: [b"\0" + _cwt(), b"\1" + _cbor_claims()],
        CBOR_WORDS,
    ),
    Target(
        "verdicts.ear",
        ("gateway.verdicts.ear",),
        _ear,
        lambda: [_cbor_claims(), _json_claims()],
        (*CBOR_WORDS, *JSON_WORDS),
    ),
    Target("verdicts.keylime", ("gateway.verdicts.keylime",), _keylime, _revocations, JSON_WORDS),
    Target("verdicts.keylime-status", ("gateway.verdicts.keylime_status",), _keylime_status, _statuses, JSON_WORDS),
    Target(
        "verdicts.strict-json",
        ("gateway.verdicts.strict_json",),
        _strict_json,
        lambda: [_json_claims(), *_documents(), *_statuses()],
        JSON_WORDS,
    ),
    Target(
        "verdicts.strict-cbor",
        ("gateway.verdicts.strict_cbor",),
        _strict_cbor,
        lambda: [_cbor_claims(), _cwt()],
        CBOR_WORDS,
    ),
    Target(
        "verdicts.containers",
        ("gateway.verdicts.jws", "gateway.verdicts.cose"),
        _containers,
        lambda: [_jwt(), _cwt()],
        (*CBOR_WORDS, *JSON_WORDS),
    ),
    Target(
        "verdicts.keys",
        ("gateway.verdicts.keys",),
        _load_key,
        lambda: [public_pem(key_for("k", kind)) for kind in ("Ed25519", "ES256", "ES384", "RS256")],
        (b"-----BEGIN PUBLIC KEY-----\n",),
    ),
)
