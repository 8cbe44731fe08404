"""Posting over HTTPS to the real service: what is answered, durable and enforced."""

from __future__ import annotations

import time

import msgspec
from openapi_spec_validator import validate

from tests.e2e.installed import until
from tests.intake.rest.conftest import Site
from tests.intake.rest.site import client
from tests.posting import cwt, ear, ear_cbor, jwt, key_for, posted, revocation, status, verdict


def test_a_pass_is_answered_when_it_is_enforced_and_read_back(site: Site) -> None:
    sender = client(site.files)
    answer = sender.post(posted("rp", verdict("cam-4")), source="rp", key=key_for("rp"), key_id="k1")
    assert answer.status == 200, answer
    (result,) = answer.json["results"]
    assert answer.json["state"] == "verified"
    assert (result["device"], result["accepted"], result["standing"]) == ("cam-4", True, "trusted")
    assert 0 < result["milliseconds"] < 60_000
    assert site.service.device("cam-4")["targets"][0]["state"] == "verified"


def test_202_comes_when_it_is_durable_and_the_receipt_is_of_the_content(site: Site) -> None:
    sender = client(site.files)
    body = posted("rp", verdict("cam-1", "noted"))
    answer = sender.post(body, source="rp", key=key_for("rp"), key_id="k1", wait=False)
    assert answer.status == 202, answer
    (row,) = [result["journal"] for result in answer.json["results"]]
    assert row in [each["seq"] for each in site.service.device("cam-1")["verdicts"]]
    again = sender.post(body, source="rp", key=key_for("rp"), key_id="k1", wait=False)
    assert again.status == 202
    assert again.json["receipt"] == answer.json["receipt"]
    assert again.json["results"][0]["journal"] == row
    other = sender.post(posted("rp", verdict("cam-1", "noted")), source="rp", key=key_for("rp"), key_id="k1")
    assert other.json["receipt"] != answer.json["receipt"]


def test_many_in_one_request_are_judged_in_order(site: Site) -> None:
    now = int(time.time())
    body = posted(
        "rp",
        verdict("cam-2", issued_at=now),
        verdict("cam-2", issued_at=now),
        verdict("nobody"),
        verdict("cam-3"),  # the source other's
        verdict("cam-2", "failed", issued_at=now + 1),
    )
    answer = client(site.files).post(body, source="rp", key=key_for("rp"), key_id="k1")
    assert answer.status == 200, answer
    results = answer.json["results"]
    assert [result["accepted"] for result in results] == [True, False, False, False, True]
    assert [result.get("step", "") for result in results] == ["", "order", "device", "device", ""]
    assert results[-1]["standing"] == "distrusted"


def test_every_format_reaches_the_devices(site: Site) -> None:
    sender = client(site.files)
    token = jwt(key_for("ear", "ES256"), "ES256", ear("warning", submod="cam-2"))
    answer = sender.post(token, source="ear", media_type="application/eat+jwt")
    assert answer.status == 200, answer
    message = cwt(key_for("cwt", "ES384"), "ES384", ear_cbor(submod="cam-2"))
    assert sender.post(message, source="cwt", media_type="application/eat+cwt; x=1").status == 200
    notice = sender.post(revocation(key_for("keylime", "Keylime"), "cam-3"), source="keylime")
    assert notice.status in (200, 202), notice  # all that Keylime's verifier takes for success
    assert notice.json["results"][0]["standing"] == "distrusted"
    answer = client(site.files, "status").post(status("cam-2"))
    assert answer.status == 200, answer
    assert answer.json["source"] == "status"


def test_tier_and_vector_are_in_the_history(site: Site) -> None:
    claims = ear(
        "affirming",
        submod="both",
        submods={
            "both": {"ear_status": "affirming", "ear_trustworthiness_vector": {"hardware": 2, "executables": 33}}
        },
    )
    token = jwt(key_for("ear", "ES256"), "ES256", claims)
    answer = client(site.files).post(token, source="ear", media_type="application/eat+jwt")
    assert answer.status == 200, answer
    wanted = "EAR warning (status affirming) hardware=2 executables=33"
    until(lambda: wanted in str(site.service.device("both")), lambda: site.service.device("both"))


def test_the_published_description_is_valid_and_names_what_is_served(site: Site) -> None:
    answer = client(site.files).request("GET", "/v1/openapi.json")
    assert answer.status == 200
    validate(answer.json)
    assert set(answer.json["paths"]) == {"/v1/verdicts", "/v1/openapi.json"}
    schemas = answer.json["components"]["schemas"]
    assert {"PostedVerdicts", "PostedVerdict", "Taken", "Problem", "Outcome"} <= set(schemas)
    assert schemas["PostedVerdict"]["additionalProperties"] is False


def test_answers_are_of_the_published_types(site: Site) -> None:
    from gateway.intake.rest.answers import Problem, Taken

    sender = client(site.files)
    good = sender.post(posted("rp", verdict("cam-1", "noted")), source="rp", key=key_for("rp"), key_id="k1")
    assert msgspec.json.decode(good.body, type=Taken).source == "rp"
    bad = sender.post(b"{}", source="rp")
    assert bad.headers["content-type"].startswith("application/problem+json")
    assert msgspec.json.decode(bad.body, type=Problem).step == "signature"


def test_other_paths_methods_and_queries(site: Site) -> None:
    sender = client(site.files)
    assert sender.request("GET", "/").status == 404
    assert sender.request("GET", "/v1/verdicts").status == 405
    assert sender.request("DELETE", "/v1/openapi.json").headers["allow"] == "GET"
    for query in ("?wait=durable", "?wait=verified&wait=verified", "?x=1"):
        assert (
            sender.request("POST", f"/v1/verdicts{query}", b"{}", {"Content-Type": "application/json"}).status
            == 400
        )
    assert sender.post(b"{}", source="rp", media_type="text/plain").status == 415
    assert sender.post(b"{}", source="rp", headers={"Content-Encoding": "gzip"}).status == 415
    assert sender.post(b"{}", source="rp", headers={"Ragate-Signature": "???"}).status == 400
    for word in ("x" * 65, "caf\xe9"):
        assert sender.post(b"{}", source=word).status == 400


def test_the_doors_are_shown_where_operators_look(site: Site) -> None:
    """Each has a line of its own, and says until when its certificate lasts."""
    parts = {part["part"]: part for part in site.service.get("/readyz").json["parts"]}
    for name in ("rest", "rpc"):
        line = parts[f"door {name}"]
        assert line["ready"]
        assert "certificate ends in 1.0 days" in line["detail"]
        ends = site.service.metric("ragate_certificate_not_after_timestamp_seconds", holder=f"door {name}")
        assert 0 < ends - time.time() < 86_401
    checked = site.files.run("check").stdout
    assert "door rest" in checked
