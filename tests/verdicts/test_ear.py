"""EAR as JWT and as CWT: tiers and vectors, and every attack on signature, algorithm and key."""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from gateway.core.model import DeviceId, Outcome, Rejected, Standing, Tier, Verdict
from gateway.verdicts import Proof
from gateway.verdicts.ear import tier_of
from tests.posting import COSE, base64url, cwt, ear, ear_cbor, jwt, key_for, public_pem, sign
from tests.verdicts.bench import Bench

NOW = int(time.time())
KINDS = ("ES256", "ES384", "Ed25519", "RS256")
JOSE = {"Ed25519": "EdDSA"}


def jwt_bench(kind: str = "ES256", **more: Any) -> Bench:
    return Bench("ear-jwt", {"k1": kind}, **more)


def cwt_bench(kind: str = "ES256", **more: Any) -> Bench:
    return Bench("ear-cwt", {"k1": kind}, **more)


def as_jwt(claims: object, kind: str = "ES256", key: str = "k1", **header: Any) -> bytes:
    return jwt(key_for(key, kind), JOSE.get(kind, kind), claims, **header)


def as_cwt(claims: object, kind: str = "ES256", key: str = "k1", **more: Any) -> bytes:
    return cwt(key_for(key, kind), kind, claims, **more)


# --- what it means ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_allowed_algorithm_verifies_in_both_forms(kind: str) -> None:
    assert jwt_bench(kind).verdict(as_jwt(ear(iat=NOW), kind), NOW).outcome is Outcome.PASSED
    assert cwt_bench(kind).verdict(as_cwt({**ear_cbor(), 6: NOW}, kind), NOW).outcome is Outcome.PASSED


TIERS = [
    ("affirming", 2, Outcome.PASSED, Tier.AFFIRMING),
    ("warning", 32, Outcome.DOUBTED, Tier.WARNING),
    ("contraindicated", 96, Outcome.FAILED, Tier.CONTRAINDICATED),
    ("none", 0, Outcome.NOTED, Tier.NONE),
]


@pytest.mark.parametrize(("word", "number", "outcome", "tier"), TIERS)
def test_every_tier_has_its_outcome(word: str, number: int, outcome: Outcome, tier: Tier) -> None:
    found = jwt_bench().verdict(as_jwt(ear(word, iat=NOW)), NOW)
    assert (found.outcome, found.tier) == (outcome, tier)
    found = cwt_bench().verdict(as_cwt({**ear_cbor(number), 6: NOW}), NOW)
    assert (found.outcome, found.tier) == (outcome, tier)


@pytest.mark.parametrize(
    ("value", "tier"),
    [
        (-128, Tier.CONTRAINDICATED),
        (-97, Tier.CONTRAINDICATED),
        (-96, Tier.WARNING),
        (-33, Tier.WARNING),
        (-32, Tier.AFFIRMING),
        (-2, Tier.AFFIRMING),
        (-1, Tier.NONE),
        (0, Tier.NONE),
        (1, Tier.NONE),
        (2, Tier.AFFIRMING),
        (31, Tier.AFFIRMING),
        (32, Tier.WARNING),
        (95, Tier.WARNING),
        (96, Tier.CONTRAINDICATED),
        (127, Tier.CONTRAINDICATED),
    ],
)
def test_a_claim_of_the_vector_has_the_tier_that_ar4si_gives_it(value: int, tier: Tier) -> None:
    assert tier_of(value) is tier


@pytest.mark.parametrize(
    ("vector", "outcome"),
    [
        ({"executables": 99}, Outcome.FAILED),
        ({"executables": 2, "hardware": 33}, Outcome.DOUBTED),
        ({"executables": 2, "configuration": -1}, Outcome.NOTED),
        ({"executables": 2, "configuration": 0}, Outcome.PASSED),
        ({"something-new": 97}, Outcome.FAILED),
        ({}, Outcome.PASSED),
    ],
)
def test_a_status_is_never_better_than_its_vector(vector: dict[str, int], outcome: Outcome) -> None:
    claims = ear(iat=NOW, submods={"cam-1": {"ear.status": "affirming", "ear.trustworthiness-vector": vector}})
    found = jwt_bench().verdict(as_jwt(claims), NOW)
    assert found.outcome is outcome
    assert all(f"{name}={value}" in found.reason for name, value in vector.items())


