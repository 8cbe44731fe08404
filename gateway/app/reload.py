"""Reloading the book of a running service: asked by an operator or a signal, tried aside, taken or refused.

What lives here: the order of one attempt, and what is told of it. What must not: judging a book, changing devices
or gates.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import structlog

from gateway.app import link as linking
from gateway.app.parts import gates, restart
from gateway.app.trial import Trial, Tried, forget
from gateway.config import Config
from gateway.config.book_links import links_of
from gateway.config.templates import namespaces_of
from gateway.config.trial import Ground
from gateway.control.devices import Devices
from gateway.control.ports import Clock, Entry, Health, Journal, Notice
from gateway.control.reconcile import Reconciler
from gateway.control.reload import Lay, Swap, Swapped
from gateway.control.running import RESULTS, Books, Ended, Result, RunningBook
from gateway.core.errors import BackendError, ConfigError, JournalError, RagateError
from gateway.core.policy import Book, Finding, zone_of

SHOWN = 40
"""Lines of a refusal that are kept: a book has at most 20 mistakes told at once, and a start of a second file's."""

SIGNAL = "signal:SIGHUP"
"""Who asks when nobody can be asked: the service manager, or root."""


class Busy(RagateError):
    """Another attempt is under way."""


class _Asked(NamedTuple):
    number: int
    actor: str
    reason: str


