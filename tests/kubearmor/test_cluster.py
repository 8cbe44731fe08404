"""The same documents for a cluster: what it reads differently is written differently, or refused with a mend."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.model import Address
from gateway.kubearmor.cluster import document_object, for_cluster, network_object
from gateway.kubearmor.codes import Notes
from gateway.kubearmor.documents import Document
from gateway.kubearmor.findings import Mode
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.network import Scope, build_network
from gateway.kubearmor.parse import parse
from gateway.kubearmor.policies import Port

HOST = """
kind: KubeArmorHostPolicy
metadata: {name: 60-key}
spec: {nodeSelector: {matchLabels: SELECTED}, file: {matchPaths: [{path: /a}]}, action: Block}
"""
CONTAINER = """
kind: KubeArmorPolicy
metadata: {name: 60-feeds}
spec: {selector: {matchLabels: SELECTED}, file: {matchPaths: [{path: /a}]}, action: Block}
"""
CLUSTER = """
kind: KubeArmorClusterPolicy
metadata: {name: 60-tools}
spec: {selector: SELECTED, file: {matchPaths: [{path: /a}]}, action: Block}
"""


def read(text: str, selected: str) -> Document:
    (made,) = parse(text.replace("SELECTED", selected).encode(), "file.yaml", Notes(Mode.VM))
    return made


def sent(text: str, selected: str) -> Any:
    return document_object(for_cluster(read(text, selected), "sediment"))


@pytest.mark.parametrize(
    ("selected", "labels"),
    [
        ("{kubearmor.io/hostname: edge-1}", {"kubernetes.io/hostname": "edge-1"}),
        ("{kubearmor.io/hostname: '*'}", {"kubernetes.io/os": "linux"}),
    ],
)
def test_nodes_have_the_labels_of_kubernetes(selected: str, labels: dict[str, str]) -> None:
    made = sent(HOST, selected)
    assert made["spec"]["nodeSelector"] == {"matchLabels": labels}
    assert (made["apiVersion"], made["kind"]) == ("security.kubearmor.com/v1", "KubeArmorHostPolicy")
    assert "namespace" not in made["metadata"]


@pytest.mark.parametrize(
    ("selected", "labels"),
    [
        ("{kubearmor.io/container.name: web$}", {"kubearmor.io/container.name": "[web]"}),
        ("{kubearmor.io/container.name: '[web,api]'}", {"kubearmor.io/container.name": "[web,api]"}),
        ("{app: web}", {"app": "web"}),
    ],
)
def test_containers_are_listed_in_brackets_and_live_in_a_namespace(selected: str, labels: dict[str, str]) -> None:
    made = sent(CONTAINER, selected)
    assert made["spec"]["selector"] == {"matchLabels": labels}
    assert made["metadata"] == {"name": "60-feeds", "namespace": "sediment"}


def test_a_policy_of_the_cluster_is_sent_as_it_is() -> None:
    selector = {"matchExpressions": [{"key": "namespace", "operator": "NotIn", "values": ["kube-system"]}]}
    assert sent(CLUSTER, str(selector))["spec"]["selector"] == selector


@pytest.mark.parametrize(
    ("text", "selected", "why"),
    [
        (HOST, "{kubearmor.io/hostname: 'a,b'}", "names several nodes"),
        (HOST, "{kubearmor.io/hostnamereg: edge-*}", "names several nodes"),
        (CONTAINER, "{kubearmor.io/container.name: web}", "an expression, and a cluster compares whole names"),
        (CONTAINER, "{kubearmor.io/container.name: 'web|api$'}", "an expression"),
        (CONTAINER.replace("60-feeds", "60-feeds, namespace: other"), "{a: b}", "is for namespace 'other'"),
        (CLUSTER, "{matchLabels: {a: b}}", "has no matchLabels"),
        (HOST.replace("60-key", "Sixty_key"), "{a: b}", "KA-NAME"),
    ],
)
def test_what_a_cluster_cannot_express_is_refused_with_place_and_mend(text: str, selected: str, why: str) -> None:
    with pytest.raises(DocumentRefused, match=why) as raised:
        sent(text, selected)
    assert str(raised.value).startswith("file.yaml:")
    assert ";" in str(raised.value)


def test_a_network_policy_of_ours_has_no_generation_there() -> None:
    scope = Scope((Port(8001, "tcp"),))
    policy = build_network(scope, [Address.parse("10.77.1.11")], name="50-n", node="*", generation=7)
    assert policy is not None
    made: Any = network_object(policy, {"kubernetes.io/hostname": "app-1"})
    assert made["spec"]["tags"] == ["RAGATE", "ATTESTATION"]
    assert made["spec"]["nodeSelector"] == {"matchLabels": {"kubernetes.io/hostname": "app-1"}}
    assert made["spec"]["ingress"] == policy.render()["spec"]["ingress"]  # type: ignore[index]