def test_tier_and_vector_are_kept_in_the_reason() -> None:
    claims = {**ear_cbor(96), 6: NOW, 266: {"cam-1": {1000: 96, 1001: {0: 2, 2: 96, 7: -5}}}}
    found = cwt_bench().verdict(as_cwt(claims), NOW)
    assert found.reason == "EAR contraindicated instance-identity=2 executables=96 sourced-data=-5"


def test_one_token_may_speak_of_several_devices_or_all_its_modules_of_one() -> None:
    claims = ear(
        iat=NOW, sub="cam-2", submods={"cam-1": {"ear_status": "affirming"}, "cam-2": {"ear_status": "warning"}}
    )
    first, second = jwt_bench().judge(as_jwt(claims), NOW)
    assert isinstance(first, Verdict)
    assert isinstance(second, Verdict)
    assert (first.device, first.outcome) == ("cam-1", Outcome.PASSED)
    assert (second.device, second.outcome) == ("cam-2", Outcome.DOUBTED)
    whole = jwt_bench(subject="sub").verdict(as_jwt(claims), NOW)
    assert (whole.device, whole.outcome) == ("cam-2", Outcome.DOUBTED)
    assert "cam-1: affirming" in whole.reason


def test_the_device_may_be_named_by_ueid() -> None:
    ueid = bytes([1]) + bytes(16)
    claims = {**ear_cbor(), 6: NOW, 256: ueid}
    bench = cwt_bench(subject="ueid", devices=(ueid.hex(),))
    assert bench.verdict(as_cwt(claims), NOW).device == ueid.hex()
    assert cwt_bench(subject="sub").refused(as_cwt(claims), NOW) == "format"


def test_a_warning_makes_a_trusted_device_suspect_and_affirming_restores_it() -> None:
    bench = jwt_bench()
    bench.verdict(as_jwt(ear(iat=NOW)), NOW)
    bench.verdict(as_jwt(ear("warning", iat=NOW + 10)), NOW + 10)
    assert bench.records[DeviceId("cam-1")].standing is Standing.SUSPECT
    bench.verdict(as_jwt(ear("none", iat=NOW + 15)), NOW + 15)
    assert bench.records[DeviceId("cam-1")].standing is Standing.SUSPECT
    bench.verdict(as_jwt(ear(iat=NOW + 20)), NOW + 20)
    assert bench.records[DeviceId("cam-1")].standing is Standing.TRUSTED


# --- signatures, algorithms, keys ---------------------------------------------------------------------------------


def test_3_unsigned_and_stripped_tokens() -> None:
    token = as_jwt(ear(iat=NOW))
    head, body, _ = token.split(b".")
    for alg in ("none", "None", "NONE", "nOnE", ""):
        unsigned = base64url(json.dumps({"alg": alg, "kid": "k1"}).encode()) + b"." + body
        assert jwt_bench().refused(unsigned + b".", NOW) == "format"
        assert jwt_bench().refused(unsigned + b".AAAA", NOW) == "algorithm"
    assert jwt_bench().refused(head + b"." + body + b".", NOW) == "format"
    assert jwt_bench().refused(head + b"." + body, NOW) == "format"
    message = cbor2.loads(as_cwt({**ear_cbor(), 6: NOW})).value
    assert cwt_bench().refused(cbor2.dumps([*message[:3], b""]), NOW) == "signature"
    assert cwt_bench().refused(cbor2.dumps([*message[:3], None]), NOW) == "format"
    assert cwt_bench().refused(cbor2.dumps([message[0], message[1], None, message[3]]), NOW) == "format"
    assert cwt_bench().refused(cbor2.dumps([b"", {1: -7}, message[2], message[3]]), NOW) == "algorithm"


