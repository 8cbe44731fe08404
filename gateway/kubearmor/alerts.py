"""What KubeArmor says of what it saw, read strictly: an alert is hostile input that quotes whoever caused it.

Each reader takes the bytes of one message and returns a ``RuntimeAlert``: bounded, printable, its words from closed
lists. Facts of the wire: ``protobuf/kubearmor.proto``, ``feeder/feeder.go`` (``PushLog``, ``PushMessage``) and
``networkPolicyEnforcer/networkPolicyEnforcer.go`` (``buildKubeArmorLog``) of kubearmor/KubeArmor at 510cee31.
What must not live here: streams, counting, deciding whom an alert is about.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple, NoReturn, TypeVar

from google.protobuf.message import DecodeError, Message

from gateway.core.errors import RagateError
from gateway.core.model import Address
from gateway.kubearmor.pb import events_pb2

#: Characters of a name that an alert brings (a policy's, a container's), and of its sentence. Paths are 199 bytes
#: at most in KubeArmor's own tables; arguments may be kilobytes, and nobody reads them in a notice.
NAME_MOST, DETAIL_MOST = 64, 240

#: What an alert is about. ``denial``: something was denied to a process and no policy is named (KubeArmor's tables
#: of host and network policies overwrite each other); ``throttled``: KubeArmor itself stops telling for a while;
#: ``daemon``: KubeArmor's own warnings and errors.
WHATS = (
    "network",
    "process",
    "file",
    "socket",
    "capability",
    "syscall",
    "device",
    "denial",
    "throttled",
    "daemon",
    "other",
)

#: What was done about it.
ACTS = ("blocked", "audited", "allowed", "told")

#: Characters of the longest text of an IPv6 address.
ADDRESS_MOST = 45
#: Addresses whose reading is remembered: it is half of the work, and who makes alerts makes many.
REMEMBERED = 4_096

#: KubeArmor's severities are 1 to 10; 0 is none.
SEVERITY_MOST = 10

_OPERATIONS: Mapping[str, str] = {
    "NetworkFirewall": "network",
    "Process": "process",
    "File": "file",
    "Network": "socket",
    "Capabilities": "capability",
    "Syscall": "syscall",
    "Device": "device",
}
_ACTIONS: Mapping[str, str] = {
    "Block": "blocked",
    "Audit": "audited",
    "Audit (Block)": "audited",  # a blocking rule that nothing on the host can enforce
    "Allow": "allowed",
}
_DIRECTIONS = frozenset({"INGRESS", "EGRESS"})
_LEVELS = frozenset({"WARN", "ERROR"})
_DENIED = frozenset({"Permission denied", "Operation not permitted"})
_SEVERITY = re.compile(r"(?:[1-9]|10)\Z")
_PORT = re.compile(r"[0-9]{1,5}\Z")

M = TypeVar("M", bound=Message)


class AlertRefused(RagateError):
    """Bytes that are no alert, log or message as KubeArmor writes it."""


class RuntimeAlert(NamedTuple):
    """One thing that was seen on a host.

    ``what`` is one of ``WHATS``, ``act`` one of ``ACTS``; ``policy`` its name or ""; ``severity`` 0 (none) to 10;
    ``source`` the address that packets came from, of incoming traffic alone (a claim: packets can lie);
    ``subject`` the container, or the host; ``detail`` a sentence for people. Texts are printable ASCII and bounded.
    """

    what: str
    act: str
    policy: str
    severity: int
    source: Address | None
    subject: str
    detail: str


def read_alert(data: bytes) -> RuntimeAlert:
    """Return what a message of ``WatchAlerts`` says. Raises ``AlertRefused``."""
    alert = _decode(events_pb2.Alert, data)
    policy, subject = shown(alert.PolicyName, NAME_MOST), _subject(alert.ContainerName, alert.HostName)
    if alert.Type == "SystemEvent":
        what = (
            f"more than {alert.MaxAlertsPerSec} alerts a second of one container: KubeArmor drops them for"
            f" {alert.DroppingAlertsInterval} s"
        )
        return RuntimeAlert("throttled", "told", policy, 0, None, subject, what)
    severity = _severity(alert.Severity)
    act = _ACTIONS.get(alert.Action, "told")
    if alert.Type == "MatchedNetworkPolicy":
        source, detail = _of_packet(alert.Resource, alert.Data, alert.EventData)
        return RuntimeAlert("network", act, policy, severity, source, subject, detail)
    what = _OPERATIONS.get(alert.Operation, "other")
    if what == "network":  # another type of message has no source that could be believed to be one
        what = "other"
    detail = _of_process(alert.ProcessName or alert.Source, alert.Operation, alert.Resource)
    return RuntimeAlert(what, act, policy, severity, None, subject, detail)


def read_log(data: bytes) -> RuntimeAlert | None:
    """Return what a message of ``WatchLogs`` says; None: telemetry, nothing was denied. Raises ``AlertRefused``.

    A log has neither policy nor severity nor enforcer, so a denial by a lost policy is not told apart from one by
    the file's own rights: it is shown and counts for nobody.
    """
    log = _decode(events_pb2.Log, data)
    if log.Result not in _DENIED:
        return None
    subject = _subject(log.ContainerName, log.HostName)
    detail = _of_process(log.ProcessName or log.Source, log.Operation, log.Resource)
    return RuntimeAlert("denial", "blocked", "", 0, None, subject, detail)


def read_message(data: bytes) -> RuntimeAlert | None:
    """Return what a message of ``WatchMessages`` says; None: below a warning. Raises ``AlertRefused``."""
    message = _decode(events_pb2.Message, data)
    if message.Level not in _LEVELS:
        return None
    detail = shown(f"{message.Level}: {message.Message}", DETAIL_MOST)
    return RuntimeAlert("daemon", "told", "", 0, None, shown(message.HostName, NAME_MOST), detail)


def check(alert: RuntimeAlert) -> RuntimeAlert:
    """Return an alert that came over a link, as it is, or raise ``AlertRefused``: it keeps what ``read_alert``
    promises."""
    if alert.what not in WHATS or alert.act not in ACTS or not 0 <= alert.severity <= SEVERITY_MOST:
        _refuse(f"{alert.what[:20]!r}, {alert.act[:20]!r}, severity {alert.severity}: words that there are not")
    for text, most in ((alert.policy, NAME_MOST), (alert.subject, NAME_MOST), (alert.detail, DETAIL_MOST)):
        if len(text) > most or not (text.isascii() and text.isprintable()):
            _refuse("a text that is too long or cannot be printed")
    if alert.source is not None:
        if (alert.source.prefix, len(alert.source.packed)) not in {(32, 4), (128, 16)}:
            _refuse("a source that is no single address")
        if alert.what != "network":
            _refuse(f"{alert.what} has a source address")
    return alert


def shown(text: str, most: int) -> str:
    r"""Hostile text as at most ``most`` characters of printable ASCII, everything else as ``\xNN`` and the like."""
    whole, text = len(text) <= most, text[:most]
    if not (text.isascii() and text.isprintable()) or "\\" in text:
        text = "".join(c if " " <= c <= "~" and c != "\\" else _escaped(c) for c in text)
    return text if whole and len(text) <= most else text[: most - 3] + "..."


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def _decode(kind: type[M], data: bytes) -> M:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        msg = f"{len(data)} bytes that are no {kind.DESCRIPTOR.name}"
        raise AlertRefused(msg) from error


def _severity(text: str) -> int:
    """KubeArmor leaves it out where there is none."""
    if not text:
        return 0
    if not _SEVERITY.match(text):
        _refuse(f"severity {shown(text, 20)!r} is none of 1 to {SEVERITY_MOST}")
    return int(text)


def _of_packet(direction: str, data: str, event_data: Mapping[str, str]) -> tuple[Address | None, str]:
    """The source of what came in, and the sentence. ``data`` has the map's content in one line, without a map."""
    if direction not in _DIRECTIONS:
        _refuse(f"direction {shown(direction, 20)!r} is neither INGRESS nor EGRESS")
    found = dict(event_data) or dict(part.partition("=")[::2] for part in data[:1_024].split(" "))
    (source, own), (target, _) = _address(found, "SourceIP"), _address(found, "DestinationIP")
    protocol = shown(found.get("Protocol", ""), 10) or "?"
    ends = f"{source}:{_port(found, 'SourcePort')} to {target}:{_port(found, 'DestinationPort')}"
    return own if direction == "INGRESS" else None, f"{direction.lower()} {protocol} from {ends}"


