"""What the guard looks at and when: driven probe by probe against a real kernel."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.core.model import Address
from gateway.enforce.nft import Baseline, Endpoint, GatedService
from gateway.enforce.nft.elements import DeviceSets
from gateway.enforce.nft.events import Events
from gateway.enforce.nft.guard import LISTING_EVERY, LISTING_EVERY_AT_REST, LOOK_EVERY, LOOK_EVERY_AT_REST, Guard
from gateway.enforce.nft.messages import NFT_MSG_DELSETELEM, NFT_MSG_NEWSETELEM, SetName, key_messages
from gateway.enforce.nft.netlink import NetlinkSocket
from gateway.enforce.nft.standing import Layer
from tests.netns import in_namespaces, run

KNOWN = tuple(Address.parse(f"10.77.1.{number}") for number in range(1, 201))
MADE = Baseline(
    (GatedService(Endpoint(Address.parse("10.77.3.2"), 8001, "tcp"), frozenset({"admitted"})),),
    inventory_size=len(KNOWN),
)
CUT = DeviceSets(MADE.profiles).cut[32]
ELSEWHERE = SetName("elsewhere", "some", 4)


class Driven(Guard):
    """A guard without a thread, and how often it looked and listed."""

    def __init__(self, *own: NetlinkSocket) -> None:
        super().__init__(MADE, KNOWN, (), lambda _: None, lambda _: None, lambda _: None)
        self.netlink = NetlinkSocket()
        self.layer = Layer(self.netlink, MADE, KNOWN)
        self.layer.settle()
        self._learn(self.netlink, self.layer)
        self.listen(Events([self.netlink.port, *(each.port for each in own)]))
        self.looks = self.lists = 0

    def _look(self, netlink: NetlinkSocket, layer: Layer) -> str:
        self.looks += 1
        return super()._look(netlink, layer)

    def _list(self, netlink: NetlinkSocket, layer: Layer) -> str:
        self.lists += 1
        return super()._list(netlink, layer)

    def probe(self) -> str:
        return self._damage(self.netlink, self.layer)

    def sees(self, probes: int, before: Callable[[], object] = lambda: None) -> tuple[int, int]:
        """Looks and listings of so many sound probes, each after ``before``."""
        looks, lists = self.looks, self.lists
        for _ in range(probes):
            before()
            assert self.probe() == ""
        return self.looks - looks, self.lists - lists

    def rest(self) -> None:
        """Until everything has been looked at that was due."""
        while self._turns_left or self._unlisted or self._probes % LISTING_EVERY_AT_REST:
            assert self.probe() == ""


class Toggler:
    """Adds and takes away a key by turns: every call is a transaction."""

    def __init__(self, where: SetName, address: Address) -> None:
        self.netlink, self._where, self._key, self._there = NetlinkSocket(), where, address.packed, False

    def __call__(self) -> None:
        kind = NFT_MSG_DELSETELEM if self._there else NFT_MSG_NEWSETELEM
        self.netlink.transact(key_messages(kind, self._where, [self._key]))
        self._there = not self._there


@pytest.mark.netns
def test_our_own_changes_do_not_make_the_guard_look_at_everything_again() -> None:
    def body() -> None:
        ours = Toggler(CUT, KNOWN[0])
        guard = Driven(ours.netlink)
        guard.rest()
        assert guard.sees(2 * LISTING_EVERY) == (0, 0)
        guard.rest()
        assert guard.sees(2 * LISTING_EVERY, ours) == (2 * LISTING_EVERY // LOOK_EVERY_AT_REST, 0)

    in_namespaces(body)


@pytest.mark.netns
@pytest.mark.parametrize("where", [CUT, ELSEWHERE])
def test_after_a_change_by_others_among_our_own_everything_is_looked_at(where: SetName) -> None:
    def body() -> None:
        run("nft", "add table inet elsewhere; add set inet elsewhere some { type ipv4_addr; }")
        ours, theirs = Toggler(CUT, KNOWN[0]), Toggler(where, KNOWN[1])
        guard = Driven(ours.netlink)
        for _ in range(3):
            guard.rest()
            guard.sees(1, ours)
            theirs()
            ours()
            assert guard.sees(LOOK_EVERY, ours)[0] == 1
            assert guard.sees(LISTING_EVERY, ours)[1] == 1
        guard.rest()
        assert guard.sees(2 * LISTING_EVERY, theirs) == (LISTING_EVERY, 2)

    in_namespaces(body)


@pytest.mark.netns
def test_what_was_changed_before_the_guard_listens_is_looked_for() -> None:
    def body() -> None:
        ours = NetlinkSocket()
        guard = Driven(ours)
        guard.rest()
        guard._watcher.close()
        assert guard.sees(LISTING_EVERY) == (LISTING_EVERY // LOOK_EVERY, 1)  # nothing is told
        run("nft", "flush chain inet ragate sever4")
        guard.listen(Events([guard.netlink.port, ours.port]))
        assert [one for one in (guard.probe() for _ in range(LOOK_EVERY)) if one] == ["a chain was changed"]

    in_namespaces(body)


@pytest.mark.netns
@pytest.mark.parametrize(
    "harm",
    [
        "flush chain inet ragate sever4",
        "insert rule inet ragate arrive accept",
        "delete element inet ragate cut4 { 192.0.0.8 }; flush chain inet ragate sever4",
    ],
)
def test_harm_among_our_own_changes_is_found_at_the_next_look(harm: str) -> None:
    def body() -> None:
        ours = Toggler(CUT, KNOWN[0])
        guard = Driven(ours.netlink)
        guard.rest()
        guard.sees(1, ours)
        run("nft", harm)
        found = []
        for _ in range(LOOK_EVERY):
            ours()
            found.append(guard.probe())
        assert any(found), found

    in_namespaces(body)


@pytest.mark.netns
def test_what_is_told_only_when_the_kernel_was_waited_for_is_heard_at_the_same_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A transaction of others shows as a generation before it is told: it stands for one that was just so far."""
    await_commits = NetlinkSocket.await_commits

    def body() -> None:
        ours, theirs = Toggler(CUT, KNOWN[0]), Toggler(CUT, KNOWN[1])
        guard = Driven(ours.netlink)
        guard.rest()

        def told_late(netlink: NetlinkSocket) -> None:
            theirs()
            await_commits(netlink)

        monkeypatch.setattr(NetlinkSocket, "await_commits", told_late)
        guard.sees(1)
        assert not guard._unlisted
        guard.sees(1, ours)
        assert guard._unlisted

    in_namespaces(body)


@pytest.mark.netns
def test_a_table_that_is_gone_is_seen_at_the_next_probe() -> None:
    def body() -> None:
        ours = Toggler(CUT, KNOWN[0])
        guard = Driven(ours.netlink)
        guard.rest()
        for _ in range(LOOK_EVERY_AT_REST):
            guard.sees(1, ours)
            run("nft", "flush ruleset")
            assert guard.probe() == "the table is gone"
            guard.layer.lay()
            guard.layer.fill()
            guard._learn(guard.netlink, guard.layer)
            ours = Toggler(CUT, KNOWN[0])

    in_namespaces(body)