def test_3_a_public_key_is_no_hmac_secret() -> None:
    body = base64url(json.dumps(ear(iat=NOW)).encode())
    for alg in ("HS256", "HS384"):
        signed = base64url(json.dumps({"alg": alg, "kid": "k1"}).encode()) + b"." + body
        digest = hmac.digest(public_pem(key_for("k1", "RS256")), signed, "sha256")
        assert jwt_bench("RS256").refused(signed + b"." + base64url(digest), NOW) == "algorithm"


@pytest.mark.parametrize(("configured", "said"), [(a, b) for a in KINDS for b in KINDS if a != b])
def test_3_the_algorithm_is_the_keys_not_the_messages(configured: str, said: str) -> None:
    """Signed well by a key of the other kind, under the id of ours."""
    assert jwt_bench(configured).refused(as_jwt(ear(iat=NOW), said), NOW) == "algorithm"
    assert cwt_bench(configured).refused(as_cwt({**ear_cbor(), 6: NOW}, said), NOW) == "algorithm"


def test_3_of_two_keys_each_has_its_own_algorithm() -> None:
    bench = Bench("ear-jwt", {"k1": "ES256", "k2": "RS256"})
    assert bench.refused(as_jwt(ear(iat=NOW), "RS256", "k2", kid="k1"), NOW) == "algorithm"
    assert isinstance(bench.one(as_jwt(ear(iat=NOW), "RS256", "k2", kid="k2"), NOW), Verdict)


def test_4_key_ids_mean_nothing_beyond_their_source() -> None:
    foreign = as_jwt(ear(iat=NOW), key="another-sources")
    assert jwt_bench().refused(foreign, NOW) == "signature"
    assert jwt_bench().refused(as_jwt(ear(iat=NOW), kid="k2"), NOW) == "key"
    assert jwt_bench().refused(as_jwt(ear(iat=NOW), kid="../../k1"), NOW) == "key"
    two = Bench("ear-jwt", {"k1": "ES256", "k2": "ES256"})
    assert two.refused(as_jwt(ear(iat=NOW), kid=None), NOW) == "key"
    assert two.refused(as_jwt(ear(iat=NOW), kid="k2"), NOW) == "signature"
    assert isinstance(jwt_bench().one(as_jwt(ear(iat=NOW), kid=None), NOW), Verdict)
    assert cwt_bench().refused(as_cwt(ear_cbor(), protected={1: -7, 4: b"k2"}), NOW) == "key"
    assert cwt_bench().refused(as_cwt(ear_cbor(), protected={1: -7, 4: b"\xff"}), NOW) == "key"
    assert cwt_bench().refused(as_cwt(ear_cbor(), protected={1: -7, 4: "k1"}), NOW) == "format"
    assert cwt_bench().refused(as_cwt(ear_cbor(), unprotected={4: b"k2"}), NOW) == "format"


def test_4_keys_in_a_header_are_not_looked_at() -> None:
    mallory = key_for("mallory", "ES256").public_key().public_numbers()
    jwk = {"kty": "EC", "crv": "P-256"} | {
        name: base64url(value.to_bytes(32, "big")).decode() for name, value in (("x", mallory.x), ("y", mallory.y))
    }
    token = as_jwt(ear(iat=NOW), key="mallory", jwk=jwk, jku="https://mallory.example/keys", kid="k1")
    assert jwt_bench().refused(token, NOW) == "signature"


def test_5_every_altered_byte_breaks_it() -> None:
    token = as_jwt(ear(iat=NOW))
    for at in range(0, len(token), 7):
        altered = bytearray(token)
        altered[at] = ord("A") if altered[at] != ord("A") else ord("B")
        assert isinstance(jwt_bench().one(bytes(altered), NOW), Rejected)
    message = as_cwt({**ear_cbor(), 6: NOW})
    for at in range(0, len(message), 5):
        flipped = bytearray(message)
        flipped[at] ^= 1
        result = cwt_bench().judge(bytes(flipped), NOW)
        assert all(isinstance(each, Rejected) for each in result), at


