"""The same documents for a cluster: what Kubernetes mode reads differently is written differently.

Documents of profiles are written as a daemon without Kubernetes takes them. In a cluster, names of containers are
a list in brackets whose first and last characters are cut off unseen (``KubeArmor/core/kubeUpdate.go:1303-1313`` of
kubearmor/KubeArmor at commit 510cee31), and nodes have Kubernetes' own labels only (``:135-146``; KubeArmor adds
``kubearmor.io/hostname`` outside of Kubernetes alone, ``kubeArmor.go:516``).
What must not live here: sending, labels of ownership, what stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.kubearmor.codes import Notes, quoted
from gateway.kubearmor.documents import (
    ClusterDocument,
    ContainerDocument,
    Document,
    HostDocument,
    NetworkDocument,
    NodeSelector,
    Selector,
)
from gateway.kubearmor.elements import JSON
from gateway.kubearmor.fields import ValueRefused
from gateway.kubearmor.findings import Mode, Severity
from gateway.kubearmor.policies import NetworkPolicy
from gateway.kubearmor.validate import judge_alone
from gateway.kubearmor.vocabulary import API_VERSION, CONTAINER_LABEL, NODE_LABEL, NODE_PATTERN_LABEL

#: The labels that Kubernetes itself gives to every node (kubernetes.io/docs, "Well-Known Labels").
NODE_NAME, NODE_SYSTEM = "kubernetes.io/hostname", "kubernetes.io/os"

_EXACT = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*)\$\Z")
_LIST = re.compile(r"\[[A-Za-z0-9][A-Za-z0-9_.-]*(,[A-Za-z0-9][A-Za-z0-9_.-]*)*\]\Z")


def for_cluster(document: Document, namespace: str) -> Document:
    """Return a document as a cluster takes it; one for single containers goes to ``namespace``.

    Raises ``DocumentRefused`` for a selection that a cluster cannot express, and for what its schema refuses.
    """
    made = document
    if isinstance(document, ClusterDocument):
        if document.spec.selector is not None and document.spec.selector.labels:
            what = "a cluster policy selects by matchExpressions alone: its schema has no matchLabels"
            raise ValueRefused(
                document.spec.selector.place("labels"), f"{what}; write those, with namespace or label"
            )
    elif isinstance(document, ContainerDocument):
        made = _container(document, namespace)
    elif isinstance(document, (HostDocument, NetworkDocument)) and document.spec.node_selector is not None:
        nodes: Any = _nodes(document.spec.node_selector)
        body: Any = document.spec
        made = replace(document, spec=replace(body, node_selector=nodes))
    made = replace(made, api_version=API_VERSION)
    check_for_cluster(made)
    return made


def check_for_cluster(document: Document) -> None:
    """Raise ``DocumentRefused`` for the first error that a cluster's schema or its KubeArmor sees in a document."""
    notes = Notes(Mode.K8S)
    judge_alone(document, notes)
    for finding in notes.found:
        if finding.severity is Severity.ERROR:
            raise ValueRefused(document.at, f"in a cluster: {finding.code}: {finding.what}; {finding.mend}")


def _container(document: ContainerDocument, namespace: str) -> ContainerDocument:
    own = document.metadata.namespace
    if own not in ("", "default", namespace):
        what = f"it is for namespace {quoted(own)}, and this target keeps documents in {quoted(namespace)}"
        raise ValueRefused(document.metadata.place("namespace"), f"{what}; leave the namespace out")
    selector = document.spec.selector
    spec = document.spec if selector is None else replace(document.spec, selector=_containers(selector))
    return replace(document, metadata=replace(document.metadata, namespace=namespace), spec=spec)


def _containers(selector: Selector) -> Selector:
    labels = tuple(
        (key, _names(selector, value) if key == CONTAINER_LABEL else value) for key, value in selector.labels
    )
    return replace(selector, labels=labels)


def _names(selector: Selector, value: str) -> str:
    exact = _EXACT.match(value)
    if exact is not None:
        return f"[{exact[1]}]"
    if _LIST.match(value):
        return value
    what = f"{quoted(value)} is an expression, and a cluster compares whole names"
    raise ValueRefused(selector.place("labels"), f"{what}; write the name with '$' at its end")


def _nodes(selector: NodeSelector) -> NodeSelector:
    labels = tuple(_node(selector, key, value) for key, value in selector.labels)
    return replace(selector, labels=labels)


def _node(selector: NodeSelector, key: str, value: str) -> tuple[str, str]:
    if key == NODE_PATTERN_LABEL or (key == NODE_LABEL and "," in value):
        what = f"{quoted(value)} names several nodes, and a label has one value"
        mend = "write one document for each, '*' for every node, or a label that exactly those nodes have"
        raise ValueRefused(selector.place("labels"), f"{what}; {mend}")
    if key != NODE_LABEL:
        return key, value
    return (NODE_SYSTEM, "linux") if value == "*" else (NODE_NAME, value)


def network_object(policy: NetworkPolicy, nodes: Mapping[str, str]) -> JSON:
    """Return a network policy of ours as a cluster takes it, on the nodes with these labels.

    Without the generation that tells daemons apart what they hold: a cluster numbers what it stores.
    """
    rendered = policy.render()
    spec = rendered["spec"]
    assert isinstance(spec, dict)
    tags = [tag for tag in spec.get("tags", ()) if not tag.startswith("gen=")]
    return {
        "apiVersion": API_VERSION,
        "kind": NetworkDocument.kind,
        "metadata": {"name": policy.name},
        "spec": spec | {"nodeSelector": {"matchLabels": dict(nodes)}, "tags": tags},
    }


def document_object(document: Document) -> JSON:
    """Return a document as the object that a cluster stores."""
    return {**document.render(), "apiVersion": API_VERSION, "kind": document.kind}
