"""Clusters where KubeArmor's documents are kept as custom resources: a part of the main file.

What lives here: reading those sections, and what is to be said of them. What must not: requests to an API server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from gateway.config.document import Section, Value
from gateway.config.parsing import parse_name
from gateway.config.values import ClusterTarget
from gateway.core.errors import ConfigError
from gateway.core.policy import Finding

CLUSTER_KEYS = ("name", "required", "kubernetes")
KUBERNETES_KEYS = ("kubeconfig", "in_cluster", "context", "namespace", "owner", "nodes", "services")

#: A DNS label (RFC 1123), as namespaces are called.
NAMESPACE = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
#: The value of a label (kubernetes.io/docs, "Labels and Selectors").
LABEL = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
#: The key of a label: a DNS name and a slash may stand before it.
LABEL_KEY = rf"([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{LABEL}"


def read_cluster(section: Section, base: Path, places: dict[str, str]) -> ClusterTarget:
    """A target that is a cluster. ``places`` remembers where services are named."""
    section.known(*CLUSTER_KEYS)
    name = section.need("name", "cluster").parsed(parse_name)
    required = section.get("required")
    if required is not None and required.truth():
        what = "a cluster cannot be required: its API tells that a document is stored, not that it is enforced"
        raise required.wrong(what, "leave required out, and let a path gate admit")
    wanted = section.need("kubernetes", "{kubeconfig: cluster.kubeconfig, namespace: sediment}").section()
    wanted.known(*KUBERNETES_KEYS)
    file = wanted.take("kubeconfig", lambda item: base / item.text(), None)
    inside = wanted.take("in_cluster", Value.truth, default=False)
    if inside == (file is not None):
        what = "write exactly one of kubeconfig and in_cluster: true"
        raise ConfigError(wanted.where, f"nothing says how the cluster is reached: {what}" if not inside else what)
    context = wanted.get("context")
    if context is not None and inside:
        raise context.wrong("a pod has no contexts", "leave context out, or write kubeconfig")
    services = wanted.get("services")
    listed: tuple[str, ...] | None = None
    if services is not None:
        listed = services.gather(lambda item: item.parsed(parse_name))
        if wanted.get("nodes") is None:
            what = "services are gated on the nodes that serve them, and none are named"
            raise services.wrong(what, "write nodes: {kubernetes.io/hostname: app-1}")
        if not listed:
            raise services.wrong("services is empty: nothing would be gated", "name one, or leave it out")
        places[f"services of {name}"] = services.where
    no_owner: str | None = None
    return ClusterTarget(
        name,
        file,
        None if context is None else context.text(),
        wanted.need("namespace", "sediment").parsed(_like(NAMESPACE, "a namespace is up to 63 of a-z 0-9 -")),
        wanted.take("owner", lambda item: item.parsed(_like(LABEL, _NO_LABEL)), no_owner)
        or name[:63].rstrip("._-"),
        wanted.take("nodes", _nodes, None),
        listed,
    )


_NO_LABEL = "a label's value is up to 63 of A-Z a-z 0-9 . _ -, with a letter or digit at both ends"


def _like(pattern: str, rule: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            msg = f"{text[:64]!r}: {rule}"
            raise ValueError(msg)
        return text

    return parse


def _nodes(value: Value) -> tuple[tuple[str, str], ...]:
    found = []
    for _, key, item in value.section().pairs():
        label = key.parsed(_like(LABEL_KEY, "no key of a label, such as kubernetes.io/hostname"))
        found.append((label, item.parsed(_like(LABEL, _NO_LABEL))))
    if not found:
        raise value.wrong("nodes without labels: no node would be meant", "write {kubernetes.io/hostname: app-1}")
    return tuple(found)


def cluster_findings(clusters: tuple[ClusterTarget, ...], environment: Mapping[str, str]) -> Iterator[Finding]:
    """What an operator should look at about clusters; nothing is asked of them."""
    if not clusters:
        return
    # Only who has a cluster pays for the client's import.
    from gateway.enforce.kubernetes import AccessRefused, from_cluster, from_kubeconfig  # noqa: PLC0415

    for cluster in clusters:
        try:
            if cluster.kubeconfig is None:
                from_cluster(environment)
            else:
                from_kubeconfig(cluster.kubeconfig, cluster.context)
        except AccessRefused as error:
            yield Finding("error", f"target {cluster.name}", error.wrong, error.mend)
    owners: dict[str, str] = {}
    for cluster in clusters:
        other = owners.setdefault(cluster.owner, cluster.name)
        if other != cluster.name and _same(clusters, cluster, other):
            what = f"it has the owner of target {other}, at the same cluster: each would delete the other's objects"
            yield Finding("error", f"target {cluster.name}", what, "write owner: with another word at one of them")


def _same(clusters: tuple[ClusterTarget, ...], cluster: ClusterTarget, other: str) -> bool:
    first = next(each for each in clusters if each.name == other)
    return (first.kubeconfig, first.context) == (cluster.kubeconfig, cluster.context)
