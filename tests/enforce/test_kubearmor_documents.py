"""The documents of profiles on their way to a daemon with KubeArmor's quirks, and what is said of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gateway.core.errors import BackendError
from gateway.enforce.kubearmor import Tables
from gateway.enforce.kubearmor.lane import MAX_UNANSWERED
from gateway.kubearmor import policies
from gateway.kubearmor.documents import Document
from gateway.kubearmor.render import Library, Renderer
from tests.enforce.test_kubearmor import addresses, admitted, advisory, daemon, running, state, until
from tests.fakes.kubearmor import FakeKubeArmor
from tests.kubearmor.test_render import FEED, HOST, MANY, NETWORK, container, templates
from tests.patience import PATIENCE

__all__ = ["daemon"]  # the fixture

TARGET = "gateway"
KINDS = {TARGET: ("path_gate", "network", "host", "container")}
LOOSE = container("55-loose", 'dir: "/srv/feeds/${device.id}/", recursive: true, readOnly: true')
NORMAL = container("20-fixed", "dir: /usr/bin/, recursive: true, readOnly: true")
LIBRARY = Library(
    {"quarantine": templates("quarantine", FEED), "maintenance": templates("maintenance", LOOSE)},
    {
        "normal": templates("normal", NORMAL, site=True),
        "lockdown": templates("lockdown", container("80-shut", "dir: /srv/, recursive: true"), site=True),
    },
)


def rendered(library: Library, *having: tuple[str, int, int], site: str = "normal") -> tuple[Document, ...]:
    """The documents while the devices from one number to before another have a profile."""
    renderer = Renderer(library, KINDS)
    for profile, first, last in having:
        for each in MANY[first:last]:
            renderer.move(each, profile)
    return renderer.render(site).at(TARGET)


def networks(library: Library) -> frozenset[str]:
    return Renderer(library, KINDS).networks(TARGET)


def names(daemon: FakeKubeArmor, kind: str = "container") -> list[str]:
    return [name.rpartition("-")[0] for name in daemon.stored[kind]]


def feeds(daemon: FakeKubeArmor) -> list[str]:
    return [
        rule["dir"]
        for spec in daemon.stored["container"].values()
        for rule in spec.get("file", {}).get("matchDirectories", [])
        if rule["dir"].startswith("/srv/")
    ]


def sent(daemon: FakeKubeArmor) -> list[tuple[str, str]]:
    return [(what, name.rpartition("-")[0]) for kind, what, name in daemon.calls if kind == "container"]


async def test_documents_reach_the_daemon_and_are_read_back(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.11"))
        hand.declare_documents(rendered(LIBRARY, ("quarantine", 0, 2)))
        seen = await state(hand, "verified", documents="verified", host="verified", network="verified")
        assert seen["documents_detail"] == "2 documents; all read back"
        assert names(daemon) == ["20-container-fixed", "60-container-feeds"]
        assert feeds(daemon) == ["/srv/feeds/cam-0/", "/srv/feeds/cam-1/"]
        assert all(
            any(tag.startswith("gen=") for tag in each["tags"]) for each in daemon.stored["container"].values()
        )
    assert daemon.most_in_flight == 1


async def test_only_what_changed_is_sent_and_restrictions_first(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare_documents(rendered(LIBRARY, ("quarantine", 0, 1)))
        await state(hand, "waiting", documents="verified")
        daemon.calls.clear()
        hand.declare_documents(rendered(LIBRARY, ("quarantine", 0, 3)))
        await until(lambda: len(feeds(daemon)) == 3)
        await state(hand, "waiting", documents="verified")
        assert sent(daemon) == [("ADDED", "60-container-feeds")]
        daemon.calls.clear()
        hand.declare_documents(rendered(LIBRARY, site="lockdown"))
        await until(lambda: names(daemon) == ["80-container-shut"])
        assert sent(daemon) == [
            ("ADDED", "80-container-shut"),
            ("DELETED", "20-container-fixed"),
            ("DELETED", "60-container-feeds"),
        ]
        hand.declare_documents(())
        await state(hand, "waiting", documents="idle")
        assert daemon.stored["container"] == {}
        assert not [name for name in daemon.disk if "container" in name]


async def test_a_thousand_changes_in_a_second_are_a_few_events(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon, pace=0.1)) as hand:
        steps = [rendered(LIBRARY, ("quarantine", 0, number % 7 + 1)) for number in range(100)]
        for documents in steps:
            hand.declare_documents(documents)
            await asyncio.sleep(0.001)
        await until(lambda: len(feeds(daemon)) == 99 % 7 + 1)
    assert len(sent(daemon)) < 50


async def test_what_does_not_fit_denies_the_parent_and_no_entry_is_ever_lost(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        for number in (100, 126, 300, 100):
            hand.declare_documents(rendered(LIBRARY, ("quarantine", 0, number)))
            wide = number > 124
            await until(lambda wide=wide, number=number: len(feeds(daemon)) == (1 if wide else number))  # type: ignore[misc]
            seen = await state(hand, "waiting", documents="verified")
            assert ("COLLAPSED" in seen["documents_detail"]) is wide
            assert daemon.lost == 0
            assert feeds(daemon)[0] == ("/srv/feeds/" if wide else "/srv/feeds/cam-0/")


async def test_the_stricter_rule_is_taken_last_whatever_came_first(daemon: FakeKubeArmor) -> None:
    """Of two rules for one path the one taken later counts, and only a restart brings the names' order back."""
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare_documents(rendered(LIBRARY, ("quarantine", 0, 150)))
        await until(lambda: names(daemon) == ["20-container-fixed", "60-container-site-feeds"])
        hand.declare_documents(rendered(LIBRARY, ("quarantine", 0, 150), ("maintenance", 150, 300)))
        order = ["20-container-fixed", "55-container-site-loose", "60-container-site-feeds"]
        await until(lambda: names(daemon) == order)
        await state(hand, "waiting", documents="verified")
        await daemon.restart()
        await until(lambda: names(daemon) == order)


