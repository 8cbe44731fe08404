"""What should stand in a cluster, as objects: documents of profiles, and our own network policy.

Made beside the loop: a policy with 30,000 addresses takes most of a second. What did not change is the same object.
What must not live here: requests, what stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.core.model import Address
from gateway.enforce.kubernetes import objects
from gateway.enforce.kubernetes.objects import Key, Kind, Object
from gateway.enforce.kubernetes.settings import KubernetesSettings
from gateway.kubearmor.cluster import document_object, for_cluster, network_object
from gateway.kubearmor.documents import Document
from gateway.kubearmor.names import DocumentRefused, policy_name
from gateway.kubearmor.names import Kind as Named
from gateway.kubearmor.network import Scope, build_network

#: Our network policy's place in the order of names, as at a daemon without Kubernetes.
_ORDER = 50


class Made(NamedTuple):
    """What is wanted, what cannot be sent and why, and what must not be pruned yet (None: nothing may be)."""

    things: Mapping[Key, Object]
    refused: Mapping[Key, str]
    keep: frozenset[Key] | None


class Truth:
    """Remembers what it made, for one thread at a time. Raises ``DocumentRefused`` for a scope that no policy can
    be made of."""

    def __init__(self, settings: KubernetesSettings, scope: Scope) -> None:
        self._settings = settings
        self._scope = scope
        self._documents: dict[int, tuple[Document, Object | str]] = {}
        self._network: tuple[frozenset[Address], Object | str | None] | None = None
        identity = f"ragate/{settings.owner}/{settings.target}/network"
        self.own = Key(Kind.NETWORK, policy_name(_ORDER, Named.NETWORK, settings.target, identity))
        if settings.nodes is not None:
            self._policy(frozenset())

    def make(self, documents: tuple[Document, ...] | None, admitted: frozenset[Address] | None) -> Made:
        """Return what should stand for these documents and admissions; None: not known yet."""
        things: dict[Key, Object] = {}
        refused: dict[Key, str] = {}

        def put(key: Key, made: Object | str | None) -> None:
            if isinstance(made, str):
                refused[key] = made
            elif made is not None:
                things[key] = made

        wants_network = self._settings.nodes is not None
        if wants_network and admitted is not None:
            if self._network is None or self._network[0] != admitted:
                self._network = (admitted, self._tried_policy(admitted))
            put(self.own, self._network[1])
        known, self._documents = self._documents, {}
        for document in documents or ():
            before = known.get(id(document))
            if before is None or before[0] is not document:
                before = (document, self._tried(document))
            self._documents[id(document)] = before
            put(objects.key_of({"kind": document.kind, "metadata": {"name": document.name}}), before[1])
        unknown = wants_network and admitted is None
        keep = None if documents is None else frozenset({self.own} if unknown else ())
        return Made(things, refused, keep)

    def _tried(self, document: Document) -> Object | str:
        try:
            return self._limited(document_object(for_cluster(document, self._settings.namespace)))
        except DocumentRefused as error:
            return str(error)

    def _tried_policy(self, admitted: frozenset[Address]) -> Object | str | None:
        try:
            return self._policy(admitted)
        except DocumentRefused as error:
            return f"our network policy cannot be made, an older one may stand: {error}"

    def _policy(self, admitted: frozenset[Address]) -> Object | None:
        policy = build_network(self._scope, admitted, name=self.own.name, node="*", generation=0)
        nodes = self._settings.nodes
        return None if policy is None or nodes is None else self._limited(network_object(policy, nodes))

    def _limited(self, thing: Object) -> Object:
        """The object with the labels that say whose it is. Raises ``DocumentRefused`` when no cluster stores it."""
        data = objects.encode(objects.owned(thing, self._settings.owner))
        whole = objects.decode(data)  # as it is stored: compared with what comes back, value by value
        size, most = len(data), self._settings.largest
        if size > most:
            name = objects.key_of(whole)
            msg = (
                f"{name} has {size} bytes, and a cluster stores {most}: admit prefixes instead of single addresses"
            )
            raise DocumentRefused(msg)
        return whole
