"""Targets that are clusters: every mistake with its place and its mend."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import find_findings, load
from gateway.config.templates import document_targets
from gateway.core.errors import ConfigError
from tests.e2e.installed import Installed

SERVICES = [{"name": "feed", "address": "10.77.3.2", "port": 8001, "protocol": "tcp", "path": "routed"}]
CLUSTER_POLICY = """
kind: KubeArmorClusterPolicy
metadata: {name: 60-tools}
spec:
  selector: {matchExpressions: [{key: namespace, operator: In, values: [sediment]}]}
  process: {matchPaths: [{path: /usr/bin/nc, message: "of ${site.name}"}]}
  action: Block
"""


class Written:
    """A gateway's files with a cluster as a target, changed by each test."""

    def __init__(self, folder: Path) -> None:
        self.site = Installed(folder, services=SERVICES)
        self.settings = self.site.settings
        self.kubernetes: dict[str, Any] = {"kubeconfig": "edge.conf", "namespace": "sediment"}
        self.target: dict[str, Any] = {"name": "cluster", "kubernetes": self.kubernetes}
        self.settings["targets"].append(self.target)

    def book(self, **more: Any) -> None:
        path = self.site.config.parent / "book.yaml"
        self.site.write("book.yaml", {**yaml.safe_load(path.read_text()), **more})

    def profile(self, text: str) -> None:
        folder = self.site.config.parent / "profiles" / "normal"
        folder.mkdir(parents=True)
        (folder / "profile.yaml").write_text("site: true\ndocuments: [tools.yaml]\n")
        (folder / "tools.yaml").write_text(text)
        self.book(profiles="profiles")

    def load(self) -> Any:
        self.site.write("ragate.yaml", self.settings)
        return load(self.site.config)

    def error(self) -> str:
        with pytest.raises(ConfigError) as caught:
            self.load()
        return str(caught.value)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def test_a_cluster_is_read_with_what_goes_without_saying(written: Written, tmp_path: Path) -> None:
    (cluster,) = written.load().clusters
    assert (cluster.name, cluster.owner, cluster.namespace) == ("cluster", "cluster", "sediment")
    assert cluster.kubeconfig == tmp_path / "edge.conf"
    assert (cluster.context, cluster.nodes, cluster.services) == (None, None, None)


def test_everything_can_be_said(written: Written) -> None:
    nodes = {"kubernetes.io/hostname": "app-1"}
    written.kubernetes |= {"context": "edge", "owner": "gw-7", "nodes": nodes, "services": ["feed"]}
    (cluster,) = written.load().clusters
    assert (cluster.context, cluster.owner, cluster.nodes, cluster.services) == (
        "edge",
        "gw-7",
        (("kubernetes.io/hostname", "app-1"),),
        ("feed",),
    )


MISTAKES = {
    "neither": ({"kubeconfig": None}, "nothing says how the cluster is reached"),
    "both": ({"in_cluster": True}, "write exactly one of kubeconfig and in_cluster"),
    "a context in a pod": ({"kubeconfig": None, "in_cluster": True, "context": "a"}, "a pod has no contexts"),
    "no namespace": ({"namespace": None}, "namespace"),
    "a namespace that is none": ({"namespace": "../x"}, "a namespace is up to 63 of a-z 0-9 -"),
    "an owner that is none": ({"owner": "a b"}, "a label's value is up to 63"),
    "a node label that is none": ({"nodes": {"a b": "c"}}, "no key of a label"),
    "no node": ({"nodes": {}}, "no node would be meant"),
    "services of no node": ({"services": ["feed"]}, "none are named"),
    "no services": ({"nodes": {"a": "b"}, "services": []}, "services is empty"),
    "a service that is none": ({"nodes": {"a": "b"}, "services": ["fed"]}, "the book has no service 'fed'"),
    "an unknown key": ({"token": "x"}, "token"),
}


@pytest.mark.parametrize(("change", "why"), MISTAKES.values(), ids=MISTAKES.keys())
def test_every_mistake_has_its_place(written: Written, change: dict[str, Any], why: str) -> None:
    written.kubernetes |= change
    for key in [key for key, value in written.kubernetes.items() if value is None]:
        del written.kubernetes[key]
    error = written.error()
    assert why in error
    assert "ragate.yaml:" in error


def test_a_cluster_is_never_required(written: Written) -> None:
    written.target["required"] = True
    assert "its API tells that a document is stored, not that it is enforced" in written.error()
    written.target["required"] = False
    assert len(written.load().clusters) == 1


def test_two_targets_of_one_name(written: Written) -> None:
    written.settings["targets"].append(written.target)
    assert "two targets are called cluster" in written.error()


def test_kinds_of_documents_go_where_they_can(written: Written) -> None:
    config = written.load()
    targets = document_targets(config.book, "gateway", ["cluster"])
    assert targets["gateway"] == ("path_gate", "network", "host", "container")
    assert targets["cluster"] == ("network", "host", "container", "cluster")
    written.book(targets={"cluster": {"kinds": ["cluster", "host"]}})
    assert written.load().book.targets == {"cluster": ("cluster", "host")}
    written.book(targets={"cluster": {"kinds": ["path_gate"]}, "gateway": {"kinds": ["cluster"]}})
    error = written.error()
    assert "target cluster is a cluster and has no path gate" in error
    assert "target gateway is no cluster" in error


def test_a_document_for_clusters_needs_one(written: Written) -> None:
    written.profile(CLUSTER_POLICY)
    assert written.load().clusters
    written.settings["targets"].remove(written.target)
    assert "KubeArmorClusterPolicy needs Kubernetes; add a target with kubernetes:" in written.error()


def test_a_document_that_a_cluster_cannot_take_is_found_at_load(written: Written) -> None:
    written.profile(
        """
kind: KubeArmorHostPolicy
metadata: {name: 60-tools}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: "a,b"}}
  process: {matchPaths: [{path: /usr/bin/nc}]}
  action: Block
"""
    )
    error = written.error()
    assert "tools.yaml:5:" in error
    assert "names several nodes, and a label has one value" in error


def test_a_kubeconfig_that_cannot_be_used_is_a_finding_and_no_mistake(written: Written, tmp_path: Path) -> None:
    config = written.load()
    found = [each for each in find_findings(config) if each.subject == "target cluster"]
    assert [(each.severity, each.what) for each in found] == [
        ("error", f"{tmp_path / 'edge.conf'} cannot be read: No such file or directory")
    ]
    conf = tmp_path / "edge.conf"
    conf.write_text(
        "current-context: a\ncontexts: [{name: a, context: {cluster: a, user: a}}]\n"
        "clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: a, user: {}}]\n"
    )
    conf.chmod(0o600)
    assert not [each for each in find_findings(config) if each.subject == "target cluster"]


def test_two_targets_of_one_owner_at_one_cluster_are_found(written: Written) -> None:
    second = {**written.target, "name": "second", "kubernetes": {**written.kubernetes, "owner": "cluster"}}
    written.settings["targets"].append(second)
    found = [each.what for each in find_findings(written.load()) if each.subject == "target second"]
    assert any("each would delete the other's objects" in each for each in found)


def test_who_has_no_cluster_loads_nothing_of_it() -> None:
    program = "import sys, gateway.app.serve; sys.exit('gateway.enforce.kubernetes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