async def test_a_document_for_another_container_leaves_nothing_at_the_first(daemon: FakeKubeArmor) -> None:
    moved = Library({}, {"normal": templates("normal", NORMAL.replace("app$", "other$"), site=True)})
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare_documents(rendered(LIBRARY))
        await state(hand, "waiting", documents="verified")
        (name,) = daemon.stored["container"]
        hand.declare_documents(rendered(moved))
        await until(lambda: "other" in str(daemon.stored["container"]))
        assert list(daemon.stored["container"]) == [name]
        assert sent(daemon)[-2:] == [("DELETED", "20-container-fixed"), ("ADDED", "20-container-fixed")]
        await hand.withdraw()
        assert daemon.stored["container"] == {}
        assert not [each for each in daemon.disk if "container" in each]


# --- what an earlier run left, restarts, drift --------------------------------------------------------------------


async def test_what_an_earlier_run_left_is_taken_away(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    theirs = {"selector": {"matchLabels": {"kubearmor.io/container.name": "app$"}}, "tags": ["RAGATE"]}
    daemon.stored["container"]["60-theirs"] = theirs
    async with running(advisory(daemon)) as hand:
        hand.declare_documents(rendered(LIBRARY, ("quarantine", 0, 2)))
        await state(hand, "waiting", documents="verified")
    async with running(advisory(daemon)) as hand:
        hand.declare_documents(rendered(LIBRARY))
        await until(lambda: names(daemon) == ["60", "20-container-fixed"])
        await state(hand, "waiting", documents="verified")
    async with running(advisory(daemon)) as hand:
        hand.declare_documents(())
        await until(lambda: list(daemon.stored["container"]) == ["60-theirs"])


async def test_a_network_document_of_an_earlier_run_is_taken_away_unseen(daemon: FakeKubeArmor) -> None:
    library = Library({"quarantine": templates("quarantine", NETWORK)})
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.11"))
        hand.declare_documents(rendered(library, ("quarantine", 0, 2)), networks(library))
        await state(hand, "verified", documents="verified")
        assert len(names(daemon, "network")) == 2
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.11"))
        hand.declare_documents((), networks(library))
        await until(lambda: len(names(daemon, "network")) == 1)


async def test_a_restart_is_met_with_everything(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare_documents(rendered(LIBRARY, ("quarantine", 0, 2)))
        await state(hand, "waiting", documents="verified")
        await daemon.die()
        await state(hand, "absent", documents="waiting")
        daemon.disk.clear()
        hand.declare_documents(rendered(LIBRARY, ("quarantine", 0, 4)))
        await daemon.start()
        await until(lambda: len(feeds(daemon)) == 4)
        await state(hand, "waiting", documents="verified")


async def test_a_document_that_vanished_is_sent_once_more(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare_documents(rendered(LIBRARY, ("quarantine", 0, 2)))
        await state(hand, "waiting", documents="verified")
        daemon.stored["container"].popitem()
        await until(lambda: len(feeds(daemon)) == 2)
        assert (await state(hand, "waiting", documents="verified"))["repairs"] == "1"


# --- trouble ------------------------------------------------------------------------------------------------------


async def test_a_kind_that_is_disabled_is_named(daemon: FakeKubeArmor) -> None:
    daemon.containers = False
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        hand.declare_documents(rendered(LIBRARY, ("quarantine", 0, 2)))
        seen = await state(hand, "verified", documents="disabled")
        assert "2 of a kind that KubeArmor's configuration disables" in seen["documents_detail"]
        host = Library({"quarantine": templates("quarantine", FEED, HOST)})
        hand.declare_documents(rendered(host, ("quarantine", 0, 2)))
        seen = await state(hand, "verified", documents="verified")
        assert seen["documents_detail"].startswith("2 documents, 1 of a kind that")
        assert len(daemon.stored["host"]) == 2


async def test_without_evidence_of_nft_only_network_documents_are_withheld(daemon: FakeKubeArmor) -> None:
    daemon.nft = False
    await daemon.start()
    library = Library({"quarantine": templates("quarantine", FEED, NETWORK)})
    async with running(advisory(daemon)) as hand:
        hand.declare_documents(rendered(library, ("quarantine", 0, 2)), networks(library))
        seen = await state(hand, "verified", documents="withheld", network="withheld")
        assert "network documents are withheld" in seen["documents_detail"]
        assert len(feeds(daemon)) == 2
        assert daemon.starts == 1
        await hand.withdraw()
        assert daemon.stored["container"] == {}


async def test_a_refused_document_is_named_and_the_others_stand(
    daemon: FakeKubeArmor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare_documents(rendered(LIBRARY, ("quarantine", 0, 2)))
        await state(hand, "waiting", documents="verified")
        monkeypatch.setattr(policies, "MAX_EVENT", 2_000)
        hand.declare_documents(rendered(LIBRARY, ("quarantine", 0, 60)))
        seen = await state(hand, "failed", documents="failed")
        assert seen["documents_detail"].startswith("60-container-feeds-")
        assert seen["documents_detail"].endswith("what stood before stands")
        assert len(feeds(daemon)) == 2
        hand.declare_documents(rendered(LIBRARY, ("quarantine", 0, 3)))
        await state(hand, "waiting", documents="verified")
        assert len(feeds(daemon)) == 3


async def test_a_document_that_ends_the_daemon_is_left_alone_and_the_rest_goes_on(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon, tables=Tables.READ)) as hand:
        hand.declare(addresses("10.77.1.1"))
        hand.declare_documents(rendered(LIBRARY))
        for _ in range(MAX_UNANSWERED):
            daemon.die_on = "container"
            async with asyncio.timeout(PATIENCE):
                await daemon.dead.wait()
            daemon.disk.clear()
            await state(hand, "absent")
            await daemon.start()
        seen = await state(hand, "failed", documents="failed", host="verified", network="verified")
        assert "had no answer" in seen["documents_detail"]
        assert admitted(daemon) == {"10.77.1.1"}
        assert not daemon.dead.is_set()


# --- network documents --------------------------------------------------------------------------------------------

BLOCK = """\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorNetworkPolicy
metadata: {name: ORDER-block}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: "*"}}
  ingress:
    - from: [{ipBlock: {cidr: "${device.address}"}}]
      ports: [{port: "22", protocol: TCP}]
  action: Block
"""


def sequence(daemon: FakeKubeArmor) -> Sequence[str]:
    return [name[:2] for name in daemon.stored["network"]]


async def test_network_documents_are_read_back_and_keep_their_order_with_our_own(daemon: FakeKubeArmor) -> None:
    library = Library(
        {
            "quarantine": templates("quarantine", BLOCK.replace("ORDER", "30")),
            "maintenance": templates("maintenance", BLOCK.replace("ORDER", "70")),
        }
    )
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        await state(hand, "verified", network="verified")
        both = (("quarantine", 0, 2), ("maintenance", 2, 4))
        hand.declare_documents(rendered(library, *both), networks(library))
        await until(lambda: sequence(daemon) == ["30", "50", "70"])
        await state(hand, "verified", documents="verified", network="verified")
        assert admitted(daemon) == {"10.77.1.1"}
        daemon.calls.clear()
        hand.declare(addresses("10.77.1.2"))
        await until(lambda: admitted(daemon) == {"10.77.1.2"})
        assert [call[1] for call in daemon.calls] == ["ADDED"]
        assert sequence(daemon) == ["30", "50", "70"]


# --- leaving ------------------------------------------------------------------------------------------------------


async def test_withdraw_takes_documents_of_any_run(daemon: FakeKubeArmor) -> None:
    library = Library({"quarantine": templates("quarantine", FEED, HOST, NETWORK)}, LIBRARY.site)
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        hand.declare_documents(rendered(library, ("quarantine", 0, 2)), networks(library))
        await until(lambda: len(daemon.stored["network"]) == 2 and len(daemon.stored["host"]) == 2)
        await state(hand, "verified")
    later = advisory(daemon)
    later.declare_documents((), networks(library))
    await later.withdraw()
    assert daemon.stored == {"host": {}, "network": {}, "container": {}}
    assert daemon.disk == {}


async def test_withdraw_names_what_was_not_let_go(daemon: FakeKubeArmor, monkeypatch: pytest.MonkeyPatch) -> None:
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare_documents(rendered(LIBRARY))
        await state(hand, "waiting", documents="verified")
        monkeypatch.setattr(daemon, "_take_container", lambda *_: 5)
        with pytest.raises(BackendError, match="did not delete 20-container-fixed"):
            await hand.withdraw()
