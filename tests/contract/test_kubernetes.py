"""What the Kubernetes hand promises, against the fake API server and a real one.

A scenario is a coroutine over a rig; each runs against every cluster that is at hand. On a real one the rights are
those of the published manifest, so that what the hand does is also what it may.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from gateway.control.ports import Notice
from gateway.core.model import Address
from gateway.enforce.kubernetes import Access, KubernetesAdvisory, KubernetesSettings
from gateway.enforce.kubernetes.client import Api, ApiError, Trouble
from gateway.enforce.kubernetes.objects import Kind, labels_of
from gateway.kubearmor.codes import Notes
from gateway.kubearmor.documents import Document
from gateway.kubearmor.findings import Mode
from gateway.kubearmor.network import Scope
from gateway.kubearmor.parse import parse
from gateway.kubearmor.policies import Port
from tests.clusters import NAMESPACE, Cluster, real_cluster, why_no_real_cluster
from tests.fakes.clock import ManualClock
from tests.fakes.kubernetes import FakeKubernetes

#: Seconds for anything that is waited for.
PATIENCE = 90.0
NO_SCOPE = Scope(())
_NUMBERS = itertools.count(1)
KSP, HSP = "kubearmorpolicies", "kubearmorhostpolicies"
NSP, CSP = "kubearmornetworkpolicies", "kubearmorclusterpolicies"

CONTAINER = """
kind: KubeArmorPolicy
metadata: {name: NAME}
spec:
  selector: {matchLabels: {kubearmor.io/container.name: appserver$}}
  file: {matchDirectories: [{dir: /srv/feeds/cam-1/, recursive: true}]}
  tags: [RAGATE, PROFILE=cut]
  action: Block
"""
HOST = """
kind: KubeArmorHostPolicy
metadata: {name: NAME}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: edge-1}}
  file: {matchPaths: [{path: /etc/sediment.key}]}
  severity: 7
  action: Block
"""
NETWORK = """
kind: KubeArmorNetworkPolicy
metadata: {name: NAME}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: '*'}}
  ingress:
  - from: [{ipBlock: {cidr: 10.77.1.11/32}}, {ipBlock: {cidr: 'fd77:1::11/128'}}]
    ports: [{port: '8001', protocol: tcp}]
    action: Block
  action: Block
"""
WHOLE = """
kind: KubeArmorClusterPolicy
metadata: {name: NAME}
spec:
  selector: {matchExpressions: [{key: namespace, operator: In, values: [sediment]}]}
  process: {matchPaths: [{path: /usr/bin/nc}]}
  action: Block
