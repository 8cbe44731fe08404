"""Rules about values that all kinds of document share: names, actions, severities, tags.

What must not live here: rules about one kind, about several documents.
"""

from __future__ import annotations

import re

import msgspec

from gateway.kubearmor.budget import acting
from gateway.kubearmor.codes import Notes, quoted
from gateway.kubearmor.documents import (
    ClusterDocument,
    ContainerDocument,
    Document,
    Expression,
    HostDocument,
    NetworkDocument,
)
from gateway.kubearmor.elements import Acting, Remarked, descend
from gateway.kubearmor.findings import Mode
from gateway.kubearmor.policies import MAX_EVENT
from gateway.kubearmor.rules import Preset
from gateway.kubearmor.vocabulary import ACTIONS, MAX_NAME, MAX_NETWORK_NAME, SEVERITIES

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?\Z")

#: Bytes of an object that a cluster's store takes by default (etcd's request limit).
_MAX_OBJECT = 1_572_864

#: Namespaces that say nothing: people write the second by habit.
_UNSAID = ("", "default")


def check_common(document: Document, notes: Notes) -> None:
    """Note what is wrong with a document whatever its kind."""
    _check_name(document, notes)
    for element in descend(document):
        if isinstance(element, Remarked):
            _check_remarks(element, notes)
        if isinstance(element, Acting) and element.action and element.action not in ACTIONS:
            _check_action(element, document, notes)
        if isinstance(element, Expression):
            _check_expression(element, document, notes)
    _check_namespace(document, notes)
    _check_effect(document, notes)
    size = len(msgspec.json.encode(document.render()))
    most = MAX_EVENT if notes.mode is Mode.VM else _MAX_OBJECT
    if size > most:
        mend = f"keep it below {most} bytes: aggregate addresses, or split it"
        notes.add("KA-SIZE", document.at, f"the document has {size} bytes", mend)
    if isinstance(document, ClusterDocument):
        mend = "write kind: KubeArmorPolicy with selector.matchLabels"
        notes.add("KA-KIND-VM", document.at, f"{document.kind} needs Kubernetes", mend)


def _check_name(document: Document, notes: Notes) -> None:
    name, place = document.name, document.metadata.place("name")
    if not name:
        return
    most = MAX_NETWORK_NAME if isinstance(document, NetworkDocument) else MAX_NAME
    mend = "use a-z, 0-9 and '-', up to 63"
    if "/" in name or ".." in name:
        notes.add("KA-NAME-PATH", place, f"the name {quoted(name)} is a path", mend)
    elif not _NAME.match(name):
        notes.add("KA-NAME", place, f"the name {quoted(name)} has other characters", mend)
    if len(name) > most:
        notes.add("KA-NAME-LONG", place, f"the name has {len(name)} characters", f"use up to {most}, better 63")


def _check_remarks(element: Remarked, notes: Notes) -> None:
    if element.severity is not None and element.severity not in SEVERITIES:
        notes.add("KA-SEVERITY", element.place("severity"), f"severity {element.severity}", "write 1 to 10")
    for tag in element.tags:
        if "," in tag:
            mend = "write it as two tags, or use another sign"
            notes.add("KA-TAG", element.place("tags"), f"tag {quoted(tag)} has a comma", mend)


def _check_action(element: Acting, document: Document, notes: Notes) -> None:
    mend = next((word for word in ACTIONS if word.lower() == element.action.lower()), "")
    if element is document.body and mend and element.action == mend.lower() and notes.mode is Mode.VM:
        return  # the daemon normalises exactly this
    what = f"action {quoted(element.action)} is not known"
    choices = f"write {mend}" if mend else f"write one of: {', '.join(ACTIONS)}"
    notes.add("KA-ACTION", element.place("action"), what, choices)


def _check_expression(element: Expression, document: Document, notes: Notes) -> None:
    keys = ("namespace", "label") if isinstance(document, ClusterDocument) else ("label",)
    if element.key not in keys:
        what = f"key {quoted(element.key)} is not known"
        notes.add("KA-EXPRESSION", element.place("key"), what, f"write one of: {', '.join(keys)}")
    if element.operator not in {"In", "NotIn"}:
        what = f"operator {quoted(element.operator)} is not known"
        notes.add("KA-EXPRESSION", element.place("operator"), what, "write In or NotIn")


def _check_namespace(document: Document, notes: Notes) -> None:
    namespaced = type(document) is ContainerDocument and notes.mode is Mode.K8S
    if document.metadata.namespace not in _UNSAID and not namespaced:
        what = f"namespace {quoted(document.metadata.namespace)} has no effect"
        notes.add("KA-NAMESPACE", document.metadata.place("namespace"), what, "remove it")


def _check_effect(document: Document, notes: Notes) -> None:
    """Whether the document does anything, and more than audit."""
    spec = document.body
    rules = list(acting(spec))
    presets = [element for element in descend(spec) if isinstance(element, Preset)]
    calls = bool(getattr(spec, "syscalls", None))
    if not rules and not presets and not calls and not getattr(spec, "apparmor", ""):
        notes.add("KA-NO-RULES", document.place("spec"), "there are no rules", "write rules or remove it")
        return
    words = {action for _, action in rules} | {preset.action for preset in presets}
    if words == {"Audit"} and not isinstance(document, NetworkDocument):
        mend = "write action: Block where it should stop something"
        notes.add("KA-AUDIT-ONLY", document.place("spec"), "every rule audits", mend)
    said = any(element.action for element in descend(spec) if isinstance(element, (Acting, Preset)))
    if rules and not said:
        kind = "host" if isinstance(document, HostDocument) else "policy"
        mend = "write action: Block to say so"
        notes.add("KA-ACTION-DEFAULT", document.place("spec"), f"this {kind} says no action: it blocks", mend)
