"""The places in the main file where policy is enforced: ``targets[]``, and where agents attach.

What lives here: the target of this host, the list of all, and what targets and agents must be to one another. What
must not: the keys of other hosts and of clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from gateway.certs.material import MaterialFiles
from gateway.config.clusters import read_cluster
from gateway.config.document import Section, Value
from gateway.config.endpoint import Endpoint
from gateway.config.parsing import parse_endpoint, parse_name
from gateway.config.remotes import read_kubearmor, read_lease, read_relay, read_remote
from gateway.config.values import ClusterTarget, RelayEntry, RemoteTarget, Target

GATES: tuple[Literal["nft", "relay"], ...] = ("nft", "relay")

AnyTarget = Target | RemoteTarget | ClusterTarget


class Targets(NamedTuple):
    """The target of this host, those that agents enforce on, and clusters."""

    own: Target
    remotes: tuple[RemoteTarget, ...] = ()
    clusters: tuple[ClusterTarget, ...] = ()


def read_targets(value: Value, base: Path, places: dict[str, str]) -> Targets:
    """Every target. ``places`` remembers where their services and relays are named. Raises ``ConfigError``."""
    items = value.items()
    if not items:
        raise value.wrong("no target is listed: nothing would be enforced", "write targets: [{name: gateway}]")
    found: list[AnyTarget] = []
    for item in items:
        section = item.section()
        section.name = "a target"
        target = _any_target(section, base, places)
        _check_apart(target, found, item)
        found.append(target)
    own = next((each for each in found if isinstance(each, Target)), None)
    if own is None:
        mend = "add the gateway's own: {name: gateway, path_gate: nft}"
        raise value.wrong("no target of this host is listed: nothing would be enforced here", mend)
    remotes = tuple(each for each in found if isinstance(each, RemoteTarget))
    return Targets(own, remotes, tuple(each for each in found if isinstance(each, ClusterTarget)))


def _check_apart(target: AnyTarget, earlier: Sequence[AnyTarget], item: Value) -> None:
    """One target of this host, one of each name, one of each agent."""
    if isinstance(target, Target) and any(isinstance(other, Target) for other in earlier):
        mend = "name its agent: {name: app-server, agent: app-server}"
        raise item.wrong("a second target of this host: a host has one path gate", mend)
    for other in earlier:
        if other.name == target.name:
            raise item.wrong(f"two targets are called {target.name}", "give each a name of its own")
        if isinstance(target, RemoteTarget) and isinstance(other, RemoteTarget) and other.agent == target.agent:
            raise item.wrong(f"agent {target.agent} is named twice", "one agent enforces on one host")


def _any_target(section: Section, base: Path, places: dict[str, str]) -> AnyTarget:
    if section.get("agent") is not None:
        return read_remote(section, places)
    if section.get("kubernetes") is not None:
        return read_cluster(section, base, places)
    return _target(section, places, base)


def read_agents(value: Value) -> Endpoint:
    """Where agents attach."""
    section = value.section()
    section.known("listen")
    return section.need("listen", "10.77.3.1:8444").parsed(parse_endpoint)


def check_link(
    top: Section, remotes: tuple[RemoteTarget, ...], agents: Endpoint | None, certificates: MaterialFiles | None
) -> None:
    """Targets with agents, where agents attach, and with which certificate, go together."""
    if remotes and agents is None:
        what = f"target {remotes[0].name} has an agent, and nowhere agents could attach"
        top.problems.add(top.where, what, "write agents: {listen: 10.77.3.1:8444}")
    if agents is not None and certificates is None:
        mend = "write certificates: {authority: certs/ca.pem, certificate: ..., key: ..., revoked: certs/ca.crl}"
        top.problems.add(top.where, "agents attach by certificates, and none are named", mend)
    if agents is not None and not remotes:
        what = "agents may attach, but no target names one"
        top.problems.add(top.where, what, "add {name: app-server, agent: app-server} to targets, or leave it out")


def _target(section: Section, places: dict[str, str], base: Path) -> Target:
    section.known("name", "required", "path_gate", "lease", "relay", "kubearmor")
    gate = section.take("path_gate", lambda item: item.choice(GATES), GATES[0])
    no_relay: tuple[RelayEntry, ...] = ()
    relay = section.take("relay", lambda value: value.gather(lambda item: read_relay(item, places)), no_relay)
    target = Target(
        section.need("name", "gateway").parsed(parse_name),
        section.take("required", Value.truth, default=True),
        gate,
        section.take("lease", read_lease, Target("").lease),
        relay,
        section.take("kubearmor", lambda item: read_kubearmor(item, base), None),
    )
    if not target.required:
        what = "the target of this host must be required: without it nothing is enforced"
        section.problems.add(section.where, what, "write required: true, or leave it out")
    if gate == "nft" and relay:
        section.problems.add(section.where, "relay entries need path_gate: relay", "change one of the two")
    if gate == "relay" and not relay and not section.problems:
        mend = "write relay: [{service: feed, listen: 127.0.0.1:8001}]"
        section.problems.add(section.where, "path_gate relay without relay entries would carry nothing", mend)
    return target
