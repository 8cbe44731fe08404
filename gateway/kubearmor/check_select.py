"""Rules about what a document selects: containers by labels or name, hosts by labels.

What must not live here: rules about rules.
"""

from __future__ import annotations

import re

from gateway.kubearmor.codes import Notes, quoted
from gateway.kubearmor.documents import ClusterDocument, ContainerDocument, Document, NodeSelector, Selector
from gateway.kubearmor.findings import Mode, Place
from gateway.kubearmor.vocabulary import CONTAINER_LABEL, NODE_LABEL, NODE_PATTERN_LABEL

#: Characters that mean something in a POSIX expression.
_SPECIAL = frozenset(".[]()*+?{}|^$\\")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")


def check_containers(document: Document, selector: Selector | None, notes: Notes) -> None:
    """Note what is wrong with the selection of a container, cluster or container network policy."""
    place = document.place("spec") if selector is None else selector.at
    labels = dict(selector.labels) if selector is not None else {}
    if selector is not None and selector.expressions:
        what = "matchExpressions select nothing without Kubernetes"
        notes.add("KA-EXPRESSION-VM", selector.place("expressions"), what, "write matchLabels")
    if not labels and not isinstance(document, ClusterDocument):
        chosen = selector is not None and selector.expressions and notes.mode is Mode.K8S
        mistyped = selector is not None and notes.has("KA-TYPE", selector.place("labels"))
        if not chosen and not mistyped:
            mend = "write selector: {matchLabels: {…}}"
            notes.add("KA-SELECTOR-EMPTY", place, "selector.matchLabels is missing or empty", mend)
        return
    if selector is not None and CONTAINER_LABEL in labels and isinstance(document, ContainerDocument):
        _check_container_name(labels, selector.place("labels"), notes)


def _check_container_name(labels: dict[str, str], place: Place, notes: Notes) -> None:
    name = labels[CONTAINER_LABEL]
    if not (name.startswith("[") and name.endswith("]")):
        notes.add("KA-CONTAINER-LIST", place, f"{quoted(name)} is not in brackets", f'write "[{name}]"')
    if len(labels) > 1:
        notes.add("KA-CONTAINER-LABELS", place, f"{CONTAINER_LABEL} has company", "keep it alone, or leave it out")
    if not _compiles(name):
        what = f"{quoted(name)} is no expression"
        notes.add("KA-CONTAINER-PATTERN", place, what, "write the container's name, with '$' at the end")
    elif not name.endswith("$"):
        what = f"{quoted(name)} also matches longer names"
        notes.add("KA-CONTAINER-REGEX", place, what, f"write {name}$ unless others are meant")


def _compiles(expression: str) -> bool:
    """Whether a POSIX expression compiles. Plain names are sure to; Python's own reading decides for the rest."""
    if not _SPECIAL.intersection(expression):
        return True
    try:
        re.compile(expression)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def check_nodes(selector: NodeSelector, notes: Notes) -> None:
    """Note what is wrong with the selection of hosts."""
    mend = f"write matchLabels: {{{NODE_LABEL}: name}}, or '*' for every host"
    if not selector.labels and not notes.has("KA-TYPE", selector.place("labels")):
        notes.add("KA-NODE-EMPTY", selector.at, "this nodeSelector has no labels", mend)
    for key, value in selector.labels:
        place = selector.place("labels")
        if key.endswith("hostnamereg"):
            what = f"{quoted(value)} matches anywhere in a name"
            notes.add("KA-NODE-REGEX", place, what, "list the names, separated by commas")
        if key not in {NODE_LABEL, NODE_PATTERN_LABEL}:
            notes.add("KA-NODE-LABEL", place, f"no host has the label {quoted(key)}", mend)
        if key == NODE_LABEL and not all(name == "*" or _PLAIN_NAME.match(name) for name in value.split(",")):
            notes.add("KA-NODE-NAME", place, f"{quoted(value)} is no host name", mend)