def test_8_the_twin_of_a_signature_is_a_replay() -> None:
    """With (r, s) also (r, n - s) verifies: the memory must be of what was signed, not of the signature."""
    bench = jwt_bench()
    token = as_jwt(ear(iat=NOW))
    head, _, tail = token.rpartition(b".")
    signature = base64.urlsafe_b64decode(tail + b"==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    twin = signature[:32] + (order - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    assert isinstance(bench.one(token, NOW), Verdict)
    assert bench.refused(head + b"." + base64url(twin), NOW) == "replay"
    assert bench.refused(token, NOW) == "replay"


def test_5_a_der_signature_is_not_taken_for_a_raw_one() -> None:
    claims = json.dumps(ear(iat=NOW)).encode()
    signed = base64url(b'{"alg":"ES256","kid":"k1"}') + b"." + base64url(claims)
    der = key_for("k1", "ES256").sign(
        signed,
        __import__("cryptography").hazmat.primitives.asymmetric.ec.ECDSA(
            __import__("cryptography").hazmat.primitives.hashes.SHA256()
        ),
    )
    assert decode_dss_signature(der)
    assert jwt_bench().refused(signed + b"." + base64url(der), NOW) == "signature"
    zero = b"." + base64url(bytes(64))
    assert jwt_bench().refused(signed + zero, NOW) == "signature"


# --- form ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]},
        {"b64": False},
        {"kid": 7},
    ],
    ids=str,
)
def test_2_headers_that_ask_for_more_are_refused(header: dict[str, Any]) -> None:
    assert jwt_bench().refused(as_jwt(ear(iat=NOW), **header), NOW) == "format"


def test_2_spelling_of_base64_is_one() -> None:
    token = as_jwt(ear(iat=NOW))
    assert jwt_bench().refused(token + b"=", NOW) == "format"
    assert jwt_bench().refused(token.replace(b".", b". ", 1), NOW) == "format"
    assert jwt_bench().refused(b"a" + token, NOW) == "format"
    last = token[-1:]
    loose = {b"A": b"B", b"Q": b"R", b"g": b"h", b"w": b"x"}[last]
    assert jwt_bench().refused(token[:-1] + loose, NOW) == "format"


@pytest.mark.parametrize(
    "claims",
    [
        ear(iat=None),
        ear(iat="1"),
        ear(iat=1.5),
        ear(iat=True),
        ear(iat=0),
        ear(iat=NOW, exp="soon"),
        ear(iat=NOW, eat_profile="tag:example.com,2020:other"),
        ear(iat=NOW, eat_profile=None),
        ear(iat=NOW, eat_profile=[]),
        ear(iat=NOW, eat_profile={}),
        ear(iat=NOW, submods={"cam-1": {"ear_status": []}}),
        ear(iat=NOW, submods={"cam-1": {"ear_status": {}}}),
        ear(iat=NOW, submods={}),
        ear(iat=NOW, submods=[]),
        ear(iat=NOW, submods={"cam-1": {}}),
        ear(iat=NOW, submods={"cam-1": {"ear_status": "excellent"}}),
        ear(iat=NOW, submods={"cam-1": {"ear_status": 3}}),
        ear(iat=NOW, submods={"cam-1": {"ear_status": True}}),
        ear(iat=NOW, submods={"cam-1": {"ear_status": "affirming", "ear.status": "affirming"}}),
        ear(
            iat=NOW, submods={"cam-1": {"ear_status": "affirming", "ear_trustworthiness_vector": {"hardware": 200}}}
        ),
        ear(
            iat=NOW, submods={"cam-1": {"ear_status": "affirming", "ear_trustworthiness_vector": {"hardware": "2"}}}
        ),
        ear(iat=NOW, submods={"cam-1": {"ear_status": "affirming", "ear_trustworthiness_vector": [2]}}),
        ear(iat=NOW, submods={f"m{n}": {"ear_status": "affirming"} for n in range(65)}),
        [],
        b"not json",
        b'{"iat": 1, "iat": 2}',
    ],
    ids=lambda _: "claims",
)
def test_2_claims_that_are_not_so_are_refused(claims: object) -> None:
    assert jwt_bench().refused(as_jwt(claims), NOW) == "format"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        cbor2.dumps([b"", {}, b"x"]),
        cbor2.dumps({}),
        cbor2.dumps([b"\xa0", {}, b"x", b"y"] * 2),
        cbor2.dumps([b"\x01", {}, b"x", b"y"]),
        cbor2.dumps([cbor2.dumps({1: -7, 2: [1]}), {}, b"x", b"y"]),
        cbor2.dumps([b"\xa2\x01\x26\x01\x26", {}, b"x", b"y"]),
        cbor2.dumps(cbor2.CBORTag(17, [b"", {}, b"x", b"y"])),
    ],
    ids=repr,
)
def test_2_messages_that_are_no_sign1_are_refused(message: bytes) -> None:
    assert cwt_bench().refused(message, NOW) == "format"


