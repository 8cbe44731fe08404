"""Clusters: the hands that keep documents there, where any are configured, and how they are shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gateway.app.parts import kubearmor
from gateway.config import ClusterTarget, Config
from gateway.control.ports import Advisory, Clock, Notice, TargetState
from gateway.core.model import Decision

if TYPE_CHECKING:  # imported when used: see make
    from gateway.enforce.kubernetes import Access, KubernetesAdvisory

Clusters = Mapping[str, "KubernetesAdvisory"]


def make(config: Config, clock: Clock, tell: Callable[[Notice], None]) -> Clusters:
    """One hand for each target that is a cluster. Raises ``ConfigError`` for a scope that makes no policy.

    A kubeconfig that cannot be read now is shown and tried again: nothing here keeps the path gate from starting.
    """
    if not config.clusters:
        return {}
    from gateway.enforce.kubernetes import KubernetesAdvisory, KubernetesSettings  # noqa: PLC0415

    hands: dict[str, KubernetesAdvisory] = {}
    for cluster in config.clusters:
        settings = KubernetesSettings(
            target=cluster.name,
            owner=cluster.owner,
            namespace=cluster.namespace,
            nodes=None if cluster.nodes is None else dict(cluster.nodes),
        )
        with kubearmor.refusals(config.path, cluster.name):
            scope = kubearmor.scope_of(config.book, cluster.services)
            hands[cluster.name] = KubernetesAdvisory(settings, _access(cluster), clock, scope, tell)
    return hands


def _access(cluster: ClusterTarget) -> Callable[[], Access]:
    from gateway.enforce.kubernetes import from_cluster, from_kubeconfig  # noqa: PLC0415

    kubeconfig = cluster.kubeconfig
    if kubeconfig is None:
        return lambda: from_cluster(os.environ)
    return lambda: from_kubeconfig(kubeconfig, cluster.context)


def beside(hand: KubernetesAdvisory) -> Callable[[Decision], TargetState | None]:
    """What a cluster has for a device with this decision; None: it has nothing to do with it.

    Never verified: a cluster tells what it stores, not what its nodes enforce.
    """

    def shown(decision: Decision) -> TargetState | None:
        outcome = hand.outcome(decision.profile)
        if outcome is None:
            return None
        return TargetState(
            hand.target, hand.name, False, decision.profile, outcome.stage.value, outcome.detail, None
        )

    return shown


def part_of(advisory: Advisory, clusters: Clusters) -> str:
    """The name of an advisory layer's line of readiness."""
    target = next((name for name, hand in clusters.items() if hand is advisory), None)
    return f"advisory {advisory.name}" if target is None else f"target {target}"


def counted(clusters: Clusters) -> Mapping[str, tuple[bool, Mapping[str, int]]]:
    """For metrics: whether each cluster's changes are told to us now, and how many objects got how far."""
    return {name: (hand.watching, hand.counts()) for name, hand in clusters.items()}
