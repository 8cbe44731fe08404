"""Watching: real connections, and what both kernels have, again and again, beside everything else.

The allowance. A device may connect as long as something that was sent may admit it. It may not connect any more

* from its **verified cut moment** on: all its passes have been judged (the gateway shows the newest), and then a
  sampler has read in the gateway's kernel the tombstones of a device that it had seen admitted there, or the
  gateway itself has shown it without trust and *verified*; and in any case
* as soon as no order in which its verdicts may have been judged, kept or lost in a kill leaves it trusted
  (``SETTLE`` seconds after a failure that a healthy gateway was handed; ``SLACK`` seconds after its deadline),

until another pass of it is sent. The app server's own kernel may have it for the rest of its lease there and no
longer: the gateway's gate stands before it. What lives here: sampling and judging. What must not: sending, killing.
"""

from __future__ import annotations

import http.client
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from gateway.core.model import Address
from gateway.enforce.nft.elements import DeviceSets
from gateway.enforce.nft.netlink import NetlinkSocket
from tests.netns import Space
from tests.soak.model import Kind, Model, Sent
from tests.soak.site import PROFILES

SETTLE = 30.0
"""Seconds in which a healthy gateway has judged, kept and enforced what it was handed, on a machine that many
share: the bound where nothing was seen of it. Milliseconds on an idle one."""
SLACK = 1.0
"""Seconds around a deadline: a thread that waits for a CPU commits late, which read-back finds and repairs."""
ANSWER_SECONDS = 0.15
"""Seconds in which a connection comes about when nothing is in its way."""
ANSWER_MOST = 20
"""Violations after which there is no use in going on."""
_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: closing leaves nothing behind


