"""The door: accepts, counts, keeps the connections by device, and tells them when a standing has changed."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from gateway.control.ports import Admission, Clock, Standings
from gateway.core.errors import Refusal
from gateway.core.model import DeviceId, Envelope, Instant, SourceName
from gateway.relying.copies import RESULTS, Copies
from gateway.relying.link import Link
from gateway.relying.settings import RelyingSettings
from gateway.relying.terms import End
from gateway.relying.wheel import Wheel
from gateway.sediment.relying import BESIDE, CARRIED_KINDS, TABLE, Case, Conversation, Heard, Word
from gateway.sediment.replay import Repeat, ReplayMemory
from gateway.sediment.wire import MessageId

ACCEPTS_PER_WAKE = 32  #: connections taken before others on the loop get their turn
REST_SECONDS = 0.05  #: without accepting, once descriptors have run out
HELD_SECONDS = 5.0  #: a refusal of the start waits, at most: a clock behind the journal makes that start long
REMEMBERED_PEERS = 16_384  #: addresses whose source is remembered

#: Cases after which a message must not come again: what was not carried may.
_CONSUMED = frozenset({Case.ADMITTED, Case.WANTED})

#: accept(2): errors of the connection that was about to be taken; the next one may be fine.
_LOST_BEFORE_ACCEPT = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.EPERM,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
    }
)


class RelyingDoor:
    """Serves devices (and a verifier's alerts) on the relying party's port.

    Counts, for metrics: ``accepted`` connections, ``messages`` by kind and case, ``refused`` by ``Refusal``,
    ``taken`` and ``not_taken`` messages for the app server, ``ends`` by ``End``, ``shortages``.
    """

    def __init__(
        self,
        listen: Sequence[socket.socket],
        conversation: Conversation,
        memory: ReplayMemory,
        standings: Standings,
        admission: Admission,
        clock: Clock,
        settings: RelyingSettings,
        pass_on: Callable[[bytes], None] | None = None,
    ) -> None:
        """Adopt the listening sockets. ``pass_on`` takes alerts for SEDIMENT's relying party, beside it."""
        self._listeners = list(listen)
        self.conversation = conversation
        self.settings = settings
        self._memory = memory
        self._standings = standings
        self._admission = admission
        self._clock = clock
        self._pass_on = pass_on
        self._links: dict[Link, None] = {}
        self._by_device: dict[DeviceId, set[Link]] = {}
        self._by_peer: Counter[str] = Counter()
        self._copies: Copies | None = None
        self._listening = False
        self._paused = False
        self._resting: asyncio.TimerHandle | None = None
        self._closed = False
        self._repeat: Repeat | None = None  # why the message under judgement is not taken
        self._source_of = lru_cache(maxsize=REMEMBERED_PEERS)(self._find_source)
        self.accepted = 0
        self.shortages = 0
        self.taken = 0
        self.not_taken = 0
        self.refused: Counter[Refusal] = Counter()
        self.ends: Counter[End] = Counter()
        self.messages: dict[tuple[MessageId, Case], int] = dict.fromkeys(BESIDE if settings.beside else TABLE, 0)
        standings.follow(self._standing_changed)

    @property
    def open_connections(self) -> int:
        """Connections of devices."""
        return len(self._links)

    @property
    def unsent(self) -> int:
        """Bytes that wait to go onward."""
        return sum(link.unsent for link in self._links)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each listening socket."""
        return [listener.getsockname()[:2] for listener in self._listeners]

    def copies(self) -> Mapping[str, int]:
        """Copies to the verifier by what became of them."""
        return dict.fromkeys(RESULTS, 0) if self._copies is None else self._copies.results

    def close(self) -> None:
        """Close the listening sockets of a door that was never run; after ``run`` there are none."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    async def run(self) -> None:
        """Serve until cancelled; then every connection ends at once: a relay that is gone carries nothing."""
        self._loop = asyncio.get_running_loop()
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self.wheel = Wheel()
        async with asyncio.TaskGroup() as tasks:
            if self.settings.verifier is not None and not self.settings.beside:
                self._copies = Copies(self.settings.verifier, tasks)
            try:
                self._listen()
                await self._failure
            finally:
                self._shut()

    # Accepting

    def _listen(self) -> None:
        wanted = not (self._paused or self._closed or self._resting)
        if wanted == self._listening:
            return
        self._listening = wanted
        for listener in self._listeners:
            if wanted:
                self._loop.add_reader(listener.fileno(), self._on_waiting, listener)
            else:
                self._loop.remove_reader(listener.fileno())

    def _on_waiting(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_WAKE):
            if not self._listening:
                return
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _LOST_BEFORE_ACCEPT:
                    continue
                self._rest(error)
                return
            self.accepted += 1
            self._greet(sock, address[0])

    def _rest(self, error: OSError) -> None:
        """Descriptors have run out: stop accepting for a moment. Anything else is a bug and ends the door."""
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            if not self._failure.done():
                self._failure.set_exception(error)
            return
        self.shortages += 1
        self.refuse(Refusal.LIMIT, f"accepting stands still: {error.strerror}", "")
        self._resting = self._loop.call_later(REST_SECONDS, self._rested)
        self._listen()

    def _rested(self) -> None:
        self._resting = None
        self._listen()

    def _greet(self, sock: socket.socket, host: str) -> None:
        settings = self.settings
        peer = host.partition("%")[0].removeprefix("::ffff:")
        if len(self._links) >= settings.connections or self._by_peer[peer] >= settings.connections_per_peer:
            what = f"{self._by_peer[peer]} connections of this address and {len(self._links)} in all are open"
            self.refuse(Refusal.LIMIT, what, peer)
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(self, self._loop, sock, peer, self._source_of(peer))
        self._links[link] = None
        self._by_peer[peer] += 1
        link.open()

    def _find_source(self, peer: str) -> SourceName | None:
        """The source whose verifier has this address; the most specific network wins."""
        ip = ipaddress.ip_address(peer)
        found = [network for network in self.settings.verifiers if ip in network]
        return self.settings.verifiers[max(found, key=lambda network: network.prefixlen)] if found else None

    # What connections ask

    def now(self) -> Instant:
        """Both clocks."""
        return self._clock.now()

    def admitted(self, device: DeviceId) -> bool:
        """Whether the device may reach the service now."""
        return self._standings.until(device, self.settings.service) > self._clock.now().boot

    def word(self, heard: Heard, now: Instant) -> Word:
        """What standing and memory say of a message."""
        device, header = heard.device, heard.header
        admitted = self._standings.until(device, self.settings.service) > now.boot
        if heard.kind not in CARRIED_KINDS:
            return Word(admitted)
        self._repeat = self._memory.judge(device, header.timestamp, header.nonce, now.wall)
        repeated, wanted = self._repeat is not None, self._standings.wanted(device)
        # What is not carried anyway is not charged.
        slowed = admitted and not repeated and not wanted and not self._standings.spend(device)
        return Word(admitted, wanted, repeated, slowed)

    def too_early(self, heard: Heard, now: Instant) -> float:
        """Seconds that the refusal of a message waits because it is one of the service's start alone.

        A prover attests after five of them and does not pause in between: told at once, each device would have the
        verifier attest it several times a second until the start is over.
        """
        return min(self._memory.too_early(heard.header.timestamp, now.wall), HELD_SECONDS)

    def noted(self, heard: Heard, case: Case, peer: str) -> None:
        """Count one judged message; remember it where it must not come again; tell that a device was asked."""
        self.messages[heard.kind, case] += 1
        if case is Case.REPEATED:
            why = "" if self._repeat is None else self._repeat.value
            self.refuse(Refusal.REPLAY, f"{heard.kind.name} of '{heard.device}': {why}", peer)
        elif case is Case.FORGED and heard.fault is not None:
            self.refuse(heard.fault[0], f"passport of '{heard.device}': {heard.fault[1]}", peer)
        elif heard.kind in CARRIED_KINDS and case in _CONSUMED:
            self._memory.remember(heard.device, heard.header.timestamp, heard.header.nonce)
            if case is Case.WANTED:
                self._standings.asked(heard.device)

    def alerted(self, envelope: Envelope | None) -> None:
        """Hand in an alert, and pass it on beside SEDIMENT's relying party; None: count one of a stranger."""
        self.messages[MessageId.ALERT, Case.STRANGER if envelope is None else Case.VERIFIER] += 1
        if envelope is None:
            return
        self._admission.submit(envelope)
        if self._pass_on is not None:
            self._pass_on(envelope.data)
        if self._admission.full and not self._paused:
            self._paused = True
            self._listen()
            self._admission.when_ready(self._resume)

    def _resume(self) -> None:
        self._paused = False
        if not self._closed:
            self._listen()

    def carried(self, *, taken: bool) -> None:
        """Count one message for the app server."""
        if taken:
            self.taken += 1
        else:
            self.not_taken += 1

    def met(self, link: Link, device: DeviceId) -> None:
        """A connection has shown whose it is."""
        self._by_device.setdefault(device, set()).add(link)

    def refuse(self, refusal: Refusal, detail: str, peer: str) -> None:
        """Count a refusal, here and in the admission's facts."""
        self.refused[refusal] += 1
        self._admission.refuse(self.settings.source, refusal, detail, peer)

    def copy(self, answer: bytes, done: Callable[[], None]) -> None:
        """Send a copy to the verifier; then, or when that cannot be, call ``done``."""
        if self._copies is None or self._closed:
            self._loop.call_soon(done)
        else:
            self._copies.send(answer, done)

    def ended(self, link: Link, why: End) -> None:
        """A connection is over."""
        self.ends[why] += 1
        del self._links[link]
        self._by_peer[link.peer] -= 1
        if not self._by_peer[link.peer]:
            del self._by_peer[link.peer]
        if link.device is not None:
            links = self._by_device[link.device]
            links.discard(link)
            if not links:
                del self._by_device[link.device]

    # What standings tell

    def _standing_changed(self, device: DeviceId) -> None:
        for link in tuple(self._by_device.get(device, ())):
            link.standing_changed()

    # Ending

    def _shut(self) -> None:
        self._closed = True
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        self._listen()
        self.close()
        self.wheel.stop()
        for link in tuple(self._links):
            link.abort(End.STOPPED)
        if self._copies is not None:
            self._copies.stop()
