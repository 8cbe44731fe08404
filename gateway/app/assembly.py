"""Every part of one service: made, opened and closed in order.

What lives here: the order in which parts are made and told of one another. What must not: making one part from its
settings, running the parts, showing them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry

from gateway.app import clusters as clustering
from gateway.app import descriptors
from gateway.app import link as linking
from gateway.app.clock import SystemClock, boot_id
from gateway.app.hinting import Hinting
from gateway.app.hinting import inquiries as build_inquiries
from gateway.app.link import Link
from gateway.app.listening import Listening
from gateway.app.parts import doors, gates, kubearmor, relying_port, sources
from gateway.app.parts.doors import PostingDoor
from gateway.app.reload import Reloader
from gateway.config import Config
from gateway.console.api import bind
from gateway.console.log import Log
from gateway.console.metrics import Metrics
from gateway.control.admit import AdmissionLimits, Admit
from gateway.control.alarms import Alarms
from gateway.control.clockwork import Clockwork
from gateway.control.devices import Devices
from gateway.control.documents import Documents, TakesDocuments
from gateway.control.overrides import Overrides
from gateway.control.ports import Advisory, Loaded, Notice, Observer, StandingsFollower
from gateway.control.reconcile import Reconciler
from gateway.control.running import Books, RunningBook
from gateway.control.shown import advised
from gateway.control.site import Site
from gateway.control.start import restore
from gateway.intake.sediment import Forwarder, SedimentDoor
from gateway.journal import SqliteJournal
from gateway.relying import RelyingDoor
from gateway.watch.bypass import BypassWatch
from gateway.watch.resources import ResourceWatch, Sampler


class _Closes(Protocol):
    def close(self) -> None: ...


class Assembly:
    """The parts. Those without a value of their own here are there once ``open`` has returned, ``clockwork`` once
    ``restore`` has; what is None is not configured.

    Made on the running loop. Raises ``JournalError`` when the journal cannot be read.
    """

    listening: Listening
    door: SedimentDoor
    hinting: Hinting
    console: socket.socket
    clockwork: Clockwork

    def __init__(self, config: Config) -> None:
        """Memory and hands: nothing is enforced, and nobody can come in."""
        self.config = config
        self.clock = SystemClock()
        self.boot, self.rules = boot_id(), sources.rules(config)
        self.metrics = Metrics(CollectorRegistry(), [*self.rules])
        self.journal = SqliteJournal(
            config.journal,
            loop=asyncio.get_running_loop(),
            clock=self.clock,
            boot_id=self.boot,
            on_commit=self.metrics.journal_committed,
        )
        self.loaded: Loaded = self.journal.load()
        self.inquiries = build_inquiries(config, self.clock)
        observers: Sequence[Observer] = (self.metrics, Log(self.clock), self.inquiries)
        self.devices = Devices(config.devices, config.book, self.rules, self.journal, self.clock, observers)
        self.gate = self._local_gate()
        self.gates: list[Reconciler] = [self.gate]
        self.watch = ResourceWatch(Sampler(config.journal.parent), self.metrics.loop_lagged)
        self.overrides = Overrides(self.devices, self.gates, self.journal, self.clock, observers)
        self.alarms = Alarms(self.devices, self.watch.usage)
        self.site = Site(self.devices, self.alarms)
        self.books = self._first_book()
        self.reloader = self._reloader()
        self.admit = self._admission(observers)
        self.layers: Mapping[str, Advisory] = {}
        self.clusters: clustering.Clusters = {}
        self.posting: Sequence[PostingDoor] = ()
        self.link: Link | None = None
        self.relying: RelyingDoor | None = None
        self.forwarder: Forwarder | None = None
        self.documents: Documents | None = None
        self.bypass: BypassWatch | None = None
        self._standings: StandingsFollower | None = None
        self._opened: list[_Closes] = []

    def _local_gate(self) -> Reconciler:
        """The path gate of this host; those of other hosts join later."""
        target = self.config.target
        gate = Reconciler(
            gates.path_gate(self.config, self.clock),
            target=target.name,
            clock=self.clock,
            lease=target.lease,
            report=self.devices.enforced,
            notice=self.devices.notice,
            required=target.required,
        )
        self.devices.add_gate(gate)
        return gate

    def _first_book(self) -> Books:
        config, loaded_at = self.config, self.clock.now().wall
        return Books(
            RunningBook(self.devices.book, config.library, config.digest, str(config.book_path), loaded_at)
        )

    def _reloader(self) -> Reloader:
        """Who has the book read again."""
        lay = gates.layer(self.config, self.gate.backend)
        return Reloader(self.config, self.books, self.devices, [self.gate], self.journal, self.clock, lay)

    def _admission(self, observers: Sequence[Observer]) -> Admit:
        return Admit(
            sources.authenticators(self.config),
            self.devices,
            self.journal,
            observers,
            self.clock,
            AdmissionLimits(queue=self.config.door.limits.queue),
            openers=sources.openers(self.config),
        )

    # --- opening --------------------------------------------------------------------------------------------------

    async def open(self, console_fd: int | None) -> None:
        """Open every place where somebody can come in, before anything is enforced; nothing is read there yet.

        What the operator has to mend is found here. ``console_fd``: a listening socket for the console that was
        handed in. Raises ``ConfigError``.
        """
        config, admit, devices, clock = self.config, self.admit, self.devices, self.clock
        self._make_layers()
        self.listening = Listening(config, admit, devices, self.layers, clock)
        self.door = doors.door(config, admit, clock, devices.notice)
        self._opened.append(self.door)
        self._open_posting()
        self.hinting = Hinting(config, self.inquiries, admit, devices, clock)
        self._opened.append(self.hinting)
        self.console = await bind(config.console.listen) if console_fd is None else socket.socket(fileno=console_fd)
        self._opened.append(self.console)
        self.link = linking.make_link(config, devices, self.gates, clock, devices.notice, self.listening.inboxes)
        self._open_relying()

    def _make_layers(self) -> None:
        """The layers that never count for admission, by the target that each is at. Raises ``ConfigError``."""
        name, devices = self.config.target.name, self.devices
        here = kubearmor.advisory(self.config, self.clock, self._told)
        self.clusters = clustering.make(self.config, self.clock, self._told)
        devices.beside += [] if here is None else [advised(name, here)]
        devices.beside += [clustering.beside(each) for each in self.clusters.values()]
        self.layers = {**({} if here is None else {name: here}), **self.clusters}

    def _told(self, notice: Notice) -> None:
        """Journal and show at once what a layer says of itself: no verdict need come along."""
        self.devices.notice(notice)
        self.devices.commit()

    def _open_posting(self) -> None:
        """The doors for posted documents, and descriptors enough for the connections of all doors."""
        short = descriptors.make_room(descriptors.wanted(self.config))
        if short:
            self.devices.notice(Notice("descriptors", "descriptors", short, self.clock.now().wall))
        self.posting = doors.posting(self.config, self.admit, self.clock, self.devices.notice)
        self._opened += self.posting

    def _open_relying(self) -> None:
        """The relying party's port, where it is ours, and who must be told of standings for it."""
        relying = self.config.relying
        if relying is None:
            return
        standings = relying_port.standings(self.devices, self.clock, self.books)
        standings.remember(relying_port.still_wanted(self.config, self.loaded))
        self.forwarder = relying_port.forwarder(self.config, self.clock, self.devices.notice)
        self.relying = relying_port.door(
            self.config, relying, standings, self.admit, self.clock, self.forwarder, self.loaded.highest_wall
        )
        self._opened.append(self.relying)
        self._standings = standings

    # --- standings ------------------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Enforce what the journal and the gates agree on, and make what follows the standings.

        Raises ``BackendError``, ``JournalError`` or ``ConfigError``.
        """
        devices, loaded, clock = self.devices, self.loaded, self.clock
        self.overrides.remember(loaded)
        await restore(devices, loaded, [self.gate], self.journal, clock, self.rules, self.boot)
        await linking.start(self.link, devices)
        devices.tell_standings(self._standings)
        self.site.turn(clock.now())
        self.clockwork = Clockwork(
            devices,
            [self.gate],
            self.journal,
            clock,
            tuple(self.layers.values()),
            loaded.highest_wall,
            (self.overrides, self.site, self.alarms, self.listening.alerts),
        )
        takers: dict[str, TakesDocuments] = {**self.layers, **linking.layers(self.link)}
        if takers:
            self.documents = self._keep_documents(self.listening.severities.before(takers))
        self._follow_books()

    def _keep_documents(self, layers: Mapping[str, TakesDocuments]) -> Documents:
        """Who keeps the documents of profiles at KubeArmor: here, in clusters, and at agents' hosts."""
        config, site = self.config, self.site
        made = kubearmor.renderer(config.library, config.book, config.target.name, self.clusters)
        documents = Documents(self.devices, made, layers, self.clock, lambda: site.profile)
        site.watch(lambda _: documents.wake())
        return documents

    def _follow_books(self) -> None:
        """Tell the parts that keep something of the book when another one runs."""
        bypass = self.bypass = gates.bypass_watch(self.config, self._around)
        if bypass is not None:
            self.books.followers.append(lambda running: bypass.aim(gates.routed(running.book)))
        documents = self.documents
        if documents is not None:
            target, others = self.config.target.name, self.clusters
            self.books.followers.append(
                lambda running: documents.use(kubearmor.renderer(running.library, running.book, target, others))
            )

    def _around(self, sentence: str) -> None:
        """A way around the path gate opened or closed: from here on every device is shown accordingly."""
        self.gate.obstacle = "" if self.bypass is None else self.bypass.state
        self.devices.notice(Notice("bypass", self.gate.target, sentence, self.clock.now().wall))
        self.devices.commit()

    # --- the end --------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Close what was opened and end the hands, the memory last; what is enforced stays, with its leases."""
        for part in reversed(self._opened):
            part.close()
        self.devices.stop()
        await linking.stop(self.link)
        self.overrides.stop()
        try:
            await self.gate.backend.stop()
        finally:
            await self.journal.close()