class Ledger:
    """What was sent about each device, what is known of its cuts, and what was found wrong. One lock for all."""

    def __init__(self, names: Sequence[str], max_age: float) -> None:
        self.lock = threading.RLock()
        self.model = Model(names, max_age, SETTLE)
        self.healthy_since = 0.0  # of the gateway; 0: it is down
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.over = threading.Event()
        self.cut_ms: list[float] = []
        self._passes = dict.fromkeys(names, 0)
        self._pass_issued = dict.fromkeys(names, 0)
        self._judged = dict.fromkeys(names, 0)
        self._fail_sent = dict.fromkeys(names, 0.0)
        self._cut_at_pass = dict.fromkeys(names, -1)
        self._cut_by = dict.fromkeys(names, "")
        self._inside_at_pass = dict.fromkeys(names, -1)
        self._shut_since: dict[str, float] = {}

    def sent(self, name: str, sent: Sent) -> None:
        """Something is handed to the gateway now."""
        with self.lock:
            now = time.time()
            self.model.sent(name, sent, now)
            if sent.kind is Kind.PASS:
                self._passes[name] += 1
                self._pass_issued[name] = max(self._pass_issued[name], sent.issued)
                self._fail_sent[name] = 0.0
            elif sent.kind is Kind.FAIL and not self._fail_sent[name] and self.quiet(name):
                self._fail_sent[name] = now  # from here on its cut can be told from everything before

    def settle(self, now: float) -> None:
        """Forget what a healthy gateway has had the time for."""
        if self.healthy_since:
            self.model.settled(now, self.healthy_since)

    def judged(self, name: str, newest: int) -> None:
        """The gateway shows that a verdict issued at ``newest`` has counted: no older one raises any more."""
        self._judged[name] = max(self._judged[name], newest)

    def quiet(self, name: str) -> bool:
        """Whether no pass of it can be on its way any more."""
        return self._judged[name] >= self._pass_issued[name]

    def seen_inside(self, name: str, passes: int) -> None:
        """The gateway's kernel admitted it when so many passes had been sent."""
        self._inside_at_pass[name] = passes

    def seen_cut(self, name: str, passes: int, at: float) -> None:
        """Tombstones were read. They tell something new only where it was admitted before: an admission that waits
        for the app server leaves old ones standing."""
        if (
            self._inside_at_pass[name] == passes
            and self.verified_cut(name, passes, f"in the kernel at {at:.3f}")
            and self._fail_sent[name]
        ):
            self.cut_ms.append((at - self._fail_sent[name]) * 1_000)

    def verified_cut(self, name: str, passes: int, how: str) -> bool:
        """Its cut was read back, by somebody who began to look after so many passes: is that new?"""
        if passes != self._passes[name] or self._cut_at_pass[name] == passes or not self.quiet(name):
            return False
        self._cut_at_pass[name], self._cut_by[name] = passes, how
        self.counts["verified cut moments"] += 1
        return True

    def passes(self) -> dict[str, int]:
        """Passes sent so far, by device."""
        return dict(self._passes)

    def shut(self, now: float) -> dict[str, int]:
        """Devices that must not connect from ``now`` on, unless another pass is sent; with their passes."""
        self.settle(now)
        found: dict[str, int] = {}
        for name, passes in self._passes.items():
            if self._cut_at_pass[name] == passes or self.model.must_not(name, now - SLACK):
                found[name] = passes
                self._shut_since.setdefault(name, now)
            else:
                self._shut_since.pop(name, None)
        return found

    def shut_for(self, name: str, now: float) -> float:
        """For how long it has not been allowed to connect."""
        return now - self._shut_since.get(name, now)

    def judge(self, what: str, shut: Mapping[str, int], opened: Sequence[str]) -> None:
        """``opened`` were found open by a look that began when ``shut`` held."""
        for name in opened:
            if shut.get(name) == self._passes[name]:
                states = "; ".join(map(str, self.model.devices[name].states))
                cut = self._cut_by[name] if self._cut_at_pass[name] == self._passes[name] else "by no sampler"
                self.wrong(f"{name} {what}; its cut was verified {cut}; possible: {states}")

    def wrong(self, what: str) -> None:
        """Note a violation."""
        self.violations.append(f"{time.time():.3f} {what}")
        if len(self.violations) >= ANSWER_MOST:
            self.over.set()

    def killed(self) -> None:
        """The gateway was killed: what was under way may have been kept or not."""
        self.healthy_since = 0.0
        self.model.killed()

    def started(self, lo: float) -> None:
        """It is there again, started after ``lo``; any device may have been withheld."""
        now = time.time()
        self.model.started(lo, now, doubtful=True)
        self.healthy_since = now


class Connections:
    """Opens a connection from every address in turn, and one from a stranger's, to the gated service."""

    def __init__(
        self,
        ledger: Ledger,
        devices: Mapping[str, Sequence[str]],
        servers: Sequence[tuple[str, int]],
        stranger: str,
    ) -> None:
        self._ledger = ledger
        self._places = [(name, one) for name, addresses in devices.items() for one in addresses]
        self._servers = servers
        self._stranger = stranger

    def look(self) -> None:
        """One round."""
        ledger = self._ledger
        with ledger.lock:
            shut = ledger.shut(time.time())
        opened = self._round([*self._places, ("", self._stranger)])
        with ledger.lock:
            ledger.counts["connections tried"] += len(self._places) + 1
            ledger.counts["connections of devices that had to be shut out"] += len(shut)
            ledger.counts["connections that came about"] += len(opened)
            if "" in opened:
                ledger.wrong(f"the stranger {self._stranger} has connected")
            ledger.judge("has connected", shut, [name for name in opened if name])

    def _round(self, places: Sequence[tuple[str, str]]) -> list[str]:
        waiting: dict[int, tuple[str, socket.socket]] = {}
        poll = select.poll()
        try:
            for name, address in places:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                one = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                waiting[one.fileno()] = (name, one)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                one.bind((address, 0))
                one.connect_ex(self._servers[":" in address])
                poll.register(one, select.POLLOUT)
            return self._opened(poll, waiting)
        finally:
            for _, one in waiting.values():
                one.close()

    @staticmethod
    def _opened(poll: select.poll, waiting: Mapping[int, tuple[str, socket.socket]]) -> list[str]:
        opened: list[str] = []
        end = time.monotonic() + ANSWER_SECONDS
        left = len(waiting)
        while left and (seconds := end - time.monotonic()) > 0:
            for number, _ in poll.poll(seconds * 1_000):
                name, one = waiting[number]
                poll.unregister(number)
                left -= 1
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    opened.append(name)
        return opened


