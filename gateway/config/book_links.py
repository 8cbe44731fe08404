"""The links that no book may cut, as the main file names them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol

from gateway.config.values import Console, Door, Network, Posting, Relying, Source
from gateway.core.policy import Link, Links


class Linked(Protocol):
    """The main file's values, whole or in part."""

    @property
    def console(self) -> Console:
        """Where the console listens."""

    @property
    def door(self) -> Door:
        """Where the door listens."""

    @property
    def relying(self) -> Relying | None:
        """Where the relying party's port is, if it is ours."""

    @property
    def sources(self) -> Sequence[Source]:
        """The configured verifiers."""

    @property
    def posting(self) -> Posting:
        """The doors for posted documents."""

    @property
    def management(self) -> tuple[Network, ...]:
        """From where the site is administered."""


def links_of(config: Linked, host: Iterable[IPv4Address | IPv6Address] = (), more: Iterable[Link] = ()) -> Links:
    """Return what ``check_lockout`` must keep whole.

    ``host``: this host's own addresses, where they are known; ``more``: links that the main file does not name.
    The operator's socket is a path: no book can gate it.
    """
    ours = [Link("console", ip_address(config.console.listen.host), config.console.listen.port)]
    ours += [Link("door", ip_address(listen.host), listen.port) for listen in config.door.listen]
    for name, door in (("rest", config.posting.rest), ("rpc", config.posting.rpc)):
        ours += [Link(name, ip_address(place.host), place.port) for place in (door.listen if door else ())]
    if config.relying is not None:
        ours += [Link("relying party", ip_address(at.host), at.port) for at in config.relying.listen]
    verifiers = tuple(peer for source in config.sources for peer in source.peers)
    return Links(config.management, verifiers, (*ours, *more), frozenset(host))
