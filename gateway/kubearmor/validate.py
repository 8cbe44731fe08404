"""Judging KubeArmor policy documents: against the published schema, and against what the engine really does.

Pure: bytes in, findings out; nothing raises but ``DocumentRefused``.
What must not live here: the rules, opening files, printing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from gateway.kubearmor.check_access import check_access
from gateway.kubearmor.check_common import check_common
from gateway.kubearmor.check_network import check_network
from gateway.kubearmor.check_select import check_containers, check_nodes
from gateway.kubearmor.check_together import Usage, check_together
from gateway.kubearmor.codes import Notes
from gateway.kubearmor.documents import (
    ContainerDocument,
    Document,
    HostDocument,
    NetworkDocument,
)
from gateway.kubearmor.findings import Finding, Mode, Severity
from gateway.kubearmor.parse import parse
from gateway.kubearmor.policies import NetworkPolicy, Policy
from gateway.kubearmor.vocabulary import API_VERSION

#: Warnings about rules that KubeArmor takes and never enforces: what a profile promises must stop something.
UNENFORCED = frozenset({"KA-IGNORED-PATTERN", "KA-IGNORED-CAPABILITY", "KA-SYSCALL-AUDIT"})


class Report(NamedTuple):
    """What was found: the documents in the order given, the findings in the order of files and lines, and how much
    of its table each container and host uses."""

    documents: tuple[Document, ...]
    findings: tuple[Finding, ...]
    usages: tuple[Usage, ...]

    def counts(self) -> Mapping[Severity, int]:
        """How many findings there are of each severity."""
        return {each: sum(finding.severity is each for finding in self.findings) for each in Severity}


def validate(files: Iterable[tuple[str, bytes]], mode: Mode) -> Report:
    """Judge the documents of some files, given as name and content, as one whole.

    Raises ``DocumentRefused`` with the place for a file that is not YAML or cannot be read within bounds.
    """
    notes = Notes(mode)
    order: dict[str, int] = {}
    documents: list[Document] = []
    for name, data in files:
        order.setdefault(name, len(order))
        documents += parse(data, name, notes)
    usages = judge(documents, notes)
    found = sorted(set(notes.found), key=lambda each: (order.get(each.file, 0), each.line, each.column, each.code))
    return Report(tuple(documents), tuple(found), usages)


def judge(documents: Sequence[Document], notes: Notes) -> tuple[Usage, ...]:
    """Judge documents that were read or built, each and together."""
    for document in documents:
        judge_alone(document, notes)
    return check_together(documents, notes)


def judge_alone(document: Document, notes: Notes) -> None:
    """Judge one document by itself."""
    check_common(document, notes)
    if isinstance(document, ContainerDocument):
        check_containers(document, document.spec.selector, notes)
        check_access(document, notes)
    elif isinstance(document, HostDocument):
        if document.spec.node_selector is not None:
            check_nodes(document.spec.node_selector, notes)
        check_access(document, notes)
    elif isinstance(document, NetworkDocument):
        check_network(document, notes)


def forbids(finding: Finding) -> bool:
    """Whether a finding keeps a document out of a profile: an error, or a rule that would not be enforced."""
    return finding.severity is Severity.ERROR or finding.code in UNENFORCED


def written(policy: Policy) -> bytes:
    """Return a policy of ours as the file that an operator would write: JSON, which is YAML."""
    kind = NetworkDocument.kind if isinstance(policy, NetworkPolicy) else HostDocument.kind
    return msgspec.json.encode({"apiVersion": API_VERSION, "kind": kind, **policy.render()})


def document_of(policy: Policy) -> Document:
    """Return a policy of ours as the document that is sent."""
    (document,) = parse(written(policy), policy.name, Notes(Mode.VM))
    return document
