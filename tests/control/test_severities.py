"""The severity of network documents, for alerts that have lost theirs."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.control.severities import Severities, SeveritiesByTarget
from gateway.kubearmor.documents import (
    Document,
    HostDocument,
    HostSpec,
    IngressEntry,
    Metadata,
    NetworkDocument,
    NetworkSpec,
)


class Layer:
    name = "kubearmor"

    def __init__(self) -> None:
        self.told: list[tuple[Sequence[Document], frozenset[str]]] = []

    def declare_documents(self, documents: Sequence[Document], absent: frozenset[str] = frozenset()) -> None:
        self.told.append((documents, absent))


def network(name: str, spec: int | None, *entries: int | None) -> NetworkDocument:
    ingress = tuple(IngressEntry(severity=each) for each in entries)
    return NetworkDocument(metadata=Metadata(name=name), spec=NetworkSpec(severity=spec, ingress=ingress))


def test_the_last_entry_says_it_as_for_the_daemon() -> None:
    layer = Layer()
    severities = Severities(layer)
    assert severities.name == "kubearmor"
    documents = (
        network("a", 4, 9, None),
        network("b", None, 3, 7),
        network("c", 4),
        HostDocument(metadata=Metadata(name="d"), spec=HostSpec(severity=9)),
    )
    severities.declare_documents(documents, frozenset({"gone"}))
    assert [severities.of(name) for name in "abcd"] == [4, 7, 0, 0]
    assert layer.told == [(documents, frozenset({"gone"}))]
    severities.declare_documents(())
    assert severities.of("a") == 0


def test_each_target_has_its_own_and_a_host_that_is_told_nothing_has_none() -> None:
    here, there = Layer(), Layer()
    known = SeveritiesByTarget()
    layers = known.before({"gateway": here, "app-server": there})
    documents = [network("a", 3, None)]
    layers["app-server"].declare_documents(documents)
    assert there.told == [(documents, frozenset())]
    assert not here.told
    assert [known.of(target, "a") for target in ("gateway", "app-server", "elsewhere")] == [0, 3, 0]
