"""Which documents meet on the same container or host, as far as their selectors tell.

Labels of real containers are not known here: a container is taken to have the labels that some document selects by,
so documents whose labels are among those meet on it.
What must not live here: what follows when they meet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.kubearmor.documents import (
    ClusterDocument,
    ContainerDocument,
    ContainerSpec,
    Document,
    Expression,
    HostDocument,
    HostSpec,
    NetworkSpec,
    NodeSelector,
)
from gateway.kubearmor.findings import Place
from gateway.kubearmor.vocabulary import CONTAINER_LABEL, NODE_LABEL

_SPECIAL = frozenset(".[]()*+?{}|^$\\")

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Subject:
    """A container or host, and the policies that are for it in the order given. ``at`` is the last document."""

    name: str
    at: Place
    specs: tuple[ContainerSpec | HostSpec, ...]


def tables(documents: Sequence[Document]) -> tuple[Subject, ...]:
    """Return every distinct container and host that the documents select."""
    containers = [each for each in documents if isinstance(each, ContainerDocument)]
    hosts = [each for each in documents if isinstance(each, HostDocument)]
    return (*_containers(containers), *_hosts(hosts))


def _labels(document: ContainerDocument) -> Labels:
    return frozenset(document.spec.selector.labels) if document.spec.selector is not None else frozenset()


def _expressions(document: ContainerDocument) -> tuple[Expression, ...]:
    return document.spec.selector.expressions if document.spec.selector is not None else ()


def _containers(documents: Sequence[ContainerDocument]) -> list[Subject]:
    found: dict[tuple[object, ...], Subject] = {}
    for document in documents:
        namespace = "" if isinstance(document, ClusterDocument) else document.metadata.namespace
        labels, expressions = _labels(document), _expressions(document)
        key = (namespace, labels, expressions)
        if key in found:
            continue
        members = [each for each in documents if each is document or _is_for(each, document, namespace, labels)]
        found[key] = Subject(
            _container_name(namespace, labels, expressions), members[-1].at, tuple(each.spec for each in members)
        )
    return list(found.values())


def _container_name(namespace: str, labels: Labels, expressions: Sequence[Expression]) -> str:
    words = [f"{key}={value}" for key, value in sorted(labels)]
    words += [f"{each.key} {each.operator} {','.join(each.values)}" for each in expressions]
    return f"container [{'; '.join(words)}]" + (f" in {namespace}" if namespace else "")


def _is_for(other: ContainerDocument, own: ContainerDocument, namespace: str, labels: Labels) -> bool:
    """Whether ``other`` is for the container that ``own`` selects, which has ``labels``."""
    same = _expressions(other) == _expressions(own)
    if isinstance(own, ClusterDocument):
        return isinstance(other, ClusterDocument) and same
    if not isinstance(other, ClusterDocument) and other.metadata.namespace != namespace:
        return False
    return (same or all(_holds(each, namespace, labels) for each in _expressions(other))) and _within(other, labels)


def _within(document: ContainerDocument, labels: Labels) -> bool:
    """Whether a container with ``labels`` has all that the document's own labels ask for."""
    asked, known = dict(_labels(document)), dict(labels)
    pattern = asked.pop(CONTAINER_LABEL, None)
    named = pattern is None or _matches(pattern, known.get(CONTAINER_LABEL, ""))
    return named and frozenset(asked.items()) <= labels


def _matches(pattern: str, name: str) -> bool:
    """Whether a container name's expression matches the container of another; a plain one matches as a prefix."""
    if not name or pattern == name:
        return bool(name)
    bare = pattern.removesuffix("$")
    if _SPECIAL & set(bare):
        return False
    plain = name.removesuffix("$")
    return bare == plain if pattern.endswith("$") else plain.startswith(bare)


def _holds(expression: Expression, namespace: str, labels: Labels) -> bool:
    known = {namespace} if expression.key == "namespace" else {f"{key}={value}" for key, value in labels}
    listed = bool(known.intersection(expression.values))
    return listed if expression.operator == "In" else not listed


def _node_labels(selector: NodeSelector | None) -> Mapping[str, str]:
    return dict(selector.labels) if selector is not None else {}


def _names(selector: NodeSelector | None) -> frozenset[str]:
    labels = _node_labels(selector)
    names = labels.get(NODE_LABEL, "").split(",") if NODE_LABEL in labels else ()
    others = {f"{key}={value}" for key, value in labels.items() if key != NODE_LABEL}
    return frozenset((*names, *others))


def _hosts(documents: Sequence[HostDocument]) -> list[Subject]:
    every = sorted({name for each in documents for name in _names(each.spec.node_selector)})
    named = [name for name in every if name != "*"] or every
    found = []
    for name in named:
        members = [each for each in documents if _names(each.spec.node_selector) & {name, "*"}]
        what = "every host" if name == "*" else f"host {name}"
        found.append(Subject(what, members[-1].at, tuple(each.spec for each in members)))
    return found


def same_host(one: NetworkSpec, other: NetworkSpec) -> bool:
    """Whether two network policies surely meet on some host."""
    mine, theirs = _names(one.node_selector), _names(other.node_selector)
    return bool(mine & theirs) or (bool(mine and theirs) and "*" in mine | theirs)
