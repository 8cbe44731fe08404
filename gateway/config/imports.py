"""Inventories to be: what another device list would make of ours, as text to look at before it is used.

What lives here: reading inventory files, the difference from the present inventory, and the inventory's common
form as text. What must not: writing any file. No device is ever dropped silently: what cannot be taken over is in
the findings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.config.document import LARGE_FILE, Problems, read_text
from gateway.config.entries import Entry, read_entries
from gateway.config.inventory import read_devices
from gateway.core.model import Device, SourceName
from gateway.core.policy import Finding

#: The name that a proposed inventory gives its key file.
KEYS_NAME = "devices.keys"

# What starts with a digit could be taken for a number, a date or a time, except an IPv4 address.
_PLAIN = re.compile(r"(?:[A-Za-z][A-Za-z0-9._-]*|[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+)\Z")
_RESERVED = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


class Import(NamedTuple):
    """What an import proposes.

    ``inventory``  text of an inventory file in the common form; ``keys`` text of its key file ("" when the import
    has none); ``findings`` what could not be taken over, or should be looked at; ``changes`` one line per
    difference from the present inventory: ``+`` new, ``-`` no longer listed, ``~`` other values, ``=`` kept though
    the file says otherwise; ``taken`` how many of the file's devices are in it; ``refused_key`` whether one was
    refused because everybody has its key.
    """

    inventory: str
    keys: str
    findings: tuple[Finding, ...]
    changes: tuple[str, ...]
    taken: int
    refused_key: bool = False


def import_yaml(path: Path, sources: Sequence[SourceName], present: Sequence[Device] = ()) -> Import:
    """Validate an inventory file and propose it in the common form; its key files stay where they are.

    Raises ``ConfigError`` for an inventory that could not be used.
    """
    problems = Problems()
    written = read_entries(read_text(path, LARGE_FILE), path, problems)
    devices = read_devices(written, sources, problems)
    problems.settle()
    text = inventory_text(written.entries, written.hmac_keys)
    return Import(text, "", (), changes_between(devices, present), len(devices))


def inventory_text(entries: Iterable[Entry], hmac_keys: str = "", left_out: Sequence[str] = ()) -> str:
    """Return entries as an inventory file in the common form; what was left out stands in comments on top."""
    lines = [f"# left out: {_ascii(each)}" for each in left_out]
    if hmac_keys:
        lines.append(f"hmac_keys: {_word(hmac_keys)}")
    lines.append("devices:")
    for entry in entries:
        addresses = ", ".join(_word(address) for address in entry.addresses)
        lines += [
            f"  - id: {_word(entry.id)}",
            f"    source: {_sources(entry)}",
            f"    addresses: [{addresses}]",
            f"    anchor: {entry.anchor}",
        ]
        if entry.interface:
            lines.append(f"    interface: {_word(entry.interface)}")
        if entry.mac:
            lines.append(f"    mac: {_word(entry.mac)}")
        if entry.key_file:
            lines.append(f"    hmac_key_file: {_word(entry.key_file)}")
        if entry.labels:
            labels = ", ".join(f"{_word(name)}: {_word(word)}" for name, word in entry.labels)
            lines.append(f"    labels: {{{labels}}}")
        if entry.max_age:
            lines.append(f"    max_age: {_word(entry.max_age)}")
        if entry.recovery_passes:
            lines.append(f"    recovery_passes: {_word(entry.recovery_passes)}")
    if lines[-1] == "devices:":
        lines[-1] = "devices: []"
    return "\n".join(lines) + "\n"


def _sources(entry: Entry) -> str:
    names = ", ".join(map(_word, (entry.source, *entry.also)))
    return f"[{names}]" if entry.also else names


def _word(text: str) -> str:
    """A scalar that every YAML reader takes as this text; a JSON string is one."""
    if _PLAIN.match(text) and text.lower() not in _RESERVED:
        return text
    return json.dumps(text)


def _ascii(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")


def changes_between(proposed: Iterable[Device], present: Sequence[Device]) -> tuple[str, ...]:
    """Return one line per difference, in the order of the proposal; what would vanish comes last."""
    before = {device.id: device for device in present}
    lines: list[str] = []
    for device in proposed:
        old = before.pop(device.id, None)
        if old is None:
            lines.append(f"+ {device.id} {_shown(device)}")
        elif old != device:
            lines.append(f"~ {device.id} {_shown(old)} -> {_shown(device)}")
    lines += (f"- {device.id} {_shown(device)}" for device in before.values())
    return tuple(lines)


def _shown(device: Device) -> str:
    addresses = ",".join(map(str, device.binding.addresses))
    labels = "".join(f" {name}={word}" for name, word in device.labels)
    age = "" if device.max_age is None else f" max_age={device.max_age:g}s"
    passes = "" if device.recovery_passes is None else f" recovery_passes={device.recovery_passes}"
    binding = device.binding
    place = f" interface={binding.interface}" if binding.interface else ""
    place += f" mac={binding.mac.hex(':')}" if binding.mac else ""
    return f"{','.join(device.sources)} {addresses} {binding.anchor.value}{place}{labels}{age}{passes}"
