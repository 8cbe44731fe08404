"""What a KubeArmor daemon does, as far as the hand relies on it: the fake, and a real one where there is one.

The environment's ``KUBEARMOR_COMMAND`` names a program that runs a daemon in the foreground, with its state kept
between two starts and its ports 32767 and 32766; its argument is ``new`` when it is to start without any policy,
and ``again`` otherwise. It is started for each test, so the tests are to be run in a network and mount namespace of
their own (docs/kubearmor.md tells how). Without it only the fake is asked.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import pytest

from gateway.core.errors import BackendError
from gateway.core.model import Address
from gateway.enforce.kubearmor.client import Daemon, DaemonError
from gateway.enforce.kubearmor.lookup import RuleLookup
from gateway.enforce.kubearmor.parts import Named
from gateway.enforce.kubearmor.settings import KubeArmorSettings
from gateway.enforce.kubearmor.tables import NftTables
from gateway.kubearmor import policies
from gateway.kubearmor.anchor import to_wire
from gateway.kubearmor.content import normal
from gateway.kubearmor.host import Hardening, build_host
from gateway.kubearmor.names import Kind, policy_name
from gateway.kubearmor.network import Scope, build_network
from gateway.kubearmor.pb.policy_pb2 import PolicyStatus
from gateway.kubearmor.policies import EventType, Port, render_event
from gateway.kubearmor.readback import FAMILIES, find, read_rules, read_shown, shown_policies
from gateway.kubearmor.shards import split
from tests.fakes.kubearmor import FakeKubeArmor

COMMAND = os.environ.get("KUBEARMOR_COMMAND", "")
Doc = dict[str, Any]
NODE = {"nodeSelector": {"matchLabels": {"kubearmor.io/hostname": "*"}}}
ALONE = pytest.mark.netns


class Node(Protocol):
    """A daemon that can be ended and started, and the tables of its host."""

    @property
    def address(self) -> str: ...

    @property
    def health(self) -> str: ...

    async def start(self) -> None: ...

    async def die(self) -> None: ...

    async def read(self, family: int) -> bytes | None: ...

    async def flush(self, family: int) -> None: ...


class FakeNode(FakeKubeArmor):
    async def flush(self, family: int) -> None:
        assert self.chains is not None
        self.chains[family].clear()


class RealNode:
    address = "127.0.0.1:32767"
    health = "127.0.0.1:32766"

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._tables = NftTables(30.0, 1 << 26)
        self._how = "new"

    async def start(self) -> None:
        how, self._how = self._how, "again"
        log = os.open(os.environ.get("KUBEARMOR_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            self._process = await asyncio.create_subprocess_exec(
                COMMAND, how, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        finally:
            os.close(log)

    async def die(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
            await self._process.wait()
        self._process = None

    async def stop(self) -> None:
        """An orderly end."""
        if self._process is not None and self._process.returncode is None:
            await self.die(signal.SIGTERM)

    async def read(self, family: int) -> bytes | None:
        return await self._tables.read(family)

    async def flush(self, family: int) -> None:
        nft = await asyncio.create_subprocess_exec("nft", "flush", "chain", FAMILIES[family], "kubearmor", "INPUT")
        assert await nft.wait() == 0


class Site:
    """One daemon and a connection to it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.settings = KubeArmorSettings(address=node.address, health=node.health, rpc_timeout=60.0)
        self.daemon = Daemon(self.settings)
        self._sent: dict[tuple[Kind, str], Doc] = {}

    async def ready(self) -> None:
        """Wait until it serves and its restore has been quiet for a while."""
        async with asyncio.timeout(120):
            while True:
                try:
                    if not await self.daemon.serving():
                        await self.daemon.probe()
                        break
                except DaemonError:
                    pass
                await self.daemon.close()
                await asyncio.sleep(0.1)
                self.daemon = Daemon(self.settings)
        await asyncio.sleep(1.0 if isinstance(self.node, RealNode) else 0.05)

    async def again(self) -> None:
        """Ended without warning, and started."""
        await self.node.die()
        await self.daemon.close()
        await self.node.start()
        self.daemon = Daemon(self.settings)
        await self.ready()

    async def event(self, kind: Kind, what: str, name: str, spec: Doc) -> int:
        if what == "ADDED":
            self._sent[kind, name] = spec
        return await self.raw(kind, {"type": what, "object": {"metadata": {"name": name}, "spec": spec}})

    async def raw(self, kind: Kind, event: object) -> int:
        data = event if isinstance(event, bytes) else json.dumps(event).encode()
        return await self.daemon.send(kind, data)

    async def clear(self) -> None:
        for (kind, name), spec in self._sent.items():
            await self.event(kind, "DELETED", name, spec)

    async def shown(self) -> dict[str, Doc]:
        return {name: dict(each.spec) for name, each in shown_policies(await self.daemon.probe()).items()}

    async def rules(self, family: int) -> list[str]:
        """The rules of our chain as text, without the fixed ones at both ends."""
        listing = await self.node.read(family)
        assert listing is not None
        objects = json.loads(listing)["nftables"]
        rules = [item["rule"]["expr"] for item in objects if item.get("rule", {}).get("chain") == "INPUT"]
        return [json.dumps(rule) for rule in rules if "Host INPUT" not in json.dumps(rule)][2:]


