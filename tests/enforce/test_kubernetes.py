"""The Kubernetes hand when its API server is down, forgetful or of another mind, or somebody fights with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.model import Address
from gateway.enforce.kubernetes import Access
from gateway.enforce.kubernetes.client import Api, ApiError, Trouble, declared
from gateway.enforce.kubernetes.objects import Kind
from gateway.kubearmor.network import Scope
from gateway.kubearmor.policies import Port
from tests.contract.test_kubernetes import (
    CONTAINER,
    CSP,
    HOST,
    HSP,
    KSP,
    NETWORK,
    NSP,
    Rig,
    document,
    of_fake,
    until,
)
from tests.fakes.kubernetes import FakeKubernetes


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with FakeKubernetes().running() as fake:
        yield Rig(of_fake(fake), fake)


def server(rig: Rig) -> FakeKubernetes:
    assert rig.fake is not None
    return rig.fake


async def test_a_server_that_is_down_is_shown_waited_for_and_found_again(rig: Rig) -> None:
    fake, first, second = server(rig), rig.name("key"), rig.name("cams")
    async with rig.hand(document(HOST, first)) as hand:
        await rig.state(hand, "accepted")
        await fake.stop()
        await rig.state(hand, "absent")
        outcome = hand.outcome("any")
        assert outcome is not None
        # What was stored stands; that it cannot be asked for now is said beside.
        assert outcome.stage.value == "accepted"
        assert "the API server cannot be reached" in outcome.detail
        hand.declare_documents([document(HOST, first), document(NETWORK, second)])
        await fake.start()
        await rig.state(hand, "accepted")
    assert fake.stored(NSP, second) is not None
    assert rig.told("drift") == []
    assert len(rig.told("backend-error")) < 20, "trouble is told once, however long it lasts"


async def test_a_place_in_history_that_is_forgotten_while_away_is_listed_anew(rig: Rig) -> None:
    fake, name = server(rig), rig.name("key")
    async with rig.hand(document(HOST, name)) as hand:
        await rig.state(hand, "accepted")
        await fake.stop()
        await rig.state(hand, "absent")
        fake.vanish(HSP, name)
        fake.forget()
        await fake.start()
        await until(lambda: hand.state()["repairs"] == "1", lambda: str(hand.state()))
        assert int(hand.state()["relists"]) >= 1
        await rig.state(hand, "accepted")
    assert fake.stored(HSP, name) is not None


async def test_a_throttled_server_is_given_the_time_that_it_asks_for(rig: Rig) -> None:
    fake, name = server(rig), rig.name("key")
    async with rig.hand() as hand:
        await rig.state(hand, "idle")
        await until(lambda: fake.count("watch") == len(Kind), lambda: str(hand.state()))
        fake.throttled += [2]
        loop = asyncio.get_running_loop()
        began = loop.time()
        hand.declare_documents([document(HOST, name)])
        await rig.state(hand, "accepted")
        assert loop.time() - began >= 2.0
    assert any("429" in each for each in rig.told("backend-error"))


async def test_a_failing_server_is_asked_again_soon(rig: Rig) -> None:
    fake = server(rig)
    async with rig.hand() as hand:
        await rig.state(hand, "idle")
        await until(lambda: fake.count("watch") == len(Kind), lambda: str(hand.state()))
        fake.broken += [503, 500]
        hand.declare_documents([document(HOST, rig.name("key"))])
        await rig.state(hand, "accepted")
    assert not fake.broken


async def test_a_kind_that_the_cluster_does_not_know_stops_no_other(rig: Rig) -> None:
    fake = server(rig)
    fake.missing.add(CSP)
    async with rig.hand(document(HOST, rig.name("key"))) as hand:
        await rig.state(hand, "accepted")
        assert not hand.watching
        await hand.withdraw()
    assert rig.told("backend-error") == [], "nobody needs that kind"


async def test_what_may_be_seen_and_not_written_fails_with_the_reason_until_it_is_granted(rig: Rig) -> None:
    fake, name = server(rig), rig.name("key")
    fake.refuse.add(("patch", HSP))
    async with rig.hand(document(HOST, name), document(CONTAINER, rig.name("feeds"))) as hand:
        await rig.state(hand, "failed")
        assert "is forbidden" in hand.state()["detail"]
        await until(lambda: hand.counts()["accepted"] == 1, lambda: str(hand.state()))
        assert hand.counts() == {"pending": 0, "accepted": 1, "failed": 1}
        fake.refuse.clear()
        await rig.state(hand, "accepted")


async def test_a_missing_namespace_fails_with_the_reason_until_it_is_made(rig: Rig) -> None:
    fake = server(rig)
    fake.namespaces.discard("sediment")
    async with rig.hand(document(CONTAINER, rig.name("feeds"))) as hand:
        await rig.state(hand, "failed")
        assert 'namespaces "sediment" not found' in hand.state()["detail"]
        fake.namespaces.add("sediment")
        await rig.state(hand, "accepted")


async def test_a_schema_that_refuses_a_document_fails_it_alone_and_it_is_not_sent_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, bad = server(rig), rig.name("key")
    monkeypatch.setattr("tests.fakes.kubernetes.FIELDS", frozenset({"nodeSelector", "ingress", "action"}))
    async with rig.hand(document(HOST, bad), document(NETWORK, rig.name("cams"))) as hand:
        await rig.state(hand, "failed")
        assert "not declared in schema" in hand.state()["detail"]
        await until(lambda: hand.counts()["accepted"] == 1, lambda: str(hand.state()))
        sent = fake.count("patch")
        for _ in range(5):
            hand.declare_documents([document(NETWORK, rig.name("cams")), *_again(hand)])
            await asyncio.sleep(0.05)
        assert fake.count("patch") == sent


def _again(hand: Any) -> list[Any]:
    """The very document that failed: another object of the same content would be another truth."""
    return [each for each in hand._documents if each.kind == "KubeArmorHostPolicy"]


async def test_a_storm_of_edits_is_fought_more_and_more_seldom_and_alarmed(rig: Rig) -> None:
    name = rig.name("key")
    async with rig.hand(document(HOST, name)) as hand:
        await rig.state(hand, "accepted")
        for number in range(1, 4):
            await rig.cluster.edit(HSP, name, {"spec": {"severity": number}})
            await until(lambda n=number: hand.state()["repairs"] == str(n), lambda: str(hand.state()))  # type: ignore[misc]
        await rig.cluster.edit(HSP, name, {"spec": {"severity": 9}})
        await rig.state(hand, "waiting")
        outcome = hand.outcome("any")
        assert outcome is not None
        assert outcome.detail.endswith("was edited; to be put back")
        due = hand._ledger.due(asyncio.get_running_loop().time())
        assert due is not None
        assert 0 < due <= 5.0
    assert len(rig.told("drift")) == 3
    assert sum("somebody fights over it" in each for each in rig.told("backend-error")) == 1


async def test_a_document_that_no_cluster_stores_is_refused_before_it_is_sent(rig: Rig) -> None:
    fake, name = server(rig), rig.name("key")
    settings = replace(rig.settings, largest=200)
    async with rig.hand(document(HOST, name), settings=settings) as hand:
        await rig.state(hand, "failed")
        assert "and a cluster stores 200" in hand.state()["detail"]
    assert fake.count("patch") == 0


async def test_an_own_policy_that_became_too_large_leaves_the_older_one_standing(rig: Rig) -> None:
    settings = replace(rig.settings, nodes={"kubernetes.io/os": "linux"}, largest=1500)
    async with rig.hand(settings=settings, scope=Scope((Port(8001, "tcp"),))) as hand:
        hand.declare(frozenset({Address.parse("10.77.1.11")}))
        await rig.state(hand, "accepted")
        hand.declare(frozenset(Address.parse(f"10.77.{one}.11") for one in range(0, 250, 2)))
        await rig.state(hand, "failed")
        assert "an older one may stand" in hand.state()["detail"]
    fake = server(rig)
    assert [place for place in fake.objects if place[0] == NSP], "it was neither changed nor pruned"


async def test_documents_that_cannot_go_to_a_cluster_are_told_with_the_mend(rig: Rig) -> None:
    prefix = document(CONTAINER.replace("appserver$", "app.*"), rig.name("feeds"))
    async with rig.hand(prefix) as hand:
        await rig.state(hand, "failed")
        assert "write the name with '$' at its end" in hand.state()["detail"]
    assert server(rig).count("patch") == 0


async def test_a_watch_that_falls_silent_is_begun_again(rig: Rig) -> None:
    fake, name = server(rig), rig.name("key")
    settings = replace(rig.settings, quiet=0.2)
    async with rig.hand(document(HOST, name), settings=settings) as hand:
        await rig.state(hand, "accepted")
        watched = fake.count("watch")
        await until(lambda: fake.count("watch") > watched + len(Kind), lambda: str(hand.state()))
        await rig.cluster.delete(HSP, name)
        await until(lambda: hand.state()["repairs"] == "1", lambda: str(hand.state()))
    assert fake.count("list") == len(Kind), "it goes on from where it was"


async def test_bookmarks_move_the_place_in_history_of_a_quiet_kind(rig: Rig) -> None:
    fake = server(rig)
    fake.bookmark_every = 0.05
    settings = replace(rig.settings, watch=1)
    async with rig.hand(settings=settings) as hand:
        await rig.state(hand, "idle")
        # Another kind moves on; the places of all others are taken along by bookmarks alone.
        for number in range(3):
            hand.declare_documents([document(HOST, rig.name(f"key-{number}"))])
            await rig.state(hand, "accepted")
        watched = fake.count("watch")
        await until(lambda: fake.count("watch") > watched + 2 * len(Kind), lambda: str(hand.state()))
    assert fake.count("list") == len(Kind)


async def test_no_place_where_the_server_is_gets_a_clear_word(rig: Rig) -> None:
    nowhere = Access(f"http://{server(rig).host}:1", token="x")
    async with Api(nowhere, rig.settings) as api:
        with pytest.raises(ApiError, match="list kubearmorpolicies") as raised:
            await api.list(Kind.CONTAINER)
        assert raised.value.trouble is Trouble.DOWN


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 500, 502, 503, 504, 418])
def test_every_refusal_is_declared_and_bounded(status: int) -> None:
    body = {
        "message": "x" * 10_000,
        "details": {"causes": [{"reason": "FieldManagerConflict", "field": "y" * 9_999}, 1]},
    }
    error = declared(status, body, "apply")
    assert len(str(error)) < 400
    assert len(error.fields) == 1
    assert len(error.fields[0]) < 300
    assert error.transient is (error.trouble is not Trouble.INVALID)


async def test_kinds_and_namespaces_have_their_own_places(rig: Rig) -> None:
    async with rig.hand(document(CONTAINER, rig.name("feeds"))) as hand:
        await rig.state(hand, "accepted")
    assert server(rig).stored(KSP, rig.name("feeds"), "sediment") is not None
