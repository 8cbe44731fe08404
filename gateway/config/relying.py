"""The relying party's port in the main file: reading it, and holding it against the rest.

What lives here: its keys and what they may say. What must not: positions of other keys, building anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, ip_address
from typing import Literal, Protocol

from gateway.config.common import read_seconds
from gateway.config.document import Problems, Section, Value, did_you_mean
from gateway.config.endpoint import Endpoint
from gateway.config.parsing import parse_endpoint
from gateway.config.values import Door, Relying, RelyingLimits, Source
from gateway.core.policy import Book

#: Seconds to send one message, to be silent between two, and for the app server to take one.
FRAME_LEAST, FRAME_MOST = 0.1, 60.0
IDLE_LEAST, IDLE_MOST = 1.0, 3_600.0
ONWARD_LEAST, ONWARD_MOST = 0.1, 9.0  # a device waits 10 s for an answer (modules/protocol/Comm.cpp line 66)
AHEAD_LEAST, AHEAD_MOST = 0.0, 60.0
#: Connections at most: far more than a process may open descriptors.
CONNECTIONS_MOST = 1_000_000
#: Bytes of one setting for devices; the longest that SEDIMENT has is a URL.
SETTING = 255

MODES: tuple[Literal["instead", "beside"], ...] = ("instead", "beside")
CONNECTIONS: tuple[Literal["each", "kept"], ...] = ("each", "kept")
KEYS = (
    "listen",
    "mode",
    "app_server",
    "verifier",
    "here",
    "relying_party",
    "connections",
    "device_settings",
    "clock_ahead",
    "limits",
)

NUMBER, TRUTH, WORD = "a whole number", "true or false", "one word"
DEVICE_SETTINGS: Mapping[str, str] = {
    "report_interval": NUMBER,
    "enc_enabled": TRUTH,
    "auth_enabled": TRUTH,
    "attest_enabled": TRUTH,
    "seec_enabled": TRUTH,
    "sign_enabled": TRUTH,
    "passport_period": NUMBER,
    "payload_size": NUMBER,
    "fixed_delay": NUMBER,
    "pass_thru_enabled": TRUTH,
    "num_cycles": NUMBER,
    "iterations": NUMBER,
    "transport": WORD,
    "log_level": NUMBER,
    "mqtt_url": WORD,
}
"""What a relying party of SEDIMENT sends its devices, in its order (``modules/protocol/Config.hpp`` lines
81-99)."""


class Placed(Protocol):
    """The main file, as far as it matters here."""

    @property
    def relying(self) -> Relying | None:
        """The relying party's port."""

    @property
    def door(self) -> Door:
        """The door for alerts."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """The verifiers."""

    @property
    def places(self) -> dict[str, str]:
        """Where things stand."""


def read_relying(value: Value, listen: tuple[Endpoint, ...]) -> Relying:
    """Return what ``doors.relying`` says. Raises ``ConfigError``; mistakes in single keys are remembered."""
    section = value.section()
    section.known(*KEYS)
    relying = Relying(
        listen,
        section.need("app_server", "the name of a service of the book").text(),
        section.take("mode", lambda item: item.choice(MODES), MODES[0]),
        section.take("verifier", lambda item: item.parsed(_told), None),
        section.take("here", lambda item: item.parsed(_told), None),
        section.take("relying_party", lambda item: item.parsed(parse_endpoint), None),
        section.take("connections", lambda item: item.choice(CONNECTIONS), CONNECTIONS[0]),
        section.take("device_settings", _device_settings, None),
        section.take("clock_ahead", lambda item: read_seconds(item, AHEAD_LEAST, AHEAD_MOST), 2.0),
        section.take("limits", _limits, RelyingLimits()),
    )
    _check_mode(section, relying)
    return relying


def _check_mode(section: Section, relying: Relying) -> None:
    """Keys that the mode needs, and keys that it has no use for."""
    problems = section.problems
    beside = relying.mode == "beside"
    needed = {"relying_party": "127.0.0.1:8002"} if beside else {"verifier": "10.77.2.2:8100"}
    for key, example in needed.items():
        if section.get(key) is None:
            problems.add(section.where, f"mode {relying.mode} needs {key!r}", f"write {key}: {example}")
    useless = ("verifier", "here", "device_settings", "connections") if beside else ("relying_party",)
    for key in useless:
        found = section.get(key)
        if found is not None:
            whose = "SEDIMENT's own relying party answers devices" if beside else "nothing stands behind this port"
            problems.add(found.where, f"{key} has no meaning with mode {relying.mode}: {whose}", "remove it")
    if not beside and relying.here is None and not _tellable(relying.listen[0]):
        what = f"devices cannot be told {relying.listen[0]} as the place of their relying party"
        problems.add(section.where, what, "write here: with the IPv4 address and port that devices connect to")
    if relying.relying_party is not None and relying.relying_party in relying.listen:
        what = f"{relying.relying_party} is where we listen ourselves: nothing would ever arrive"
        problems.add(section.where, what, "let SEDIMENT's relying party listen on another port")


def _tellable(endpoint: Endpoint) -> bool:
    address = ip_address(endpoint.host)
    return isinstance(address, IPv4Address) and not address.is_unspecified


def _told(text: str) -> Endpoint:
    endpoint = parse_endpoint(text)
    if not _tellable(endpoint):
        msg = f"{text[:80]!r} is told to devices, which speak IPv4 only: write an IPv4 address and a port"
        raise ValueError(msg)
    return endpoint


def _device_settings(value: Value) -> bytes:
    """The text of CONFIG: SEDIMENT's order, one line each, the last without its end, a NUL."""
    section = value.section()
    section.known(*DEVICE_SETTINGS)
    lines = []
    for key, form in DEVICE_SETTINGS.items():
        item = section.get(key)
        if item is not None:
            lines.append(f"{key} {_setting(item, form)}")
    if not lines:
        raise value.wrong("no setting is listed: devices would get an empty text", "list one, or leave it out")
    return "\n".join(lines).encode("ascii") + b"\0"