@pytest.fixture(params=["fake", *([pytest.param("real", marks=ALONE)] if COMMAND else [])])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    node: FakeNode | RealNode = RealNode() if request.param == "real" else FakeNode()
    await node.start()
    made = Site(node)
    try:
        await made.ready()
        yield made
        try:
            await made.clear()
        except BackendError:
            await made.again()
            await made.clear()
    finally:
        await made.daemon.close()
        await node.stop()


def host(tag: str = "gen=1", path: str = "/etc/ragate.key") -> Doc:
    return {**NODE, "file": {"matchPaths": [{"path": path, "ownerOnly": True}]}, "action": "Block", "tags": [tag]}


def network(*cidrs: str, tag: str = "gen=1", action: str = "Block", **entry: Any) -> Doc:
    sources = [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]
    return {**NODE, "ingress": [{"from": sources, "action": action, **entry}], "action": "Block", "tags": [tag]}


def container(name: str, tag: str = "gen=1") -> Doc:
    selector = {"matchLabels": {"kubearmor.io/container.name": name}}
    file = {"matchPaths": [{"path": "/srv/feed"}]}
    return {"selector": selector, "file": file, "action": "Block", "tags": [tag]}


@pytest.mark.parametrize("kind", [Kind.HOST, Kind.NETWORK])
async def test_the_words_of_answers(site: Site, kind: Kind) -> None:
    def spec(tag: str) -> Doc:
        return host(tag) if kind is Kind.HOST else network("192.0.2.1/32", "100::/128", tag=tag)

    assert await site.event(kind, "ADDED", "one", spec("gen=1")) == PolicyStatus.Applied
    assert await site.event(kind, "ADDED", "one", spec("gen=1")) == PolicyStatus.Applied
    assert await site.event(kind, "ADDED", "one", spec("gen=2")) == PolicyStatus.Modified
    assert await site.event(kind, "DELETED", "one", spec("gen=2")) == PolicyStatus.Deleted
    assert await site.event(kind, "DELETED", "one", spec("gen=2")) == PolicyStatus.NotExist


async def test_the_words_of_answers_for_containers(site: Site) -> None:
    kind, selected = Kind.CONTAINER, to_wire("web$")
    assert await site.event(kind, "ADDED", "c", container(selected)) == PolicyStatus.Applied
    assert await site.event(kind, "ADDED", "c", container(selected, "gen=2")) == PolicyStatus.Applied
    assert (await site.shown())["c"]["tags"] == ["gen=2"]
    assert await site.event(kind, "DELETED", "c", container(selected)) == PolicyStatus.Deleted
    assert await site.event(kind, "DELETED", "c", container(selected)) == PolicyStatus.NotExist
    assert "c" not in await site.shown()
    await site.again()
    assert "c" not in await site.shown()


async def test_a_name_that_does_not_find_itself_is_never_quite_deleted(site: Site) -> None:
    """``web$`` as it is: gone from memory, answered NotExist, and back after the next start."""
    await site.event(Kind.CONTAINER, "ADDED", "c", container("web$"))
    assert await site.event(Kind.CONTAINER, "DELETED", "c", container("web$")) == PolicyStatus.NotExist
    assert "c" not in await site.shown()
    await site.again()
    assert "c" in await site.shown()


async def test_containers_with_names_alike_are_kept_apart(site: Site) -> None:
    names = ("web$", "web-admin$", "myweb$", "we$")
    for number, name in enumerate(names):
        await site.event(Kind.CONTAINER, "ADDED", f"c{number}", container(to_wire(name)))
    reply = await site.daemon.probe()
    assert {place: list(found.policyList) for place, found in reply.containerMap.items()} == {
        to_wire(name): [f"c{number}"] for number, name in enumerate(names)
    }