def test_3_an_algorithm_that_nothing_protects_is_refused() -> None:
    assert cwt_bench().refused(as_cwt(ear_cbor(), unprotected={1: -7}), NOW) == "algorithm"
    assert cwt_bench().refused(as_cwt(ear_cbor(), protected={4: b"k1"}), NOW) == "algorithm"
    assert cwt_bench().refused(as_cwt(ear_cbor(), protected={1: True}), NOW) == "algorithm"
    assert cwt_bench().refused(as_cwt(ear_cbor(), protected={1: "ES256"}), NOW) == "algorithm"


def test_6_and_7_devices_and_times_are_judged_as_everywhere() -> None:
    assert jwt_bench().refused(as_jwt(ear(iat=NOW, submod="cam-9")), NOW) == "device"
    assert jwt_bench().refused(as_jwt(ear(iat=NOW, submod="c\u0430m-1")), NOW) == "device"
    assert jwt_bench().refused(as_jwt(ear(iat=NOW - 121)), NOW) == "freshness"
    assert jwt_bench().refused(as_jwt(ear(iat=NOW + 3)), NOW) == "freshness"
    assert jwt_bench().refused(as_jwt(ear(iat=NOW - 60, exp=NOW)), NOW) == "freshness"
    assert jwt_bench().refused(as_jwt(ear(iat=NOW - 60, nbf=NOW + 60)), NOW) == "freshness"
    assert jwt_bench().verdict(as_jwt(ear(iat=NOW, exp=NOW + 60)), NOW).valid_until == NOW + 60


def test_1_a_certificate_may_be_demanded_beside_the_signature() -> None:
    assert jwt_bench(proof=Proof.BOTH).refused(as_jwt(ear(iat=NOW)), NOW) == "source"


def test_an_untagged_message_and_one_with_both_tags_are_the_same() -> None:
    claims = {**ear_cbor(), 6: NOW}
    assert isinstance(cwt_bench().one(as_cwt(claims, tagged=False), NOW), Verdict)
    inner = cbor2.loads(as_cwt(claims))
    assert isinstance(cwt_bench().one(cbor2.dumps(cbor2.CBORTag(61, inner)), NOW), Verdict)


def test_a_context_string_of_another_structure_does_not_verify() -> None:
    head, payload = cbor2.dumps({1: COSE["ES256"], 4: b"k1"}), cbor2.dumps({**ear_cbor(), 6: NOW})
    wrong = sign(key_for("k1", "ES256"), "ES256", cbor2.dumps(["Signature", head, b"", payload]))
    assert cwt_bench().refused(cbor2.dumps([head, {}, payload, wrong]), NOW) == "signature"
