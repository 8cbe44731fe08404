"""Read-back: the listing of a real daemon's tables holds the policy that was sent, and a changed one does not."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.model import Address
from gateway.kubearmor.codes import Notes
from gateway.kubearmor.documents import NetworkDocument
from gateway.kubearmor.findings import Mode
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.network import Scope, build_network
from gateway.kubearmor.parse import parse
from gateway.kubearmor.pb import policy_pb2
from gateway.kubearmor.policies import NetworkPolicy, Port
from gateway.kubearmor.prefixes import Prefix
from gateway.kubearmor.readback import FAMILIES, as_policy, find, read_rules, read_shown, shown_policies

FIXTURES = Path(__file__).parent / "fixtures"

#: Captured with nft 1.0.6 from KubeArmor at commit 510cee31 after the policy below had been sent to it.
LISTINGS = {family: (FIXTURES / f"{word}-kubearmor.json").read_bytes() for family, word in FAMILIES.items()}


def policy(*addresses: str) -> NetworkPolicy:
    scope = Scope(
        (Port(8001), Port(8002, "udp"), Port(8005, "tcp", 8010)),
        always_allowed=(Prefix.parse("10.77.9.0/24"),),
        corridor=(Port(8100),),
        management=(Port(22),),
        management_from=(Prefix.parse("10.0.0.0/8"),),
    )
    admitted = map(Address.parse, addresses)
    found = build_network(scope, admitted, name="50-network-gateway-e681926e", node="*", generation=1)
    assert found is not None
    return found


SENT = policy("10.77.1.10", "10.77.1.11", "fd77:1::11", "fd77:2::/64")


@pytest.mark.parametrize("family", [4, 6])
def test_the_real_listing_holds_what_was_sent(family: int) -> None:
    rules = read_rules(LISTINGS[family], family)
    assert find(SENT, rules, family) == 2  # after loopback and conntrack
    assert rules[:2] == [None, None]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    "other",
    [
        policy("10.77.1.10", "fd77:1::11"),
        policy(),
        policy("10.77.1.10", "10.77.1.11", "10.77.1.12", "fd77:1::12", "fd77:2::/64"),
        dataclasses.replace(SENT, name="50-network-other"),
        dataclasses.replace(SENT, ingress=SENT.ingress[::-1]),
    ],
)
def test_the_real_listing_holds_no_other_policy(family: int, other: NetworkPolicy) -> None:
    assert find(other, read_rules(LISTINGS[family], family), family) is None


def test_a_rule_that_slipped_in_between_is_seen() -> None:
    listing = json.loads(LISTINGS[4])
    at = next(n for n, item in enumerate(listing["nftables"]) if "8100" in json.dumps(item))
    listing["nftables"].insert(at, {"rule": {"chain": "INPUT", "expr": [{"accept": None}]}})
    assert find(SENT, read_rules(json.dumps(listing).encode(), 4), 4) is None


@pytest.mark.parametrize(
    "listing",
    [
        b"",
        b"[]",
        b"null",
        b'{"nftables": [{"rule": {}}]}',
        b'{"nftables": [{"rule": {"chain": "\xff"}}]}',
        b'{"nftables": ' + b"[" * 100_000,
        b'{"nftables": [{"rule": {"chain": "INPUT", "expr": [{}]}}]}',
        (
            b'{"nftables": [{"rule": {"chain": "INPUT", "expr": [{"match": {"op": "==", "left": {"payload":'
            b' {"field": "saddr"}}, "right": "::1"}}]}}]}'
        ),
        (
            b'{"nftables": [{"rule": {"chain": "INPUT", "expr": [{"match": {"op": "==", "left": {"payload":'
            b' {"field": "dport", "protocol": "tcp"}}, "right": "ssh"}}]}}]}'
        ),
    ],
)
def test_what_nft_never_prints_is_refused(listing: bytes) -> None:
    with pytest.raises(DocumentRefused):
        read_rules(listing, 4)


@settings(max_examples=50)
@given(st.binary() | st.recursive(st.none() | st.integers() | st.text(), lambda i: st.lists(i)).map(json.dumps))
def test_only_the_declared_refusal_escapes(listing: bytes | str) -> None:
    with contextlib.suppress(DocumentRefused):
        read_rules(listing.encode() if isinstance(listing, str) else listing, 4)


def probe(*documents: Any) -> policy_pb2.ProbeResponse:
    response = policy_pb2.ProbeResponse()
    for document in documents:
        response.hostMap["vm"].policyDataList.add(policy=json.dumps(document).encode())
    return response


@pytest.mark.parametrize(
    "shown",
    [
        b'{"metadata": {"policyName": "\xff"}, "spec": {}}',
        b'{"metadata": {"policyName": "a"}, "spec": {"tags": 1}}',
        b'{"metadata": ' + b"[" * 100_000,
    ],
)
def test_a_probe_of_no_text_or_without_end_is_refused(shown: bytes) -> None:
    response = policy_pb2.ProbeResponse()
    response.hostMap["node"].policyDataList.add().policy = shown
    with pytest.raises(DocumentRefused):
        shown_policies(response)


def test_generations_are_read_from_the_probe() -> None:
    document = {"metadata": {"policyName": "40-host"}, "spec": {"tags": ["A", "gen=9"], "file": {}}}
    bare = {"metadata": {"policyName": "other"}, "spec": {}}
    shown = shown_policies(probe(document, bare))
    assert {name: (each.generation, each.ours) for name, each in shown.items()} == {
        "40-host": (9, False),
        "other": (None, False),
    }
    assert shown_policies(probe()) == {}


def test_our_documents_are_known_by_their_tags_and_read_with_their_selector() -> None:
    spec = {
        "selector": {"matchLabels": {"kubearmor.io/container.name": "app$"}, "identities": ["app"]},
        "tags": ["RAGATE", "PROFILE=quarantine", "gen=7"],
        "file": {"matchPaths": [{"path": "/x", "fromSource": None}]},
    }
    response = probe({"metadata": {"policyName": "40-host"}, "spec": {"tags": ["RAGATE"]}})
    for name, tags in (("60-ours", spec["tags"]), ("61-theirs", ["PROFILE=quarantine"])):
        document = {"metadata": {"policyName": name}, "spec": spec | {"tags": tags}}
        response.containerMap["app"].policyDataList.add(policy=json.dumps(document).encode())
    found = read_shown(shown_policies(response))
    ((name, (document_, generation)),) = found.items()
    assert (name, generation, document_.kind) == ("60-ours", 7, "KubeArmorPolicy")
    assert dict(document_.body.selector.labels) == {"kubearmor.io/container.name": "app$"}  # type: ignore[union-attr]


def test_a_network_document_in_the_form_whose_rules_are_found() -> None:
    def read(changed: str = "") -> NetworkPolicy | None:
        text = NETWORK.replace("ports:", f"{changed} ports:") if changed else NETWORK
        (document,) = parse(text.encode(), "x", Notes(Mode.VM))
        assert isinstance(document, NetworkDocument)
        return as_policy(document, 3)

    made = read()
    assert made is not None
    (entry,) = made.ingress
    assert (entry.ports, entry.action.value) == ((Port(22), Port(8005, "udp", 8010)), "Block")
    assert [str(peer) for peer in entry.peers] == ["10.0.0.0/8", "fd00::/8"]
    for changed in ("iface: [eth0],", "action: Audit,", "limit: 1MB,"):
        assert read(changed) is None


NETWORK = """
apiVersion: security.kubearmor.com/v1
kind: KubeArmorNetworkPolicy
metadata: {name: 60-x}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: "*"}}
  ingress:
    - {from: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: "fd00::/8"}}],
       ports: [{port: "22"}, {port: "8005", endPort: 8010, protocol: UDP}]}
  action: Block
"""


@pytest.mark.parametrize("document", [None, [], {}, {"metadata": {}}, {"metadata": {"policyName": "x"}, "spec": 3}])
def test_a_probe_that_cannot_be_read_is_refused(document: Any) -> None:
    with pytest.raises(DocumentRefused, match="cannot be read"):
        shown_policies(probe(document))