async def test_a_policy_for_another_container_than_before_leaves_the_first(site: Site) -> None:
    for name in ("web$", "other$"):
        await site.event(Kind.CONTAINER, "ADDED", "c", container(to_wire(name)))
    reply = await site.daemon.probe()
    assert [list(found.policyList) for found in reply.containerMap.values()] == [["c"]]
    assert list(reply.containerMap) == [to_wire("other$")]


async def test_a_container_policy_needs_a_selector(site: Site) -> None:
    assert await site.raw(Kind.CONTAINER, _event("ADDED", "c", {"action": "Block"})) == PolicyStatus.Invalid


async def test_a_container_policy_deleted_by_another_selector_comes_back(site: Site) -> None:
    await site.event(Kind.CONTAINER, "ADDED", "c", container(to_wire("web$")))
    assert await site.event(Kind.CONTAINER, "DELETED", "c", container(to_wire("other$"))) == PolicyStatus.NotExist
    await site.again()
    assert "c" in await site.shown()


def _event(what: object, name: object, spec: object) -> Doc:
    return {"type": what, "object": {"metadata": {"name": name}, "spec": spec}}


@pytest.mark.parametrize("kind", [Kind.HOST, Kind.NETWORK])
@pytest.mark.parametrize(
    "event",
    [
        b"{",
        b"[]",
        _event("ADDED", "", {}),
        _event("ADDED", 7, {}),
        _event("ADDED", "x", {"severity": "8"}),
        _event("ADDED", "x", {"tags": "gen=1"}),
        _event("ADDED", "x", {"ingress": [{"ports": [{"port": 80}]}], "severity": "8"}),
    ],
)
async def test_what_does_not_decode_is_invalid(site: Site, kind: Kind, event: object) -> None:
    assert await site.raw(kind, event) == PolicyStatus.Invalid


async def test_unknown_fields_are_dropped_in_silence(site: Site) -> None:
    spec = host() | {"fiel": {"matchPaths": []}, "annotations": 7}
    assert await site.event(Kind.HOST, "ADDED", "one", spec) == PolicyStatus.Applied
    shown = (await site.shown())["one"]
    assert "fiel" not in shown


async def test_modified_for_an_unknown_name_is_stored_for_the_next_start(site: Site) -> None:
    spec = host()
    assert await site.event(Kind.HOST, "MODIFIED", "ghost", spec) == PolicyStatus.Modified
    assert "ghost" not in await site.shown()
    await site.again()
    assert "ghost" in await site.shown()
    assert await site.event(Kind.HOST, "DELETED", "ghost", spec) == PolicyStatus.Deleted


async def test_modified_for_an_unknown_container_policy_ends_the_daemon(site: Site) -> None:
    with pytest.raises(DaemonError):
        await site.event(Kind.CONTAINER, "MODIFIED", "c", container("web$"))
    await site.again()
    assert "c" not in await site.shown()


async def test_the_probe_shows_host_and_container_policies_and_no_network_policy(site: Site) -> None:
    await site.event(Kind.HOST, "ADDED", "h", host())
    await site.event(Kind.CONTAINER, "ADDED", "c", container(to_wire("web$")))
    await site.event(Kind.NETWORK, "ADDED", "n", network("192.0.2.1/32", "100::/128"))
    reply = await site.daemon.probe()
    assert not reply.networkMap
    shown = shown_policies(reply)
    assert {name: each.generation for name, each in shown.items()} == {"h": 1, "c": 1}
    assert shown["h"].spec["file"]["matchPaths"][0]["path"] == "/etc/ragate.key"  # type: ignore[index]


async def test_the_action_of_the_spec_is_filled_into_the_rules(site: Site) -> None:
    """What is read back is not what was sent: rules carry their own action, and the action of the whole is kept."""
    await site.event(Kind.HOST, "ADDED", "h", host())
    shown = (await site.shown())["h"]
    rule = shown["file"]["matchPaths"][0]
    assert (rule["path"], rule["ownerOnly"], rule["action"]) == ("/etc/ragate.key", True, "Block")
    assert shown["action"] == "Block"


