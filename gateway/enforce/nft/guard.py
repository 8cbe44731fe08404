"""The guard: a thread that settles the static part at start and lays it again when somebody damages it.

A thread and a socket of its own, so that neither a busy loop nor a held lane delays it. What must not live here:
admissions and tombstones; whoever hears of damage brings those back.
"""

from __future__ import annotations

import errno
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.control.ports import Strayed
from gateway.control.storms import Storm
from gateway.core.errors import BackendError
from gateway.core.model import Address
from gateway.enforce.nft.chains import FILLED_SET
from gateway.enforce.nft.events import Events
from gateway.enforce.nft.inspection import PATIENT_TRIES, standing_rules, undisturbed
from gateway.enforce.nft.messages import (
    INET,
    NFT_MSG_GETCHAIN,
    NFTA_CHAIN_TABLE,
    NFTA_CHAIN_USE,
    NFTA_TABLE_USE,
    attributes,
    generation_request,
    table_request,
    text_attribute,
)
from gateway.enforce.nft.netlink import NetlinkError, NetlinkSocket
from gateway.enforce.nft.ruleset import TABLE, Baseline, chains
from gateway.enforce.nft.sources import Anchor
from gateway.enforce.nft.standing import Layer
from gateway.enforce.nft.watcher import Watcher
from gateway.enforce.nft.witnesses import Witnesses, lost, of_devices

#: Seconds between probes: with shutting (some 10 ms, most of it the kernel's) below the 50 ms for which traffic may
#: stand open.
PROBE_SECONDS = 0.010
#: Probes between two listings of rules and static sets after others may have changed something, about 2/3 s: a rule
#: replaced by another, or an element added to a static set, shows only there.
LISTING_EVERY = 64
#: The same while nobody else changes anything, some 10 s: a second look, for what others change is told.
LISTING_EVERY_AT_REST = 1_024
#: Every so many probes chains and witnesses are looked at after others may have changed something; the table, which
#: `flush ruleset` takes, at each probe.
LOOK_EVERY = 2
#: The same while nobody else changes anything and the remaining witnesses get their turn.
LOOK_EVERY_AT_REST = 16

#: Seconds for which a table and chains may be counted otherwise than was learnt while nothing else differs: one
#: transaction of 100,000 elements takes some 0.3 s.
COUNTED_SECONDS = 2.0

_GENERATION_AND_TABLE = (generation_request(), table_request(TABLE))


def _table(netlink: NetlinkSocket) -> frozenset[bytes]:
    """Our table as the kernel describes it: name, flags, use count, handle; nothing when it is gone."""
    return _as_described(*netlink.ask([table_request(TABLE)]))


def _as_described(table: bytes | int) -> frozenset[bytes]:
    if table == errno.ENOENT:
        return frozenset()
    if isinstance(table, int):
        raise NetlinkError(table, f"looking for table inet {TABLE}")
    return frozenset((table,))


def _chains(netlink: NetlinkSocket) -> frozenset[bytes]:
    """Our chains as the kernel describes them: name, handle, hook, policy, use count."""
    ours = text_attribute(NFTA_CHAIN_TABLE, TABLE)  # always the first attribute (nf_tables_api.c)
    standing = undisturbed(lambda: netlink.dump(NFT_MSG_GETCHAIN, INET))
    return frozenset(one for one in standing if one.startswith(ours))


def _uncounted(standing: frozenset[bytes], count: int) -> frozenset[tuple[tuple[int, bytes], ...]]:
    """The same without the attribute ``count``."""
    return frozenset(tuple(each for each in attributes(one) if each[0] != count) for one in standing)


class Order(NamedTuple):
    """A baseline to be laid, unless it is ``withdrawn`` before; ``done`` is called from the guard's thread with
    what kept it from that, or None."""

    baseline: Baseline
    done: Callable[[BaseException | None], None]
    withdrawn: threading.Event


