"""The severity of each network document that stands at a target, for alerts that have lost theirs.

KubeArmor keeps the policies of a host and those of its network in one table for naming alerts, and whichever was
changed last replaces the other's part: after a host policy, alerts of network policies come without severity, tags
and message (``KubeArmor/feeder/policyMatcher.go:1163,1198`` of kubearmor/KubeArmor at commit 510cee31; seen with
the daemon). What must not live here: what a severity means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.control.documents import TakesDocuments
from gateway.kubearmor.documents import Document, NetworkDocument


class Severities:
    """Stands before a layer that takes documents, and remembers them on the way. Implements ``TakesDocuments``."""

    def __init__(self, layer: TakesDocuments) -> None:
        self._layer = layer
        self._known: Mapping[str, int] = {}

    @property
    def name(self) -> str:
        """The layer's."""
        return self._layer.name

    def declare_documents(self, documents: Sequence[Document], absent: frozenset[str] = frozenset()) -> None:
        """Remember their severities and pass them on."""
        self._known = {each.name: _severity(each) for each in documents if isinstance(each, NetworkDocument)}
        self._layer.declare_documents(documents, absent)

    def of(self, policy: str) -> int:
        """The severity of a network policy by its name; 0: none, or not known."""
        return self._known.get(policy, 0)


class SeveritiesByTarget:
    """The same for several targets: of this host, and of hosts whose agents tell what they hear."""

    def __init__(self) -> None:
        self._targets: dict[str, Severities] = {}

    def before(self, layers: Mapping[str, TakesDocuments]) -> Mapping[str, TakesDocuments]:
        """These layers by target, each behind one who remembers the severities that it is told from now on."""
        made = {target: Severities(layer) for target, layer in layers.items()}
        self._targets |= made
        return made

    def of(self, target: str, policy: str) -> int:
        """The severity of a network policy by its name at one target; 0: none, or not known."""
        known = self._targets.get(target)
        return 0 if known is None else known.of(policy)


def _severity(document: NetworkDocument) -> int:
    """The last entry's, as the daemon itself has it: a later entry overwrites what an earlier one said."""
    found = 0
    spec = document.spec
    for entry in (*spec.ingress, *spec.egress):
        found = entry.severity or spec.severity or 0
    return found
