"""The relying party's port: its settings from the configuration, and by whose standings it goes.

What lives here: the door for DATA, what devices are told there, what is passed on. What must not: the other doors.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.app.parts.sources import speaking
from gateway.config import Config, Relying
from gateway.console.relaying import RelyingCounts
from gateway.control.devices import Devices
from gateway.control.ports import Admission, Clock, Loaded, Notice
from gateway.control.running import Books, RunningBook
from gateway.control.standings import DeviceStandings, Reach
from gateway.core.model import DeviceId, Standing
from gateway.core.policy import Book
from gateway.intake.sediment import UNASSIGNED, Forwarder, open_listeners
from gateway.journal import wishes
from gateway.relying import End, RelyingDoor, RelyingSettings
from gateway.sediment.relying import Conversation, Party
from gateway.sediment.replay import ReplayMemory
from gateway.sediment.wire import Endpoint as WireEndpoint
from gateway.sediment.wire import Protocol as WireProtocol


def standings(devices: Devices, clock: Clock, books: Books) -> DeviceStandings:
    """What a relay of DATA may go by. What a profile reaches is looked up once for each book.

    While one book gives way to another, a profile reaches what both allow; when every device is decided under the
    new one, everybody is asked about again.
    """
    known: dict[str, Reach] = {}
    of: Book | None = None
    settled = devices.book

    def reach_of(profile: str) -> Reach:
        nonlocal of
        book = devices.book
        if book is not of:
            known.clear()
            of = book
        found = known.get(profile)
        if found is None:
            services = _services_reached(book, profile)
            if settled is not book:
                services &= _services_reached(settled, profile)
            rate = book.profiles[profile].rate if profile in book.profiles else None
            found = known[profile] = Reach(services, rate)
        return found

    made = DeviceStandings(reach_of, clock)

    def took(_: RunningBook) -> None:
        nonlocal settled
        settled = devices.book
        known.clear()
        made.book_changed()

    books.followers.append(took)
    return made


def _services_reached(book: Book, profile: str) -> frozenset[str]:
    """The names of the services that a profile reaches; none for a profile that the book does not know."""
    return frozenset(service.name for service in book.reach(profile)) if profile in book.profiles else frozenset()


def forwarder(config: Config, clock: Clock, notices: Callable[[Notice], None]) -> Forwarder | None:
    """What passes alerts on that came to the relying party's port, beside SEDIMENT's own."""
    relying = config.relying
    if relying is None or relying.relying_party is None:
        return None
    return Forwarder(relying.relying_party.host, relying.relying_party.port, clock, notices)


def still_wanted(config: Config, loaded: Loaded) -> frozenset[DeviceId]:
    """The devices that were asked to attest again before this start and have not been judged since.

    Raises ``JournalError``. A request of ours that shortened a deadline is in the record itself.
    """
    ours = (
        device
        for (device, _), record in loaded.records.items()
        if record.graced and record.standing is Standing.TRUSTED
    )
    return wishes(config.journal).union(ours)


def door(
    config: Config,
    relying: Relying,
    followed: DeviceStandings,
    admission: Admission,
    clock: Clock,
    forwarder: Forwarder | None,
    highest_wall: float,
) -> RelyingDoor:
    """The relying party's port, listening from here on. Raises ``ConfigError`` when it cannot.

    ``highest_wall``: the journal's newest wall time; a clock that was set back must not make old DATA new.
    """
    service = next(service for service in config.book.services if service.name == relying.app_server)
    beside, limits = relying.relying_party, relying.limits
    settings = RelyingSettings(
        service=service.name,
        onward=(str(service.address), service.port) if beside is None else (beside.host, beside.port),
        verifiers={peer: source.name for source in config.sources for peer in source.peers},
        beside=beside is not None,
        verifier=None if relying.verifier is None else (relying.verifier.host, relying.verifier.port),
        kept=relying.connections == "kept",
        source=config.sources[0].name if len(config.sources) == 1 else UNASSIGNED,
        connections=limits.connections,
        connections_per_peer=limits.connections_per_peer,
        frame_seconds=limits.frame_seconds,
        idle_seconds=limits.idle_seconds,
        onward_seconds=limits.onward_seconds,
    )
    conversation = Conversation(party(relying), config.hmac_keys, speaking(config))
    return RelyingDoor(
        open_listeners([str(endpoint) for endpoint in relying.listen]),
        conversation,
        ReplayMemory(max(clock.now().wall, highest_wall), relying.clock_ahead),
        followed,
        admission,
        clock,
        settings,
        None if forwarder is None else forwarder.offer,
    )


def party(relying: Relying) -> Party:
    """What devices are told. Beside SEDIMENT's own relying party nobody is told anything by us."""
    here = relying.here or relying.listen[0]
    verifier = relying.verifier or here
    return Party(
        WireEndpoint(WireProtocol.TCP, verifier.host.encode(), verifier.port),
        WireEndpoint(WireProtocol.TCP, here.host.encode(), here.port),
        relying.device_settings,
    )


def counts(door: RelyingDoor) -> RelyingCounts:
    """What the relying party's port has counted, in the words of metrics."""
    return RelyingCounts(
        {(kind.name.lower(), case.name.lower()): number for (kind, case), number in door.messages.items()},
        {"taken": door.taken, "not_taken": door.not_taken},
        {end.value: door.ends[end] for end in End},
        door.copies(),
    )
