"""The doors in the main file: SEDIMENT's, the hook, and which of them there are.

What lives here: the section ``doors`` as a whole, and what doors and sources must be to one another. What must not:
the keys of the relying party's port and of the doors for posted results.
"""

from __future__ import annotations

import pwd
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.config.common import parse_named_endpoint, read_networks, read_seconds
from gateway.config.document import Problems, Section, Value
from gateway.config.endpoint import Endpoint
from gateway.config.parsing import parse_endpoint, parse_name
from gateway.config.posters import PostDoor, Poster
from gateway.config.posting import check_doors, read_post_door
from gateway.config.relying import read_relying
from gateway.config.values import Door, DoorLimits, Hook, Posting, Relying, Source
from gateway.core.errors import ConfigError
from gateway.core.model import SourceName

#: Seconds to send one frame.
FRAME_LEAST, FRAME_MOST = 0.1, 60.0


#: Open connections: one would let a single silent peer shut the door; no process has more descriptors than ports.
CONNECTIONS_LEAST, CONNECTIONS_MOST = 2, 65_536
#: Envelopes that wait, each up to 4 KiB.
QUEUE_MOST = 1_000_000


DOORS_KEYS = ("sediment", "relying", "hook", "rest", "rpc")
VERDICT_DOORS = ("sediment", "relying", "rest", "rpc")
"""Doors at which verdicts arrive; what comes by the hook is a hint."""

DOOR_EXAMPLE = "{sediment: {listen: 127.0.0.1:8000}}"


def read_doors(value: Value, base: Path) -> tuple[Door, Hook | None]:
    """SEDIMENT's door and the hook. Raises ``ConfigError`` where no door takes verdicts."""
    doors = value.section()
    doors.known(*DOORS_KEYS)
    hook = doors.take("hook", lambda item: _hook(item.section(), base), None)
    if all(doors.get(key) is None for key in VERDICT_DOORS):
        what = "no door takes verdicts: none of sediment, relying, rest and rpc is written"
        raise value.wrong(what, f"write doors: {DOOR_EXAMPLE}, or one of the others")
    return doors.take("sediment", _door, Door()), hook


def _hook(section: Section, base: Path) -> Hook:
    section.known("socket", "users", "group")
    users = section.need("users", "[sediment]")
    uids = users.gather(lambda item: item.parsed(_user_id))
    if not uids and not section.problems:
        raise users.wrong("no user is listed: nobody could hand in a hint", "name the user that SEDIMENT runs as")
    return Hook(
        section.take("socket", lambda item: base / item.text(), base / "var/hook.sock"),
        frozenset(uids),
        section.take("group", lambda item: item.parsed(parse_name), None),
    )


def _user_id(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 10:
        return int(text)
    try:
        return pwd.getpwnam(parse_name(text)).pw_uid
    except KeyError:
        msg = f"there is no user {text!r} on this host; name one, or write its number"
        raise ValueError(msg) from None


def _door(value: Value) -> Door:
    section = value.section()
    section.known("listen", "peers", "forward_to", "limits")
    return Door(
        _listen(section.need("listen", "0.0.0.0:8000")),
        section.take("peers", read_networks, ()),
        section.take("forward_to", lambda item: item.parsed(parse_named_endpoint), None),
        section.take("limits", _limits, DoorLimits()),
    )


def check_alerts(
    door: Door, relying: Relying | None, sources: Sequence[Source], where: str, problems: Problems
) -> None:
    """A SEDIMENT verifier needs a port for its alerts, and the port a verifier that may connect to it."""
    if door.listen and sources and not (door.peers or any(source.peers for source in sources)):
        mend = "list the verifier's address under peers of its source"
        problems.add(where, "nobody may connect to the door: no peers are listed", mend)
    if problems:
        return  # a door or a source that could not be read is none that is missing
    if door.listen and not sources:
        what = "nobody's alerts could be believed at the door: no source has format sediment"
        problems.add(where, what, "remove sediment from doors, or list the verifier under sources")
    if sources and not door.listen and relying is None:
        names = ", ".join(source.name for source in sources)
        what = f"no door takes the alerts of {names}: neither sediment nor relying is written"
        problems.add(where, what, "write sediment: {listen: 127.0.0.1:8000}, or remove the source")


def read_relying_port(value: Value, places: dict[str, str]) -> Relying | None:
    """The relying party's port, if there is one. ``places`` remembers where it stands."""
    try:
        section = value.section().get("relying")
    except ConfigError:
        return None  # told by the reader of the door
    if section is None:
        return None
    places["relying"] = section.where
    return read_relying(section, _listen(section.section().need("listen", "0.0.0.0:8000")))


def _listen(value: Value) -> tuple[Endpoint, ...]:
    try:
        values = value.items()
    except ConfigError:
        values = [value]
    found: list[Endpoint] = []
    for item in values:
        endpoint = item.parsed(parse_endpoint)
        if endpoint in found:
            raise item.wrong(f"{endpoint} is listed twice", "keep one of the two")
        found.append(endpoint)
    if not found:
        raise value.wrong("listen is empty: the door would take nothing", "write listen: 0.0.0.0:8000")
    return tuple(found)


def read_posting(value: Value, base: Path, posters: tuple[Poster, ...], where: Mapping[SourceName, str]) -> Posting:
    """The doors for posted results. ``where``: where each source stands."""
    doors = value.section()
    nothing: PostDoor | None = None
    rest = doors.take("rest", lambda item: read_post_door(item, base), nothing)
    rpc = doors.take("rpc", lambda item: read_post_door(item, base), nothing)
    if not doors.problems:
        check_doors(posters, (rest, rpc), where, doors.problems)
    return Posting(posters, rest, rpc)


def _limits(value: Value) -> DoorLimits:
    section = value.section()
    section.known("connections", "connections_per_peer", "frame_seconds", "queue")
    standard = DoorLimits()
    return DoorLimits(
        section.take(
            "connections", lambda item: item.whole(CONNECTIONS_LEAST, CONNECTIONS_MOST), standard.connections
        ),
        section.take(
            "connections_per_peer", lambda item: item.whole(1, CONNECTIONS_MOST), standard.connections_per_peer
        ),
        section.take(
            "frame_seconds", lambda item: read_seconds(item, FRAME_LEAST, FRAME_MOST), standard.frame_seconds
        ),
        section.take("queue", lambda item: item.whole(1, QUEUE_MOST), standard.queue),
    )
