"""One device's connection: heard, judged, carried, answered; at most one message at a time.

While a message waits (for the app server, for the verifier, for the device's admission, for the device to read)
nothing more is read of this connection: the kernel keeps the bytes, and only this device waits.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from gateway.core.errors import InputRefused, Refusal
from gateway.core.model import DeviceId, Envelope, Instant, SourceName
from gateway.relying.line import Line
from gateway.relying.onward import Onward, reset
from gateway.relying.terms import End, Site, Wait
from gateway.sediment.relying import CARRIED_KINDS, Answer, Case, Heard, Step, case_of, step_of
from gateway.sediment.wire import KIND_AT, NONCE_SIZE, MessageId

_ALERT = MessageId.ALERT


class Link(Line):
    """One accepted connection. ``verifier``: the source that judges alerts from this address, if any does."""

    __slots__ = ("_device", "_onward", "_used", "_waiting", "carrying", "verifier")

    _site: Site[Link]

    def __init__(
        self,
        site: Site[Link],
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        peer: str,
        verifier: SourceName | None,
    ) -> None:
        super().__init__(site, loop, sock, peer)
        self.verifier = verifier
        self.carrying = False  # whether it has brought what only admitted devices may send
        self._device: DeviceId | None = None
        self._onward: Onward | None = None
        self._used = False  # whether that connection has taken a message before
        self._waiting: tuple[Heard, Step] | None = None

    @property
    def device(self) -> DeviceId | None:
        """Whose connection it is, once it has shown."""
        return self._device

    @property
    def unsent(self) -> int:
        """Bytes that wait to go onward."""
        return 0 if self._onward is None else self._onward.unsent

    # Judging

    def _take(self, frame: bytes) -> None:
        site, now = self._site, self._site.now()
        if frame[KIND_AT] == _ALERT:
            self._take_alert(frame, now)
            return
        try:
            heard = site.conversation.hear(frame, now.wall)
        except InputRefused as refused:
            self._refuse(refused.refusal, refused.detail)
            self._end(End.REFUSED)
            return
        if self._device is None:
            self._device = heard.device
            site.met(self, heard.device)
        elif heard.device != self._device:
            self._refuse(Refusal.DEVICE, f"'{heard.device}' on a connection of '{self._device}'")
            self._end(End.REFUSED)
            return
        self._judge(heard, now)

    def _take_alert(self, frame: bytes, now: Instant) -> None:
        case = Case.STRANGER if self.verifier is None else Case.VERIFIER
        if step_of(_ALERT, case, beside=self._site.settings.beside).submit and self.verifier is not None:
            self._site.alerted(Envelope(frame, self.verifier, self.peer, now))
            return
        self._site.alerted(None)
        self._refuse(Refusal.PEER, "an ALERT from an address that is no verifier's")
        self._end(End.REFUSED)

    def _judge(self, heard: Heard, now: Instant) -> None:
        site, beside = self._site, self._site.settings.beside
        case = case_of(heard, site.word(heard, now), beside=beside)
        step = step_of(heard.kind, case, beside=beside)
        if step.wait and self._waiting is None:
            self._hold(Wait.ADMISSION, site.settings.patience_seconds, heard, step)
            return
        if case is Case.REPEATED and step.answer is not None and self._waiting is None:
            seconds = site.too_early(heard, now)
            if seconds > 0.0:
                self._hold(Wait.START, seconds, heard, step)
                return
        site.noted(heard, case, self.peer)
        if step.forward:
            self._forward(heard, step, now)
        elif step.answer is None:
            self._end(End.REFUSED)
        elif step.copy:
            answer = self._compose(heard, step.answer, now)
            self._hold(Wait.COPY, site.settings.idle_seconds, heard, step)
            site.copy(answer, lambda: self._copied(answer))
        else:
            self._write(self._compose(heard, step.answer, now))

    def _compose(self, heard: Heard, answer: Answer, now: Instant, *, taken: bool = True) -> bytes:
        return self._site.conversation.answer(heard, answer, os.urandom(NONCE_SIZE), int(now.wall), taken=taken)

    def _hold(self, wait: Wait, seconds: float, heard: Heard, step: Step) -> None:
        self._wait = wait
        self._waiting = heard, step
        self._begun = False  # while we are the ones who do not read, no time of the device runs
        self._site.wheel.set(self, seconds)

    def _copied(self, answer: bytes) -> None:
        if self._wait is Wait.COPY and not self._over:
            self._wait, self._waiting = Wait.NOTHING, None
            self._write(answer)
            self._go_on()

    def standing_changed(self) -> None:
        """Ask again: a connection that carries DATA of a device that is no longer admitted is reset before this
        returns, with everything that still waits in it; one that waits for the admission goes on."""
        if self._over or self._device is None:
            return
        admitted = self._site.admitted(self._device)
        if self.carrying and not admitted:
            self.abort(End.CUT)
        elif self._wait is Wait.ADMISSION and admitted and self._waiting is not None:
            heard, _ = self._waiting
            self._wait, self._waiting = Wait.NOTHING, None
            self._judge(heard, self._site.now())
            self._go_on()

    # Onward

    def _forward(self, heard: Heard, step: Step, now: Instant) -> None:
        """Send one message onward; ``now`` is when its device was found to be admitted."""
        judged = heard.kind in CARRIED_KINDS
        self.carrying = self.carrying or judged
        onward = self._onward if self._onward is not None else self._connect()
        self._waiting = heard, step
        if onward is None:
            self._carried(now, taken=False)
        elif onward.send(heard.frame, asked=judged):
            self._carried(now, taken=True)
        elif not self._over:
            self._hold(Wait.ONWARD, self._site.settings.onward_seconds, heard, step)

    def _connect(self) -> Onward | None:
        settings = self._site.settings
        read = self._on_back if settings.beside else None
        onward = Onward(self._loop, self._on_sent, self._on_lost, self._may, read)
        self._used = False
        if not onward.connect(settings.onward):
            return None
        if settings.beside or settings.kept:
            onward.watch()
        self._onward = onward
        return onward

    def _may(self) -> bool:
        return not self.carrying or (self._device is not None and self._site.admitted(self._device))

    def _on_sent(self) -> None:
        if self._wait is Wait.ONWARD and not self._over:
            self._carried(self._site.now(), taken=True)
            self._go_on()

    def _on_lost(self) -> None:
        """The way onward has failed, or was closed at its other end."""
        self._onward = None
        if self._over:
            return
        if not self._may():
            self.abort(End.CUT)
        elif self._site.settings.beside:
            if self._out:
                self._last = True
            else:
                self._end(End.CLOSED)
        elif self._wait is Wait.ONWARD:
            heard_and_step = self._waiting
            if self._used and heard_and_step is not None:
                # It was closed between two messages and nobody had noticed yet: the message goes on a new one.
                self._wait, self._waiting = Wait.NOTHING, None
                self._forward(*heard_and_step, self._site.now())
            else:
                self._carried(self._site.now(), taken=False)
            self._go_on()

    def _carried(self, now: Instant, *, taken: bool) -> None:
        assert self._waiting is not None
        (heard, step), self._waiting = self._waiting, None
        self._wait = Wait.NOTHING
        settings, onward = self._site.settings, self._onward
        if heard.kind in CARRIED_KINDS:
            self._site.carried(taken=taken)
        if settings.beside:
            if not taken:
                self._end(End.BROKEN)
            return
        self._used = True
        if onward is not None and not (settings.kept and taken):
            self._onward = None
            if taken:
                onward.close()
            else:
                onward.reset()
        if step.answer is None:
            self._end(End.CLOSED)
        else:
            self._write(self._compose(heard, step.answer, now, taken=taken))

    def _on_back(self, data: bytes) -> None:
        """What SEDIMENT's relying party answers goes to the device as it is."""
        if not self._over:
            self._write(data)
            if self._out and self._onward is not None:
                self._onward.rest()
                self._settle()

    def _drained(self) -> None:
        if self._site.settings.beside and self._onward is not None:
            self._onward.watch()
        self._go_on()

    # Ending

    def due(self) -> None:
        """Its deadline has passed."""
        if self._over:
            return
        waiting = self._waiting
        if self._wait in (Wait.ADMISSION, Wait.START) and waiting is not None:
            self._judge(waiting[0], self._site.now())  # it has waited: admitted by now, or turned away
            if not self._over:
                self._wait, self._waiting = Wait.NOTHING, None
                self._go_on()
        elif self._wait is Wait.ONWARD and not self._site.settings.beside:
            self._carried(self._site.now(), taken=False)
            self._go_on()
        elif self._wait is Wait.NOTHING and not self._out and not self._framer.pending:
            self._end(End.CLOSED)  # idle
        else:
            if self._framer.pending and not self._out:
                seconds = self._site.settings.frame_seconds
                self._refuse(Refusal.TIMEOUT, f"{self._framer.pending} bytes of a message in {seconds:g} s")
            self._end(End.SLOW)

    def abort(self, why: End) -> None:
        """End it now: both peers are reset before this returns, and nothing that waits goes out."""
        self._finish(why, Onward.reset, reset)

    def _end(self, why: End) -> None:
        self._finish(why, Onward.close, socket.socket.close)

    def _finish(self, why: End, onward_end: Callable[[Onward], None], end: Callable[[socket.socket], None]) -> None:
        if self._over:
            return
        self._over = True
        self._unwatch()
        end(self._sock)
        onward, self._onward = self._onward, None
        if onward is not None:
            if onward.unsent:
                onward.reset()  # a message in pieces is of no use to anybody
            else:
                onward_end(onward)
        self._pending.clear()
        self._site.wheel.drop(self)
        self._site.ended(self, why)