class Elements:
    """Reads every address in one host's kernel, with a socket of its own. Made in that host's namespace."""

    def __init__(self, ledger: Ledger, host: str, devices: Mapping[str, Sequence[str]], lease: float) -> None:
        """``lease``: for so many seconds a device may be in there though it may not connect; 0: not at all."""
        self._ledger = ledger
        self._host = host
        self._lease = lease
        self._names = list(devices)
        self._spans: list[tuple[int, int]] = []
        self._addresses: list[Address] = []
        for addresses in devices.values():
            start = len(self._addresses)
            self._addresses += map(Address.parse, addresses)
            self._spans.append((start, len(self._addresses)))
        self._netlink = NetlinkSocket()
        self._sets = DeviceSets(PROFILES)

    def look(self) -> None:
        """Read everything once."""
        ledger = self._ledger
        with ledger.lock:
            now = time.time()
            shut, passes = ledger.shut(now), ledger.passes()
            if self._lease:
                longest = self._lease + SLACK
                shut = {name: n for name, n in shut.items() if ledger.shut_for(name, now) > longest}
        stands = [self._sets.stands(found) for found in self._sets.read(self._netlink, self._addresses)]
        at = time.time()
        inside, cut = [], []
        for name, (start, end) in zip(self._names, self._spans, strict=True):
            mine = stands[start:end]
            if any(one.profile and not one.tombstone for one in mine):
                inside.append(name)
            elif all(one.tombstone for one in mine):
                cut.append(name)
        with ledger.lock:
            ledger.counts[f"reads of the {self._host}'s kernel, devices"] += len(self._names)
            ledger.counts[f"admitted in the {self._host}'s kernel"] += len(inside)
            ledger.judge(f"is admitted in the {self._host}'s kernel", shut, inside)
            if not self._lease:
                for name in inside:
                    ledger.seen_inside(name, passes[name])
                for name in cut:
                    ledger.seen_cut(name, passes[name], at)


class Word:
    """What the gateway itself shows: without trust and verified is its word that nobody gets through."""

    def __init__(self, ledger: Ledger, ask: Callable[[], Sequence[Mapping[str, object]]]) -> None:
        self._ledger = ledger
        self._ask = ask

    def look(self) -> None:
        """Ask once; a gateway that is down says nothing."""
        ledger = self._ledger
        with ledger.lock:
            passes = ledger.passes()
            if not ledger.healthy_since:
                return
        try:
            devices = self._ask()
        except (OSError, http.client.HTTPException, ValueError):
            return
        at = time.time()
        with ledger.lock:
            for device in devices:
                name, targets, newest = str(device["id"]), device["targets"], device["newest"]
                assert isinstance(targets, list)
                if isinstance(newest, int):
                    ledger.judged(name, newest)
                if device["standing"] != "trusted" and (targets[0]["wanted"], targets[0]["state"]) == (
                    "deny",
                    "verified",
                ):
                    ledger.verified_cut(name, passes[name], f"by the gateway's word at {at:.3f}")
                    ledger.counts["shown without trust, verified"] += 1


def sampling(ledger: Ledger, space: Space | None, make: Callable[[], Callable[[], None]], pause: float) -> None:
    """Run a sampler's looks in its namespace until it is over; a sampler that fails is a violation itself."""

    def work() -> None:
        look = make()
        while not ledger.over.is_set():
            look()
            ledger.over.wait(pause)

    try:
        if space is None:
            work()
        else:
            with space.entered():
                work()
    except BaseException as error:
        ledger.wrong(f"a sampler stopped: {error!r}")
        ledger.over.set()
        raise