def _address(found: Mapping[str, str], key: str) -> tuple[str, Address | None]:
    """The address as text, and as one that a device can have, if it can."""
    text = found.get(key, "")
    known = _parsed(text) if len(text) <= ADDRESS_MOST else None
    if known is None:
        _refuse(f"{key} {shown(text, NAME_MOST)!r} is no address")
    return known


@lru_cache(maxsize=REMEMBERED)
def _parsed(text: str) -> tuple[str, Address | None] | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if getattr(address, "scope_id", None):
        return None
    try:
        return str(address), Address.parse(str(address))
    except ValueError:  # nothing that a device could send from: multicast, unspecified, broadcast
        return str(address), None


def _port(found: Mapping[str, str], key: str) -> int:
    """Traffic without ports, such as ICMP, has none or 0."""
    text = found.get(key, "") or "0"
    if not _PORT.match(text) or int(text) > 65_535:
        _refuse(f"{key} {shown(text, 20)!r} is no port")
    return int(text)


def _of_process(process: str, operation: str, resource: str) -> str:
    """At most 226 characters: of the process, of what it did, and of what to."""
    who, what = shown(process, 80) or "a process", shown(operation, 20) or "something"
    return f"{what} by {who}" + (f": {shown(resource, 120)}" if resource else "")


def _subject(container: str, host: str) -> str:
    return shown(container or host, NAME_MOST) or "unnamed"


def _refuse(what: str) -> NoReturn:
    raise AlertRefused(what)