async def test_our_own_policies_are_found_as_they_were_sent(site: Site) -> None:
    scope = Scope((Port(8001), Port(8002, "udp"), Port(9000, "tcp", 9010)), corridor=(Port(8100),))
    admitted = [Address.parse(text) for text in ("10.77.1.11", "10.77.1.12", "10.77.1.13", "fd77:1::11")]
    policy = build_network(scope, admitted, name="50-network-x", node="*", generation=5)
    assert policy is not None
    assert await site.raw(Kind.NETWORK, render_event(EventType.ADDED, policy)) == PolicyStatus.Applied
    for family in FAMILIES:
        assert find(policy, read_rules(await _listing(site, family), family), family) is not None
    own = build_host(Hardening(journal="/var/j.db", sealed=("/etc/x",)), name="40-host-x", node="*", generation=5)
    assert own is not None
    assert await site.raw(Kind.HOST, render_event(EventType.ADDED, own)) == PolicyStatus.Applied
    assert shown_policies(await site.daemon.probe())["40-host-x"].generation == 5
    assert await site.raw(Kind.HOST, render_event(EventType.DELETED, own)) == PolicyStatus.Deleted
    assert await site.raw(Kind.NETWORK, render_event(EventType.DELETED, policy)) == PolicyStatus.Deleted


RICH: Doc = {
    "process": {"matchPaths": [{"path": "/bin/y", "action": "Audit", "message": "m"}], "severity": 3},
    "file": {
        "matchPaths": [{"path": "/srv/feed"}, {"path": "/srv/key", "ownerOnly": True}],
        "matchDirectories": [{"dir": "/srv/", "recursive": True, "fromSource": [{"path": "/bin/x"}]}],
    },
    "network": {"matchProtocols": [{"protocol": "udp,tcp"}]},
    "severity": 7,
    "message": "x",
    "action": "block",
    "tags": ["RAGATE", "PROFILE=x", "gen=3"],
}


async def test_what_was_sent_is_known_again_and_an_edit_is_noticed(site: Site) -> None:
    selector = {"selector": {"matchLabels": {"kubearmor.io/container.name": to_wire("web$")}}}
    for kind, head in ((Kind.HOST, NODE), (Kind.CONTAINER, selector)):
        sent = {**head, **RICH}
        if kind is Kind.CONTAINER:
            sent["capabilities"] = {"matchCapabilities": [{"capability": "net_raw,net_admin"}]}
        await site.event(kind, "ADDED", "rich", sent)
        assert normal((await site.shown())["rich"]) == normal(sent)
        edited = json.loads(json.dumps(sent))
        edited["file"]["matchPaths"][0]["readOnly"] = True
        await site.event(kind, "ADDED", "rich", edited)
        assert normal((await site.shown())["rich"]) != normal(sent)
        assert await site.event(kind, "DELETED", "rich", edited) == PolicyStatus.Deleted


async def test_documents_of_profiles_are_known_by_the_next_run(site: Site) -> None:
    selector = {"selector": {"matchLabels": {"kubearmor.io/container.name": to_wire("web$")}}}
    await site.event(Kind.CONTAINER, "ADDED", "60-container-x", {**selector, **RICH})
    ((name, (document, generation)),) = read_shown(shown_policies(await site.daemon.probe())).items()
    assert (name, generation) == ("60-container-x", 3)
    assert "web$" in str(document.body)
    assert "[|]" not in str(document.body)


async def _listing(site: Site, family: int) -> bytes:
    listing = await site.node.read(family)
    assert listing is not None
    return listing


async def test_what_is_identical_repairs_nothing(site: Site) -> None:
    spec = network("192.0.2.1/32", "100::/128")
    await site.event(Kind.NETWORK, "ADDED", "n", spec)
    await site.node.flush(4)
    await site.event(Kind.NETWORK, "ADDED", "n", spec)
    assert await site.rules(4) == []
    await site.event(Kind.NETWORK, "ADDED", "n", network("192.0.2.1/32", "100::/128", tag="gen=2"))
    assert any("192.0.2.1" in rule for rule in await site.rules(4))


async def test_a_family_without_a_prefix_matches_everybody(site: Site) -> None:
    await site.event(Kind.NETWORK, "ADDED", "n", network("192.0.2.1/32", action="Allow"))
    (six,) = await site.rules(6)
    assert "saddr" not in six
    assert "accept" in six


async def test_an_entry_with_a_protocol_and_no_port_matches_every_protocol(site: Site) -> None:
    spec = network("192.0.2.1/32", "100::/128", ports=[{"protocol": "TCP"}])
    assert await site.event(Kind.NETWORK, "ADDED", "n", spec) == PolicyStatus.Applied
    for family in FAMILIES:
        (rule,) = await site.rules(family)
        assert "tcp" not in rule


