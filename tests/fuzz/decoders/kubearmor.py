"""KubeArmor's side: documents in YAML, what its probe shows, rules that nft lists of it, what its streams say."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gateway.kubearmor.alerts import AlertRefused, check, read_alert, read_log, read_message
from gateway.kubearmor.codes import Notes
from gateway.kubearmor.documents import NetworkDocument
from gateway.kubearmor.findings import Mode
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.parse import parse
from gateway.kubearmor.pb import policy_pb2
from gateway.kubearmor.pb.events_pb2 import Alert, Log, Message
from gateway.kubearmor.readback import as_policy, find, read_rules, read_shown, shown_policies
from gateway.kubearmor.validate import validate
from tests.fuzz.decoders.shape import Attempt, Target, joined, pieces
from tests.kubearmor.test_alerts import RECORDED, network
from tests.kubearmor.test_readback import LISTINGS, SENT

DOCUMENTS = Path(__file__).parents[2] / "kubearmor" / "documents"


def _rules() -> Attempt:
    def attempt(data: bytes) -> None:
        for family in (4, 6):
            with suppress(DocumentRefused):
                rules = read_rules(data, family)
                at = find(SENT, rules, family)
                assert at is None or 0 <= at < len(rules)

    return attempt


def _shown() -> Attempt:
    def attempt(data: bytes) -> None:
        """A probe with every piece as a host's policy and as a container's."""
        response = policy_pb2.ProbeResponse()
        for piece in pieces(data, 8):
            response.hostMap["node"].policyDataList.add().policy = piece
            response.containerMap["one"].policyDataList.add().policy = piece
        with suppress(DocumentRefused):
            found = read_shown(shown_policies(response))
            assert all(document.name == name for name, (document, _) in found.items())

    return attempt


def _documents() -> Attempt:
    def attempt(data: bytes) -> None:
        for mode in Mode:
            with suppress(DocumentRefused):
                validate([("policy.yaml", data)], mode)
        with suppress(DocumentRefused):
            for document in parse(data, "policy.yaml", Notes(Mode.VM)):
                if isinstance(document, NetworkDocument):
                    as_policy(document, 1)

    return attempt


def _alerts() -> Attempt:
    """Whatever is taken keeps what an alert promises, so that it may cross a link."""

    def attempt(data: bytes) -> None:
        for read in (read_alert, read_log, read_message):
            with suppress(AlertRefused):
                found = read(data)
                assert found is None or check(found) == found

    return attempt


def _alert_seeds() -> Sequence[bytes]:
    log: dict[str, Any] = {"HostName": "edge", "Operation": "File", "Resource": "/a", "ProcessName": "/b"}
    return [
        network(),
        network(EventData={}),
        network(Resource="EGRESS", EventData={**RECORDED["EventData"], "SourceIP": "fd77:1::11"}),
        Alert(Type="SystemEvent", MaxAlertsPerSec=10, DroppingAlertsInterval=30).SerializeToString(),
        Alert(Type="MatchedPolicy", Action="Audit (Block)", Severity="10", **log).SerializeToString(),
        Log(Result="Permission denied", **log).SerializeToString(),
        Message(Level="ERROR", Message="Failed to apply network policies").SerializeToString(),
    ]


def _document_seeds() -> Sequence[bytes]:
    return [path.read_bytes() for path in sorted(DOCUMENTS.glob("*.yaml")) if path.stat().st_size < 2_000]


def _shown_seeds() -> Sequence[bytes]:
    shown = (
        b'{"metadata":{"policyName":"50-host-x-00000000"},"spec":{"tags":["RAGATE","PROFILE=x","gen=3"],'
        b'"nodeSelector":{"matchLabels":{"kubearmor.io/hostname":"n"}},"process":{"matchPaths":[{"path":"/a"}]},'
        b'"action":"Block"}}'
    )
    return [joined(shown), joined(shown, shown.replace(b"PROFILE=x", b"x"))]


LISTING_WORDS = (
    b'{"nftables":[',
    b'{"rule":{',
    b'"chain":"INPUT"',
    b'"expr":[',
    b'{"match":{"op":"==",',
    b'"left":{"payload":{',
    b'"field":"saddr"',
    b'"field":"dport"',
    b'"protocol":"tcp"',
    b'"right":',
    b'{"set":[',
    b'{"range":[',
    b'{"prefix":{"addr":"10.0.0.0","len":8}}',
    b'{"accept":null}',
    b'{"log":{"prefix":"',
    b"-1",
    b"1e400",
    b"null",
)
ALERT_WORDS = (
    b"MatchedNetworkPolicy",
    b"MatchedHostPolicy",
    b"SystemEvent",
    b"INGRESS",
    b"EGRESS",
    b"SourceIP",
    b"SourceIP=",
    b"DestinationIP",
    b"10.99.0.2",
    b"fe80::1%1",
    b"::ffff:1.2.3.4",
    b"Permission denied",
    b"NetworkFirewall",
    b"\\x41",
    b"ERROR",
)
SHOWN_WORDS = (b'"metadata":{', b'"policyName":"', b'"spec":{', b'"tags":[', b'"tags":1', b"null", b"[]", b"{}")
YAML_WORDS = (
    b"apiVersion: security.kubearmor.com/v1\n",
    b"kind: KubeArmorPolicy\n",
    b"kind: KubeArmorHostPolicy\n",
    b"kind: ",
    b"metadata:\n  name: a\n",
    b"spec:\n",
    b"  process:\n",
    b"    matchPaths:\n",
    b"    - path: /a\n",
    b"action: Block",
    b"  selector:\n    matchLabels:\n      a: b\n",
    b"&a",
    b"*a",
    b"<<: *a",
    b"!!int ",
    b"? ",
    b"---\n",
    b"\t",
    b"2026-01-01",
)

TARGETS = (
    Target(
        "kubearmor.rules",
        ("gateway.kubearmor.readback",),
        _rules,
        lambda: list(LISTINGS.values()),
        LISTING_WORDS,
    ),
    Target("kubearmor.shown", ("gateway.kubearmor.readback",), _shown, _shown_seeds, SHOWN_WORDS),
    Target(
        "kubearmor.documents",
        ("gateway.kubearmor.parse", "gateway.kubearmor.validate"),
        _documents,
        _document_seeds,
        YAML_WORDS,
    ),
    Target("kubearmor.alerts", ("gateway.kubearmor.alerts",), _alerts, _alert_seeds, ALERT_WORDS),
)