"""


def document(text: str, name: str) -> Document:
    (made,) = parse(text.replace("NAME", name).encode(), name, Notes(Mode.VM))
    return made


@dataclass
class Rig:
    cluster: Cluster
    fake: FakeKubernetes | None = None
    owner: str = field(default_factory=lambda: f"edge-{next(_NUMBERS)}")
    notices: list[Notice] = field(default_factory=list)

    def name(self, slug: str) -> str:
        """A name that no other test at this cluster has."""
        return f"60-{slug}-{self.owner}"

    @property
    def settings(self) -> KubernetesSettings:
        return KubernetesSettings(
            target="cluster",
            owner=self.owner,
            namespace=NAMESPACE,
            pace=0.02,
            retry_min=0.05,
            retry_max=0.5,
            again=0.5,
        )

    @asynccontextmanager
    async def hand(
        self,
        *documents: Document,
        access: Access | None = None,
        settings: KubernetesSettings | None = None,
        scope: Scope = NO_SCOPE,
    ) -> AsyncIterator[KubernetesAdvisory]:
        """A hand at work, told of these documents."""
        chosen = settings or self.settings
        made = KubernetesAdvisory(
            chosen, lambda: access or self.cluster.ours, ManualClock(), scope, self.notices.append
        )
        made.declare_documents(documents)
        task = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), task.exception()

    async def state(self, hand: KubernetesAdvisory, state: str) -> None:
        await until(lambda: hand.state()["state"] == state, lambda: f"{state}: {dict(hand.state())}")

    async def stored(self, plural: str, name: str) -> dict[str, Any]:
        found = await self.cluster.get(plural, name)
        assert found is not None, (plural, name)
        return found

    def told(self, kind: str) -> list[str]:
        return [each.detail for each in self.notices if each.kind == kind]


async def until(true: Callable[[], Awaitable[bool] | bool], what: Callable[[], str]) -> None:
    end = asyncio.get_running_loop().time() + PATIENCE
    while True:
        found = true()
        if found if isinstance(found, bool) else await found:
            return
        assert asyncio.get_running_loop().time() < end, what()
        await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    why = why_no_real_cluster()
    if why:
        pytest.skip(why)
    with real_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def of_fake(fake: FakeKubernetes) -> Cluster:
    fake.tokens |= {"ours", "of-stranger", "of-admin"}
    ours = Access(fake.url, token="ours")
    return Cluster(ours, replace(ours, token="of-stranger"), replace(ours, token="of-admin"), fake.forget)


@pytest.fixture(params=["fake", "real"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    if request.param == "real":
        yield Rig(request.getfixturevalue("real"))
        return
    async with FakeKubernetes().running() as fake:
        yield Rig(of_fake(fake), fake)


async def test_every_kind_is_stored_as_a_cluster_takes_it_with_labels_of_ownership(rig: Rig) -> None:
    names = {each: rig.name(each) for each in ("feeds", "key", "cams", "tools")}
    told = [
        document(CONTAINER, names["feeds"]),
        document(HOST, names["key"]),
        document(NETWORK, names["cams"]),
        document(WHOLE, names["tools"]),
    ]
    async with rig.hand(*told) as hand:
        await rig.state(hand, "accepted")
        assert hand.counts() == {"pending": 0, "accepted": 4, "failed": 0}
    container = await rig.stored(KSP, names["feeds"])
    assert container["metadata"]["namespace"] == NAMESPACE
    assert container["spec"]["selector"]["matchLabels"] == {"kubearmor.io/container.name": "[appserver]"}
    host, network = await rig.stored(HSP, names["key"]), await rig.stored(NSP, names["cams"])
    assert host["spec"]["nodeSelector"]["matchLabels"] == {"kubernetes.io/hostname": "edge-1"}
    assert network["spec"]["nodeSelector"]["matchLabels"] == {"kubernetes.io/os": "linux"}
    for thing in (container, host, network, await rig.stored(CSP, names["tools"])):
        assert labels_of(rig.owner).items() <= thing["metadata"]["labels"].items()
        (entry,) = thing["metadata"]["managedFields"]
        assert (entry["manager"], entry["operation"]) == (f"ragate-{rig.owner}", "Apply")
    assert "drift" not in {each.kind for each in rig.notices}


async def test_accepted_is_the_most_that_is_ever_said(rig: Rig) -> None:
    name = rig.name("feeds")
    async with rig.hand(document(CONTAINER, name)) as hand:
        await rig.state(hand, "accepted")
        outcome = hand.outcome("cut")
        assert outcome is not None
        assert (outcome.stage.value, outcome.detail) == (
            "accepted",
            f"KubeArmorPolicy {name}: stored, generation 1",
        )
        assert hand.outcome("admitted") is None
    assert "whether nodes enforce is not known here" in hand.state()["detail"]


async def test_telling_it_again_and_starting_again_writes_nothing(rig: Rig) -> None:
    name = rig.name("key")
    async with rig.hand(document(HOST, name)) as hand:
        await rig.state(hand, "accepted")
        first = await rig.stored(HSP, name)
        hand.declare_documents([document(HOST, name)])
        await rig.state(hand, "accepted")
    async with rig.hand(document(HOST, name)) as hand:
        await rig.state(hand, "accepted")
    assert (await rig.stored(HSP, name))["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    if rig.fake is not None:
        assert rig.fake.count("patch") == 1


async def test_what_changed_is_changed_and_what_is_not_wanted_any_more_is_deleted(rig: Rig) -> None:
    kept, gone = rig.name("key"), rig.name("cams")
    async with rig.hand(document(HOST, kept), document(NETWORK, gone)) as hand:
        await rig.state(hand, "accepted")
        # A section that is not wanted any more goes with the rule that is.
        hand.declare_documents(
            [document(HOST.replace("  severity: 7\n", "").replace("sediment.key", "other"), kept)]
        )
        await until(lambda: hand.counts()["accepted"] == 1, lambda: str(hand.state()))
        await rig.state(hand, "accepted")
    spec = (await rig.stored(HSP, kept))["spec"]
    assert spec["file"] == {"matchPaths": [{"path": "/etc/other"}]}
    assert "severity" not in spec
    assert await rig.cluster.get(NSP, gone) is None
    assert rig.told("drift") == []


async def test_leftovers_of_an_earlier_run_are_pruned_and_other_objects_are_not_touched(rig: Rig) -> None:
    old, foreign = rig.name("cams"), rig.name("theirs")
    async with rig.hand(document(NETWORK, old)) as hand:
        await rig.state(hand, "accepted")
    spec = {
        "nodeSelector": {"matchLabels": {"a": "b"}},
        "file": {"matchPaths": [{"path": "/a"}]},
        "action": "Block",
    }
    await rig.cluster.create(
        HSP, {"metadata": {"name": foreign, "labels": {"ragate/owner": "another"}}, "spec": spec}
    )
    async with rig.hand() as hand:
        await rig.state(hand, "idle")
        async with asyncio.timeout(60):
            while await rig.cluster.get(NSP, old) is not None:
                await asyncio.sleep(0.05)
    assert (await rig.stored(HSP, foreign))["spec"] == spec


async def test_nothing_is_pruned_before_it_is_known_what_is_wanted(rig: Rig) -> None:
    name = rig.name("cams")
    async with rig.hand(document(NETWORK, name)) as hand:
        await rig.state(hand, "accepted")
    made = KubernetesAdvisory(rig.settings, lambda: rig.cluster.ours, ManualClock(), Scope(()), rig.notices.append)
    task = asyncio.create_task(made.run())
    await rig.state(made, "idle")
    await until(lambda: made.watching, lambda: str(made.state()))
    task.cancel()
    await asyncio.wait([task])
    assert await rig.cluster.get(NSP, name) is not None


async def test_a_deleted_object_is_put_back_and_counted(rig: Rig) -> None:
    name = rig.name("key")
    async with rig.hand(document(HOST, name)) as hand:
        await rig.state(hand, "accepted")
        await rig.cluster.delete(HSP, name)
        await until(lambda: hand.state()["repairs"] == "1", lambda: str(hand.state()))
    await rig.stored(HSP, name)
    assert [f"KubeArmorHostPolicy {name} was deleted" in each for each in rig.told("drift")] == [True]


EDITS: dict[str, dict[str, Any]] = {
    "a value": {"spec": {"action": "Audit"}},
    "a list": {"spec": {"file": {"matchPaths": [{"path": "/nothing"}]}}},
    "a section taken away": {"spec": {"file": None}},
    "a section beside ours": {"spec": {"process": {"matchPaths": [{"path": "/usr/bin/nc", "action": "Allow"}]}}},
    "a label beside ours": {"spec": {"nodeSelector": {"matchLabels": {"never": "there"}}}},
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
async def test_an_edited_object_is_put_back_to_the_letter(rig: Rig, edit: dict[str, Any]) -> None:
    name = rig.name("key")
    async with rig.hand(document(HOST, name)) as hand:
        await rig.state(hand, "accepted")
        before = (await rig.stored(HSP, name))["spec"]
        await rig.cluster.edit(HSP, name, edit)
        await until(lambda: hand.state()["repairs"] == "1", lambda: str(hand.state()))
        await rig.state(hand, "accepted")
    assert (await rig.stored(HSP, name))["spec"] == before
    assert [f"KubeArmorHostPolicy {name} was edited" in each for each in rig.told("drift")] == [True]


async def test_an_object_without_our_labels_gets_them_back(rig: Rig) -> None:
    name = rig.name("key")
    async with rig.hand(document(HOST, name)) as hand:
        await rig.state(hand, "accepted")
        await rig.cluster.edit(HSP, name, {"metadata": {"labels": {"ragate/owner": None}}})
        await until(lambda: hand.state()["repairs"] == "1", lambda: str(hand.state()))
    assert (await rig.stored(HSP, name))["metadata"]["labels"]["ragate/owner"] == rig.owner


async def test_what_was_edited_while_nobody_looked_is_put_back(rig: Rig) -> None:
    name = rig.name("key")
    async with rig.hand(document(HOST, name)) as hand:
        await rig.state(hand, "accepted")
    await rig.cluster.edit(HSP, name, EDITS["a value"])
    async with rig.hand(document(HOST, name)) as hand:
        await rig.state(hand, "accepted")
        assert hand.state()["repairs"] == "1"
    assert (await rig.stored(HSP, name))["spec"]["action"] == "Block"


async def test_an_object_of_the_same_name_that_is_not_ours_is_left_alone(rig: Rig) -> None:
    name, other = rig.name("key"), rig.name("cams")
    spec = {
        "nodeSelector": {"matchLabels": {"a": "b"}},
        "file": {"matchPaths": [{"path": "/a"}]},
        "action": "Block",
    }
    await rig.cluster.create(HSP, {"metadata": {"name": name}, "spec": spec})
    async with rig.hand(document(HOST, name), document(NETWORK, other)) as hand:
        await until(lambda: hand.counts() == {"pending": 0, "accepted": 1, "failed": 1}, lambda: str(hand.state()))
        assert "exists and is not ours" in hand.state()["detail"]
        # Its owner goes; ours comes without a restart.
        await rig.cluster.delete(HSP, name)
        await rig.state(hand, "accepted")
    assert (await rig.stored(HSP, name))["spec"]["severity"] == 7


async def test_two_gateways_with_the_same_document_do_not_fight(rig: Rig) -> None:
    name = rig.name("key")
    async with rig.hand(document(HOST, name)) as hand:
        await rig.state(hand, "accepted")
        second = Rig(rig.cluster, owner=f"{rig.owner}-b")
        async with second.hand(document(HOST, name)) as late:
            await rig.state(late, "failed")
        await rig.state(hand, "accepted")
        assert hand.state()["repairs"] == "0"


async def test_an_invalid_document_fails_alone_and_is_not_sent_again(rig: Rig) -> None:
    bad, good = rig.name("key"), rig.name("cams")
    # The schema's own rule: no severity above 10. What would stop it before is not asked.
    hand_made = document(HOST.replace("severity: 7", "severity: 7"), bad)
    async with rig.hand(hand_made, document(NETWORK, good)) as hand:
        await rig.state(hand, "accepted")
    async with Api(rig.cluster.ours, rig.settings) as api:
        thing = await rig.stored(HSP, bad)
        spec = {**thing["spec"], "severity": 11}
        bare = {"apiVersion": thing["apiVersion"], "kind": thing["kind"], "metadata": {"name": bad}, "spec": spec}
        with pytest.raises(ApiError, match="severity") as raised:
            await api.apply(bare)
        assert raised.value.trouble is Trouble.INVALID
        assert not raised.value.transient


async def test_a_forgotten_place_in_history_is_gone(rig: Rig) -> None:
    name = rig.name("key")
    async with rig.hand(document(HOST, name)) as hand:
        await rig.state(hand, "accepted")
    if rig.cluster.forget is not None:
        rig.cluster.forget()
    async with Api(rig.cluster.ours, rig.settings) as api:
        with pytest.raises(ApiError) as raised:
            await anext(api.watch(Kind.HOST, "1"))
        assert raised.value.trouble is Trouble.GONE


async def test_a_list_comes_in_pages(rig: Rig) -> None:
    told = [document(HOST, rig.name(f"key-{number}")) for number in range(5)]
    async with rig.hand(*told) as hand:
        await rig.state(hand, "accepted")
    async with Api(rig.cluster.ours, replace(rig.settings, page=2)) as api:
        listed = await api.list(Kind.HOST)
    assert {key.name for key in listed.objects} == {each.name for each in told}
    assert listed.version


async def test_who_may_do_nothing_is_told_so_and_what_stands_stays(rig: Rig) -> None:
    name = rig.name("key")
    async with rig.hand(document(HOST, name)) as hand:
        await rig.state(hand, "accepted")
    if rig.fake is not None:
        rig.fake.refuse |= {
            (verb, plural) for verb in ("list", "watch", "patch") for plural in (KSP, HSP, NSP, CSP)
        }
    async with rig.hand(document(HOST, name), access=rig.cluster.stranger) as hand:
        await until(lambda: "forbidden" in hand.state()["detail"], lambda: str(hand.state()))
        await rig.state(hand, "waiting")  # a moment after the trouble is told: what was declared is taken in then
        outcome = hand.outcome("any")
        assert outcome is not None
        assert outcome.stage.value == "pending"
    await rig.stored(HSP, name)
    assert any("forbidden" in each for each in rig.told("backend-error"))


async def test_a_token_that_is_replaced_is_taken_up(rig: Rig, tmp_path: Path) -> None:
    name, file = rig.name("key"), tmp_path / "token"
    file.write_text("expired\n")
    access = replace(rig.cluster.ours, token="", token_file=file)
    async with rig.hand(document(HOST, name), access=access) as hand:
        await until(lambda: "401" in hand.state()["detail"], lambda: str(hand.state()))
        file.write_text(rig.cluster.ours.token + "\n")
        await rig.state(hand, "accepted")
    await rig.stored(HSP, name)


async def test_our_own_network_policy_follows_who_is_admitted(rig: Rig) -> None:
    settings = replace(rig.settings, nodes={"kubernetes.io/hostname": "app-1"})
    scope = Scope((Port(8001, "tcp"),))
    async with rig.hand(settings=settings, scope=scope) as hand:
        hand.declare(frozenset({Address.parse("10.77.1.11")}))
        await rig.state(hand, "accepted")
        (shown,) = hand._ledger.shown()
        first = (await rig.stored(NSP, shown.key.name))["spec"]
        hand.declare(frozenset())

        async def empty() -> bool:
            return "10.77.1.11" not in str((await rig.stored(NSP, shown.key.name))["spec"])

        await until(empty, lambda: str(hand.state()))
    assert first["nodeSelector"] == {"matchLabels": {"kubernetes.io/hostname": "app-1"}}
    assert "10.77.1.11/32" in str(first["ingress"])
    assert first["tags"] == ["RAGATE", "ATTESTATION"]


async def test_withdrawing_takes_everything_of_ours_away(rig: Rig) -> None:
    names = [rig.name("key"), rig.name("feeds")]
    async with rig.hand(document(HOST, names[0]), document(CONTAINER, names[1])) as hand:
        await rig.state(hand, "accepted")
        await hand.withdraw()
        await hand.withdraw()
        await rig.state(hand, "withdrawn")
    assert await rig.cluster.get(HSP, names[0]) is None
    assert await rig.cluster.get(KSP, names[1]) is None