def _setting(item: Value, form: str) -> str:
    text = item.text()
    number = text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() and len(text) <= 10
    word = text.isascii() and text.isprintable() and " " not in text and 0 < len(text) <= SETTING
    if not {NUMBER: number, TRUTH: text in ("true", "false"), WORD: word}[form]:
        raise item.wrong(f"{item.name} {text[:64]!r} cannot be sent to a device", f"write {form}")
    return text


def _limits(value: Value) -> RelyingLimits:
    section = value.section()
    section.known("connections", "connections_per_peer", "frame_seconds", "idle_seconds", "onward_seconds")
    standard = RelyingLimits()
    return RelyingLimits(
        section.take("connections", lambda item: item.whole(1, CONNECTIONS_MOST), standard.connections),
        section.take(
            "connections_per_peer", lambda item: item.whole(1, CONNECTIONS_MOST), standard.connections_per_peer
        ),
        section.take(
            "frame_seconds", lambda item: read_seconds(item, FRAME_LEAST, FRAME_MOST), standard.frame_seconds
        ),
        section.take("idle_seconds", lambda item: read_seconds(item, IDLE_LEAST, IDLE_MOST), standard.idle_seconds),
        section.take(
            "onward_seconds", lambda item: read_seconds(item, ONWARD_LEAST, ONWARD_MOST), standard.onward_seconds
        ),
    )


def _overlap(one: Endpoint, other: Endpoint) -> bool:
    """Whether only one of the two can be listened on."""
    hosts = ip_address(one.host), ip_address(other.host)
    same = hosts[0] == hosts[1] or any(host.is_unspecified for host in hosts)
    return one.port == other.port and hosts[0].version == hosts[1].version and same


def check_relying(settings: Placed, book: Book, problems: Problems) -> None:
    """Remember what does not fit the rest of the file and the book."""
    relying = settings.relying
    if relying is None:
        return
    where = settings.places["relying"]
    services = {service.name: service for service in book.services}
    service = services.get(relying.app_server)
    if service is None:
        mend = did_you_mean(relying.app_server, list(services))
        problems.add(where, f"app_server: the book has no service {relying.app_server[:64]!r}", mend)
    elif service.protocol != "tcp":
        problems.add(
            where, f"app_server {service.name} is udp in the book: DATA comes by TCP", "name a TCP service"
        )
    for endpoint in relying.listen:
        other = next((door for door in settings.door.listen if _overlap(endpoint, door)), None)
        if other is not None:
            what = f"{endpoint} is taken: the door for alerts listens on {other}"
            problems.add(where, what, "give each a port of its own; devices must not reach the door for alerts")
    if not any(source.peers for source in settings.sources):
        mend = "list the verifier's address under peers of its source"
        problems.add(where, "no verifier's address is known: nobody could be told from a device here", mend)