@pytest.mark.parametrize("cidr", ["10.0.0.0/33", "10.0.0.300/32"], ids=["length", "octet"])
async def test_a_poison_policy_freezes_everybodys_rules(site: Site, cidr: str) -> None:
    await site.event(Kind.NETWORK, "ADDED", "poison", network(cidr, "100::/128"))
    good = network("192.0.2.7/32", "100::/128")
    assert await site.event(Kind.NETWORK, "ADDED", "good", good) == PolicyStatus.Applied
    assert not any("192.0.2.7" in rule for rule in await site.rules(4))
    assert await site.event(Kind.NETWORK, "DELETED", "poison", network(cidr)) == PolicyStatus.Deleted
    assert any("192.0.2.7" in rule for rule in await site.rules(4))


async def test_the_order_is_that_of_arrival_and_after_a_restart_that_of_names(site: Site) -> None:
    one, two = network("192.0.2.1/32", "100::/128"), network("192.0.2.2/32", "100::/128")
    await site.event(Kind.NETWORK, "ADDED", "b", one)
    await site.event(Kind.NETWORK, "ADDED", "a", two)
    assert ["192.0.2.1" in rule for rule in await site.rules(4)] == [True, False]
    await site.event(Kind.NETWORK, "ADDED", "b", network("192.0.2.3/32", "100::/128"))
    assert ["192.0.2.3" in rule for rule in await site.rules(4)] == [True, False]  # an update keeps its place
    await site.again()
    assert ["192.0.2.3" in rule for rule in await site.rules(4)] == [False, True]


async def test_parts_of_one_policy_are_a_chain_also_after_a_restart(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last part alone blocks; the order is that in which they came, and it is that of their names."""
    monkeypatch.setattr(policies, "MAX_EVENT", 3_000)
    scope = Scope((Port(8001),), corridor=(Port(8100),))
    admitted = [Address.parse(f"10.77.{n}.1") for n in range(150)]
    name = policy_name(50, Kind.NETWORK, "x", "x")
    whole = build_network(scope, admitted, name=name, node="*", generation=5)
    assert whole is not None
    parts = split(whole)
    assert len(parts.policies) > 2

    async def wrong() -> str:
        lookup = RuleLookup(site.node, _at_once)
        names = [each.name for each in parts.policies[:-1]]
        return await lookup.deviation(*parts.policies, absent=names)

    for each in (parts.closed, *parts.policies[1:]):
        await site.raw(Kind.NETWORK, render_event(EventType.ADDED, each))
    assert name in await wrong()  # still closed: what stands behind it has no effect
    assert await site.raw(Kind.NETWORK, render_event(EventType.ADDED, parts.policies[0])) == PolicyStatus.Modified
    assert await wrong() == ""
    await site.again()
    async with asyncio.timeout(60):
        while await wrong():
            await asyncio.sleep(0.2)
    for each in parts.policies:
        status = await site.raw(Kind.NETWORK, render_event(EventType.DELETED, Named(each.name)))
        assert status == PolicyStatus.Deleted
    assert await site.rules(4) == []


async def _at_once(work: Callable[[], Any]) -> Any:
    return work()


async def test_all_kinds_share_the_names_of_files(site: Site) -> None:
    await site.event(Kind.HOST, "ADDED", "x", host())
    await site.event(Kind.NETWORK, "ADDED", "x", network("192.0.2.1/32", "100::/128"))
    assert await site.event(Kind.NETWORK, "DELETED", "x", {}) == PolicyStatus.Deleted
    assert "x" in await site.shown()
    await site.again()
    assert "x" not in await site.shown()


async def test_tables_are_there_before_any_policy_and_stay_when_it_is_killed(site: Site) -> None:
    for family in FAMILIES:
        assert await site.node.read(family) is not None
    await site.event(Kind.NETWORK, "ADDED", "n", network("192.0.2.1/32", "100::/128"))
    await site.node.die()
    assert len(await site.rules(4)) == 1
    await site.again()


async def test_a_selection_of_no_host_is_answered_applied(site: Site) -> None:
    spec = network("192.0.2.1/32", "100::/128") | {"nodeSelector": {"matchLabels": {}}}
    assert await site.event(Kind.NETWORK, "ADDED", "n", spec) == PolicyStatus.Applied
    assert await site.rules(4) == []