class Guard:
    """Owns the static part of one table."""

    def __init__(
        self,
        baseline: Baseline,
        known: Sequence[Address],
        anchors: Sequence[Anchor],
        settled: Callable[[bool | BaseException], None],
        damaged: Callable[[str | BaseException], None],
        strayed: Callable[[Strayed], None],
    ) -> None:
        self._baseline = baseline
        self._known = tuple(known)
        self._anchors = tuple(anchors)
        self._settled = settled
        self._damaged = damaged
        self._watcher = Watcher(strayed)
        self._storm = Storm()
        self._due = 0.0  # when the table that was laid in a storm is to be filled; 0: it is
        self._damaged_by = ""
        #: the port of the guard's own socket, once it has settled
        self.port = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ragate-nft-guard", daemon=True)
        self._table: frozenset[bytes] = frozenset()  # what whole looks like: the table, its chains, its rules
        self._chains: frozenset[bytes] = frozenset()
        self._chain_count = len(chains(baseline))
        self._rules: dict[str, tuple[bytes, ...]] = {}
        self._counted: dict[str, float] = {}  # since when only counts of use differ, by what they say
        self._generation: bytes | int = b""
        self._unlisted = True  # whether others may have changed something since the last listing of rules
        self._turns_left = 0  # looks until every witness was asked for since others may have changed something
        self._looked = False
        self._probes = 0
        #: packets dropped for their source since the table was laid, as of the newest look (about 2/3 s ago)
        self.spoofed = 0
        self._devices = of_devices(baseline, self._known, self._anchors)
        self._witnesses = Witnesses(baseline, self._devices)
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()

    def start(self) -> None:
        """Start the thread; ``settled`` is called from it once, then ``damaged`` each time."""
        self._thread.start()

    def move(self, order: Order) -> None:
        """Look after another baseline from the next probe on: laid in one transaction and read back.

        After a ``BackendError`` the one before is looked after as ever.
        """
        self._orders.put(order)

    def listen(self, events: Events) -> None:
        """Watch what others change in the sets from the next probe on; the guard closes ``events`` at its end."""
        self._watcher.listen(events)

    def stop(self, seconds: float) -> bool:
        """End the thread; False if it has not ended within ``seconds``."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            netlink = NetlinkSocket()
        except BackendError as error:
            self._settled(error)
            return
        self.port = netlink.port
        try:
            layer = Layer(netlink, self._baseline, self._known, self._anchors)
            try:
                found = layer.settle()
                self._learn(netlink, layer)
            except BackendError as error:
                self._settled(error)
                return
            self._settled(found)
            self._watch(netlink, layer)
        except BaseException as error:  # a bug: whoever listens must learn of it before this thread dies
            self._settled(error)
            self._damaged(error)
            raise
        finally:
            netlink.close()
            self._watcher.close()

    def _watch(self, netlink: NetlinkSocket, layer: Layer) -> None:
        trouble = ""
        while True:
            time.sleep(PROBE_SECONDS)  # to wait for being stopped would take as long as half a probe
            if self._stopping.is_set():
                return
            try:
                self._repair(netlink, layer, self._damage(netlink, layer))
                if not self._due:
                    layer = self._follow(netlink, layer)
                trouble = ""
            except BackendError as error:  # tried again at the next probe
                self._generation = b""
                if isinstance(error, NetlinkError) and error.code == errno.EINTR:
                    continue  # others keep changing the ruleset
                if not trouble:
                    trouble = f"the path gate cannot be looked after: {error}"
                    self._damaged(trouble)

    def _repair(self, netlink: NetlinkSocket, layer: Layer, damage: str) -> None:
        """Lay a damaged table again, at once; fill it and tell of it at the pace of the storm, if there is one.

        Meanwhile it is shut and empty: whoever damages it again finds nothing to gain and little to undo.
        """
        if damage:
            layer.lay()
            now = time.monotonic()
            wait = self._storm.repaired(now)
            self._damaged_by = damage + (", again and again" if wait else "")
            self._due = now + wait
            if wait:
                self._learn(netlink, layer)
        if self._due and time.monotonic() >= self._due:
            self._damaged(f"{self._damaged_by}: laid again, shut and empty")
            layer.fill()
            self._learn(netlink, layer)
            self._due = 0.0
            self._watcher.forget()

    def _follow(self, netlink: NetlinkSocket, layer: Layer) -> Layer:
        """Lay the next baseline that was ordered; the layer that is looked after from here on."""
        try:
            baseline, done, withdrawn = self._orders.get_nowait()
        except queue.Empty:
            return layer
        if withdrawn.is_set():
            return layer
        before = self._baseline, self._chain_count
        try:
            moved = Layer(netlink, baseline, self._known, self._anchors)
            moved.move(self._baseline)
            self._baseline, self._chain_count = baseline, len(chains(baseline))
            self._learn(netlink, moved)
        except BackendError as error:
            self._baseline, self._chain_count = before
            done(error)
            return layer
        self._witnesses = Witnesses(baseline, self._devices)
        self._turns_left, self._looked, self._unlisted = self._witnesses.turns, False, True
        done(None)
        return moved

    def _learn(self, netlink: NetlinkSocket, layer: Layer) -> None:
        """Remember what whole looks like. Raises ``BackendError`` when it is not whole."""
        table = _table(netlink)
        standing = _chains(netlink)
        rules = standing_rules(netlink, PATIENT_TRIES)
        if not table or not layer.rules_are_whole(rules) or len(standing) != self._chain_count:
            raise BackendError("nft", "the static part was changed while it was laid", transient=True)
        self._table = table
        self._chains = standing
        self._rules = rules
        self._counted.clear()
        self._generation = b""

    def _damage(self, netlink: NetlinkSocket, layer: Layer) -> str:
        """What is wrong with the static part; "" when nothing is."""
        # asked before the rest: a change in between shows as another generation next time
        generation, table = netlink.ask(_GENERATION_AND_TABLE)
        moved = generation != self._generation
        self._probes += 1
        if moved and (damage := self._glance(netlink, _as_described(table))):
            return damage
        if self._due:  # shut and empty: that it stands is all there is to look at
            damage = self._compare_chains(netlink) if moved else ""
        else:
            self._hear(netlink, layer, moved=moved)
            damage = self._examine(netlink, layer)
        if not damage and not self._counted:
            self._generation = generation
        return damage

    def _hear(self, netlink: NetlinkSocket, layer: Layer, *, moved: bool) -> None:
        """Learn whether somebody else may have changed anything.

        What our own sockets change is not told, and moves the generation all the time. So the kernel is asked to
        have told of every transaction up to the generation that was seen; what was not told then is our own.
        """
        if moved and self._watcher.listening:
            netlink.await_commits()
        if self._watcher.watch(layer):
            # chains and witnesses are due at one of the next probes even if nothing else changes until then
            self._turns_left, self._looked, self._unlisted = self._witnesses.turns, False, True
        elif moved:
            self._turns_left = max(self._turns_left, 1)

    def _examine(self, netlink: NetlinkSocket, layer: Layer) -> str:
        """Look at chains, witnesses, rules and static sets, each when it is due."""
        every = LOOK_EVERY_AT_REST if self._looked else LOOK_EVERY
        if (self._turns_left or self._counted) and self._probes % every == 0:
            if damage := self._look(netlink, layer):
                return damage
            self._looked = not self._counted
        if self._probes % LISTING_EVERY == 0:
            self.spoofed = layer.spoofed()
            if self._unlisted or self._probes % LISTING_EVERY_AT_REST == 0:
                return self._list(netlink, layer)
        return ""

    def _list(self, netlink: NetlinkSocket, layer: Layer) -> str:
        """Compare rules and static sets with what was learnt."""
        if all(standing_rules(netlink) != self._rules for _ in range(2)):  # twice: see ``_compare``
            return "a rule was replaced"
        if name := layer.lost_or_strange():
            return f"set {name} was changed"
        if layer.unfilled():
            return f"set {FILLED_SET} was changed"
        self._unlisted = False
        return ""

    def _glance(self, netlink: NetlinkSocket, found: frozenset[bytes]) -> str:
        """Compare the table with what was learnt."""
        return self._compare(netlink, "the table", found, _table, self._table, NFTA_TABLE_USE)

    def _compare_chains(self, netlink: NetlinkSocket) -> str:
        return self._compare(netlink, "a chain", _chains(netlink), _chains, self._chains, NFTA_CHAIN_USE)

    def _compare(
        self,
        netlink: NetlinkSocket,
        what: str,
        found: frozenset[bytes],
        ask: Callable[[NetlinkSocket], frozenset[bytes]],
        learnt: frozenset[bytes],
        count: int,
    ) -> str:
        """Compare what was found to stand with what was learnt.

        Where only the count of use differs, a transaction may be under way: the kernel counts what it will add
        before it is committed, and back when it is not, as with ``nft --check``. What is listed is committed; while
        that is whole, such a count is given some time.
        """
        if found == learnt:
            self._counted.pop(what, None)
            return ""
        if not found:
            return f"{what} is gone"

        now = time.monotonic()
        # Noted first: on a busy site the listings below may have to be given up, again and again.
        if now - self._counted.setdefault(what, now) >= COUNTED_SECONDS:
            return f"{what} was changed"

        def damaged() -> bool:
            differs = _uncounted(ask(netlink), count) != _uncounted(learnt, count)
            return differs or standing_rules(netlink) != self._rules

        # Once may be a commit that overtook the listing, which then shows some of both.
        return f"{what} was changed" if damaged() and damaged() else ""

    def _look(self, netlink: NetlinkSocket, layer: Layer) -> str:
        """Compare chains with what was learnt, and ask for witnesses."""
        witnesses = self._witnesses.next()
        damage = lost(netlink, witnesses)
        if damage and self._watcher.listening:
            # Taken out since the watcher listened, a moment ago? Then it is told now and put right in place.
            netlink.await_commits()
            self._watcher.watch(layer)
            damage = lost(netlink, witnesses)
        if damage := damage or self._compare_chains(netlink):
            return damage
        self._turns_left = max(0, self._turns_left - 1)
        return ""