class Reloader:
    """Replaces the running book. All methods run on the loop's thread."""

    def __init__(
        self,
        config: Config,
        books: Books,
        devices: Devices,
        gates: Sequence[Reconciler],
        journal: Journal,
        clock: Clock,
        lay: Lay,
    ) -> None:
        self._config = config
        self._books = books
        self._devices = devices
        self._gates = gates
        self._journal = journal
        self._clock = clock
        self._lay = lay
        self._asked: _Asked | None = None
        self._wake = asyncio.Event()
        self._hangup = False
        self._log = structlog.get_logger("ragate")

    def ask(self, actor: str, reason: str) -> int:
        """Have the book's files read again soon; returns the attempt's number. Raises ``Busy``."""
        if self._asked is not None:
            raise Busy(f"reload {self._asked.number} is under way: {self._books.doing or 'about to begin'}")
        self._books.number += 1
        self._asked = _Asked(self._books.number, actor, reason)
        self._books.doing = "about to begin"
        self._wake.set()
        return self._books.number

    def hangup(self) -> None:
        """SIGHUP: read the book again, and once more behind an attempt that is under way."""
        self._hangup = True
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled: one attempt at a time."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._asked is None and self._hangup:
                self._hangup = False
                self.ask(SIGNAL, "SIGHUP")
            if self._asked is not None:
                try:
                    done_with = await self._attempt(self._asked)
                finally:
                    self._asked = None
                    self._books.doing = ""
                if done_with is not None:
                    await asyncio.to_thread(forget, done_with)
                if self._hangup:
                    self._wake.set()

    def health(self) -> Health:
        """The line of readiness: a refused book leaves the one before at work, so the service stays ready."""
        books = self._books
        said = f"{books.current.digest[:12]} runs since {_date(books.current.loaded_at)}"
        if books.stuck:
            return Health("book", False, f"{said}; {books.stuck}")
        if books.refusal is not None:
            more = len(books.refusal.lines) - 1
            rest = f" (and {more} more)" if more else ""
            said += f"; the newest was {books.refusal.result}: {books.refusal.lines[0]}{rest}"
        return Health("book", True, f"{said}; {books.doing}" if books.doing else said)

    def view(self) -> Mapping[str, Any]:
        """What windows show: the running book, what goes on, and how the newest attempt ended."""
        books = self._books
        last = books.last
        return {
            "digest": books.current.digest,
            "path": books.current.path,
            "loaded_at": books.current.loaded_at,
            "doing": books.doing,
            "waiting_for": books.stuck,
            "reloads": {result: books.ended[result] for result in RESULTS},
            "last": None
            if last is None
            else {
                "number": last.number,
                "result": last.result,
                "actor": last.actor,
                "at": last.at,
                "digest": last.digest,
                "lines": list(last.lines),
                "slice_ms": last.slice_ms,
            },
        }

    # --- one attempt --------------------------------------------------------------------------------------------

    async def _attempt(self, asked: _Asked) -> Book | None:
        """One attempt to its end; returns the book that nobody needs any more."""
        self._books.doing = "the book is read and tried in a process of its own"
        with _no_collection():
            try:
                tried = await self._tried()
            except ConfigError as error:
                self._end(asked, "refused", "", str(error).splitlines())
                return None
            old = self._books.current.book
            await self._decide(asked, tried)
            return tried.book if self._books.current.book is old else old

    async def _decide(self, asked: _Asked, tried: Tried) -> None:
        if tried.digest == self._books.current.digest:
            self._end(asked, "unchanged", tried.digest, ["the files are those of the running book"])
            return
        try:
            self._judge(tried)
            await self._journalled(asked, "begins", {"digest": tried.digest})
        except (ConfigError, JournalError) as error:
            self._end(asked, "refused", tried.digest, str(error).splitlines())
            return
        await self._take(asked, tried)

    async def _tried(self) -> Tried:
        config = self._config
        relayed = tuple(entry.service for entry in config.target.relay)
        running, hints = self._books.current.book, tuple(map(str, config.hint_sources))
        remotes = tuple(remote.name for remote in config.remotes)
        places = namespaces_of(config.clusters)
        ground = Ground(
            config.book_path, running, links_of(config), config.target.name, relayed, hints, remotes, places
        )
        trial = Trial(ground, config.devices)
        try:
            return await asyncio.to_thread(trial.run)
        except asyncio.CancelledError:
            trial.kill()
            raise

    def _judge(self, tried: Tried) -> None:
        """Raise ``ConfigError`` for what only the running service can say against a book."""
        path = str(self._config.book_path)
        gates.check_gate(self._config, tried.book)
        running = self._books.current.book
        why = restart.needs_restart(self._config, running, tried.book)
        why += linking.needs_restart(self._config, running, tried.book)
        if why:
            mend = "restart the service: what is enforced stays in place meanwhile"
            raise ConfigError(path, "; ".join(why), mend)
        if not self._journal.writable:
            what = "an operator's act must be journalled, and the journal cannot be written"
            raise ConfigError(path, what, "make room on its disk; to stop a device at once, hold it")

    async def _take(self, asked: _Asked, tried: Tried) -> None:
        books, old = self._books, self._books.current
        swap = Swap(self._devices, self._gates, self._clock, self._lay, self._doing, self._stuck)
        try:
            swapped = await swap.run(tried.book, zone_of(old.book), zone_of(tried.book))
        except BackendError as error:
            self._end(asked, "failed", tried.digest, [f"the path gate could not be made ready: {error.what}"])
            return
        books.take(
            RunningBook(
                tried.book, tried.library, tried.digest, str(self._config.book_path), self._clock.now().wall
            )
        )
        self._end(asked, "taken", tried.digest, list(_told(swapped, tried.warnings)), swapped.slice * 1_000)

    async def _journalled(self, asked: _Asked, result: str, more: Mapping[str, Any]) -> None:
        """Wait until the act is durable: what it opens must not precede its entry. Raises ``JournalError``."""
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: JournalError | None) -> None:
            if durable.done():
                return
            if error is None:
                durable.set_result(None)
            else:
                durable.set_exception(error)

        self._journal.record((Entry(self._fact(asked, result, more)),), done)
        await durable

    def _fact(self, asked: _Asked, result: str, more: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "kind": "book",
            "at": self._clock.now().wall,
            "result": result,
            "actor": asked.actor,
            "reason": asked.reason,
            "number": asked.number,
            "before": self._books.current.digest,
            **more,
        }

    def _end(self, asked: _Asked, result: Result, digest: str, lines: Sequence[str], slice_ms: float = 0.0) -> None:
        now = self._clock.now().wall
        kept = tuple(lines[:SHOWN])
        self._books.end(Ended(asked.number, result, asked.actor, now, digest, kept, slice_ms))
        fact = self._fact(asked, result, {"digest": digest, "lines": list(kept), "slice_ms": slice_ms})
        self._journal.record((Entry(fact),))
        if result in ("refused", "failed"):
            detail = f"the book was {result}, the one before stays: {kept[0]}"
            self._devices.notice(Notice("book", "book", detail, now))
            self._devices.commit()
        self._log.info("book", result=result, actor=asked.actor, reason=asked.reason, digest=digest, lines=kept)

    def _doing(self, what: str) -> None:
        self._books.doing = what

    def _stuck(self, what: str) -> None:
        self._books.stuck = what


def _told(swapped: Swapped, warnings: Sequence[Finding]) -> Iterator[str]:
    yield (
        f"taken in {swapped.seconds:.1f} s: {swapped.cut} devices cut, {swapped.narrowed} given less, "
        f"{swapped.opened} given more, {swapped.same} as before"
    )
    for warning in warnings:
        yield f"warning: {warning.subject}: {warning.what}; {warning.mend}"


def _date(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="seconds")


@contextmanager
def _no_collection() -> Iterator[None]:
    """Nothing of a new book is garbage, and looking for it among 100,000 rulings would hold the loop for 10 ms.

    What was made meanwhile is not looked at any more, as what was loaded at the start is not.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()
            gc.enable()
