"""Posted documents, with a large budget: strict readers, signatures' containers, every format; and the REST door by
its own description."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from gateway.core.errors import InputRefused
from gateway.core.model import (
    DeviceId,
    Envelope,
    Instant,
    Outcome,
    Presented,
    Record,
    Rejected,
    SourceName,
    Verdict,
)
from gateway.verdicts import Proof, cose, ear, jws, strict_cbor, strict_json
from tests.fuzz.mutants import mutants
from tests.posting import cwt, ear_cbor, jwt, key_for, posted, revocation, sign, status, verdict
from tests.posting import ear as ear_claims
from tests.verdicts.bench import SOURCE, Bench

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(900)]

NOW = int(time.time())
JWT = jwt(key_for("k1", "ES256"), "ES256", ear_claims(iat=NOW))
CWT = cwt(key_for("k1", "ES256"), "ES256", {**ear_cbor(), 6: NOW})
POSTED = posted(SOURCE, verdict("cam-1", issued_at=NOW), verdict("cam-2", "failed", issued_at=NOW))
REVOCATION = revocation(key_for("default", "Keylime"), "cam-1")
STATUS = status("cam-1")

BENCHES = {
    "ragate": Bench("ragate", {}, proof=Proof.CERTIFICATE),
    "ear-jwt": Bench("ear-jwt", {"k1": "ES256"}),
    "ear-cwt": Bench("ear-cwt", {"k1": "ES256"}),
    "keylime": Bench("keylime", {"default": "Keylime"}),
    "keylime-status": Bench("keylime-status", {}),
}
GENUINE = {"ragate": POSTED, "ear-jwt": JWT, "ear-cwt": CWT, "keylime": REVOCATION, "keylime-status": STATUS}

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 40), 1 << 41) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=5),
    max_leaves=20,
)


@given(st.sampled_from(sorted(GENUINE)).flatmap(lambda name: st.tuples(st.just(name), mutants(GENUINE[name]))))
def test_mutants_end_in_declared_results_and_say_nothing_new(
    case: tuple[str, bytes],
) -> None:
    name, data = case
    bench = BENCHES[name]
    envelope = Envelope(data, SOURCE, "192.0.2.9", Instant(float(NOW), 1.0), Presented(True))
    opened = bench.authenticator.open(envelope)
    if isinstance(opened, Rejected):
        event(f"{name}: {opened.refusal.value}")
        assert len(opened.detail) < 400
        return
    event(f"{name}: opened")
    genuine = bench.authenticator.open(envelope._replace(data=GENUINE[name]))
    if name in ("ear-jwt", "ear-cwt", "keylime"):
        assert opened == genuine  # what is signed is what is said, whatever stands around it
    for statement in opened:
        for record in (Record(), None):
            result = bench.authenticator.appraise(statement, envelope, lambda _, record=record: record)  # type: ignore[misc]
            assert isinstance(result, Verdict | Rejected)
            if isinstance(result, Verdict) and result.outcome is Outcome.PASSED:
                assert NOW - 120 <= result.issued_at <= NOW + 2


@given(values)
def test_any_signed_json_is_judged(value: object) -> None:
    data = json.dumps(value).encode()
    for name in ("ragate", "keylime-status"):
        BENCHES[name].judge(data, NOW, Presented(True))
    token = jwt(key_for("k1", "ES256"), "ES256", data)
    BENCHES["ear-jwt"].judge(token, NOW)


vectors = st.dictionaries(st.integers(-2, 9) | st.text(max_size=3), st.integers(-200, 200), max_size=9)
appraisals = st.dictionaries(
    st.sampled_from([1000, 1001, "ear.status"]), st.integers(-200, 200) | vectors | st.sampled_from([0, 2, 32, 96])
)
claims = st.dictionaries(
    st.sampled_from([6, 4, 5, 2, 256, 265, 266, "iat", "submods", 7]),
    st.integers(-5, 1 << 41)
    | st.text(max_size=5)
    | st.just(ear_cbor()[265])
    | st.just(ear_cbor()[266])
    | st.dictionaries(st.text(max_size=5), appraisals, max_size=3),
    max_size=9,
)
statuses = st.dictionaries(
    st.sampled_from(
        [
            "operational_state",
            "attestation_status",
            "attestation_count",
            "last_received_quote",
            "last_successful_attestation",
        ]
    ),
    st.integers(-1, 11) | st.sampled_from(["PASS", "FAIL", "PENDING", "TIMEOUT", ""]) | values,
)


@given(statuses, values)
def test_any_status_is_judged(results: dict[str, object], agent: object) -> None:
    for name in ("cam-1", agent):
        data = json.dumps({"agent_id": name, "answer": {"code": 200, "results": results}}).encode()
        BENCHES["keylime-status"].judge(data, NOW, Presented(True))


@given(st.dictionaries(st.sampled_from(["type", "agent_id", "event_time", "event_id", "severity_label"]), values))
def test_any_signed_notification_is_judged(more: dict[str, object]) -> None:
    data = revocation(key_for("default", "Keylime"), "cam-1", **{"event_time": time.asctime(), **more})
    BENCHES["keylime"].judge(data, NOW)


@given(claims)
def test_any_claims_are_statements_or_refused(made: dict[object, object]) -> None:
    source = BENCHES["ear-cwt"].source
    with suppress(InputRefused):
        for statement in ear.statements_of(made, b"x", source):
            event(statement.outcome.value)
            assert len(statement.reason) <= ear.REASON


@given(st.binary(max_size=400) | mutants(JWT) | st.text(alphabet="eyJhbGciO.-_=", max_size=80).map(str.encode))
def test_containers_of_json(data: bytes) -> None:
    with suppress(InputRefused):
        jws.verified(data, BENCHES["ear-jwt"].source)
    with suppress(InputRefused):
        strict_json.decode(data)


@given(st.binary(max_size=400) | mutants(CWT) | values.map(cbor2.dumps))
def test_containers_of_cbor(data: bytes) -> None:
    with suppress(InputRefused):
        cose.verified(data, BENCHES["ear-cwt"].source)
    with suppress(InputRefused):
        value = strict_cbor.decode(data)
        assert strict_cbor.decode(cbor2.dumps(value)) == value


@given(mutants(POSTED))
def test_a_detached_signature_covers_every_byte(data: bytes) -> None:
    bench = Bench("ragate", {"k1": "Ed25519"})
    presented = Presented(False, "k1", sign(key_for("k1"), "", POSTED))
    envelope = Envelope(data, SourceName(SOURCE), "192.0.2.9", Instant(float(NOW), 1.0), presented)
    assert isinstance(bench.authenticator.open(envelope), Rejected) == (data != POSTED)
    assert bench.records[DeviceId("cam-1")] == Record()


def test_the_door_keeps_to_its_description(tmp_path: Path) -> None:
    """schemathesis makes requests of every shape that the description allows, and of shapes that it does not."""
    import schemathesis
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    from tests.intake.rest.site import client, place_of, posting_site

    site = posting_site(tmp_path, request_seconds=30)
    with site.running() as service:
        described = client(site).request("GET", "/v1/openapi.json").json
        schema = schemathesis.openapi.from_dict(described)
        place = "https://{}:{}".format(*place_of(site))
        options: dict[str, Any] = {
            "cert": (str(tmp_path / "nobody.pem"), str(tmp_path / "nobody.key")),
            "verify": str(tmp_path / "site-ca.pem"),
        }

        for operation in schema.get_all_operations():
            found: Any = operation.ok()  # type: ignore[union-attr]

            @given(case=found.as_strategy())
            def hold(case: schemathesis.Case[Any]) -> None:
                # Nobody here has a key: that what the description allows is also believed cannot be asked for.
                case.call_and_validate(base_url=place, excluded_checks=[positive_data_acceptance], **options)

            hold()
        assert service.process.poll() is None
        assert service.get("/readyz").status == 200
