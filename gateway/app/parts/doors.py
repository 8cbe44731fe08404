"""The doors for verdicts: SEDIMENT's, and those for posted documents.

What lives here: their settings from the configuration, and opening them. What must not: the relying party's
port, the hook.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from gateway.certs import ServedTls
from gateway.config import Config
from gateway.control.ports import Admission, Clock, Notice, Presenting
from gateway.control.reception import Reception, Sender
from gateway.intake.sediment import UNASSIGNED, DoorSettings, SedimentDoor, open_listeners
from gateway.verdicts import FORMATS, STATEMENTS

# Here for their names alone: each is loaded where the configuration has it.
if TYPE_CHECKING:
    from gateway.intake.rest import RestDoor
    from gateway.intake.rpc import RpcDoor


def door(config: Config, admission: Admission, clock: Clock, notices: Callable[[Notice], None]) -> SedimentDoor:
    """The SEDIMENT door, listening from here on. Raises ``ConfigError`` when it cannot.

    Without a place to listen on, and then perhaps without a verifier, it is one to which nobody comes.
    """
    limits, forward = config.door.limits, config.door.forward_to
    sources = [source.name for source in config.sources] or [UNASSIGNED]
    settings = DoorSettings(
        peers=config.door.peers,
        verifiers={peer: source.name for source in config.sources for peer in source.peers},
        default_source=sources[0] if len(sources) == 1 else None,
        connections=limits.connections,
        connections_per_peer=limits.connections_per_peer,
        frame_seconds=limits.frame_seconds,
        forward_to=None if forward is None else (forward.host, forward.port),
    )
    return SedimentDoor(
        open_listeners([str(endpoint) for endpoint in config.door.listen]), admission, clock, settings, notices
    )


def reception(config: Config, admission: Presenting, clock: Clock) -> Reception:
    """What the doors for posted documents share."""
    senders = [
        Sender(
            poster.name,
            FORMATS[poster.format].media_types,
            poster.certificates,
            poster.rate,
            # A second's worth at once, and never less than one whole document.
            max(poster.rate, STATEMENTS),
        )
        for poster in config.posting.posters
    ]
    return Reception(senders, admission, clock)


class PostingDoor(Protocol):
    """A door for posted documents, as the service runs it."""

    @property
    def name(self) -> str:
        """For logs, and the ``queue`` label of metrics that says how many connections it holds."""
        ...

    @property
    def addresses(self) -> Sequence[tuple[str, int]]:
        """Where it listens."""
        ...

    @property
    def tls(self) -> ServedTls:
        """What it shows to clients and asks of them."""
        ...

    @property
    def serving(self) -> bool:
        """Whether it takes connections."""
        ...

    def state(self) -> str:
        """One line for people."""
        ...

    def depth(self) -> int:
        """Connections, or streams, that it holds."""
        ...

    def close(self) -> None:
        """Close it when it was never run."""
        ...

    async def run(self) -> None:
        """Serve until cancelled."""
        ...


def posting(
    config: Config, admission: Presenting, clock: Clock, notices: Callable[[Notice], None]
) -> Sequence[PostingDoor]:
    """The doors for posted documents, listening from here on. Raises ``ConfigError`` when they cannot."""

    def told(what: str) -> None:
        notices(Notice("tls", "doors", what, clock.now().wall))

    shared = reception(config, admission, clock)
    doors = (rest(config, shared, clock, told), rpc(config, shared, clock, told))
    return [door for door in doors if door is not None]


def rest(config: Config, shared: Reception, clock: Clock, told: Callable[[str], None]) -> RestDoor | None:
    """The REST door, listening from here on, where one is configured. Raises ``ConfigError`` when it cannot."""
    wanted = config.posting.rest
    if wanted is None:
        return None
    from gateway.intake.rest import RestDoor, RestSettings, open_listener  # noqa: PLC0415

    tls = ServedTls(wanted.files, "doors.rest", told)
    limits = wanted.limits
    settings = RestSettings(
        connections=limits.connections,
        silent=limits.silent,
        connections_per_peer=limits.connections_per_peer,
        idle_seconds=limits.idle_seconds,
        request_seconds=limits.request_seconds,
        body=limits.body,
    )
    listeners = [open_listener(place.host, place.port) for place in wanted.listen]
    return RestDoor(listeners, shared, clock, tls, settings)


def rpc(config: Config, shared: Reception, clock: Clock, told: Callable[[str], None]) -> RpcDoor | None:
    """The gRPC door, where one is configured. Raises ``ConfigError`` for files that it cannot use."""
    wanted = config.posting.rpc
    if wanted is None:
        return None
    from gateway.intake.rpc import RpcDoor, RpcSettings  # noqa: PLC0415

    tls = ServedTls(wanted.files, "doors.rpc", told)
    limits = wanted.limits
    settings = RpcSettings(streams=limits.connections, body=limits.body, idle_seconds=limits.idle_seconds)
    return RpcDoor([(place.host, place.port) for place in wanted.listen], shared, clock, tls, settings)
