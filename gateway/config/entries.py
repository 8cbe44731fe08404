"""The inventory's entries as they stand in the file: one short way for the common form, one for any YAML.

What lives here: the two readers, which agree on every text that the short one takes. What must not: judging values.

The general reader composes a tree, at some ten thousand devices a second. The short one is a pattern for the form
that ``ragate devices import`` writes (one block per device, keys in order, plain words) and is ten times as fast;
whatever it does not know for certain it leaves to the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gateway.config.document import Problems, Section, Value, compose
from gateway.core.errors import ConfigError

#: The keys of one device.
ENTRY_KEYS = (
    "id",
    "source",
    "addresses",
    "anchor",
    "interface",
    "mac",
    "hmac_key_file",
    "labels",
    "max_age",
    "recovery_passes",
)


class Entry(NamedTuple):
    """One device as written."""

    id: str
    source: str
    addresses: tuple[str, ...]
    anchor: str
    key_file: str
    labels: tuple[tuple[str, str], ...]
    also: tuple[str, ...] = ()  # further sources
    max_age: str = ""
    recovery_passes: str = ""
    interface: str = ""
    mac: str = ""


class Entries(NamedTuple):
    """All entries in file order; ``where`` gives the place of an entry's key (or of the entry)."""

    hmac_keys: str
    keys_where: str
    entries: tuple[Entry, ...]
    where: Callable[[int, str], str]


def read_entries(text: str, path: Path, problems: Problems) -> Entries:
    """Return what the inventory lists. Raises ``ConfigError``; mistakes in single entries are remembered."""
    return read_common(text, path) or read_any(text, path, problems)


# --- the common form ----------------------------------------------------------------------------------------------

_NULL = r"(?!(?:null|Null|NULL)[\n,}\]:])"
_PLAIN = rf"{_NULL}[A-Za-z0-9][A-Za-z0-9._-]*"
_WORD = rf'(?:{_PLAIN}|"[A-Za-z0-9._:-]+")'
_LINK = rf'(?:{_PLAIN}|"[A-Za-z0-9_.@-]+")'
_FILE = rf'(?:{_NULL}[A-Za-z0-9][A-Za-z0-9._/-]*|"[A-Za-z0-9._/-]+")'
_ITEM = r'(?:[0-9][0-9.]*|"[0-9A-Fa-f.:/]+")'
_GAP = r"(?:[ ]*(?:\#[\x20-\x7e]*)?\n)*"

_HEAD = re.compile(rf"{_GAP}(?:hmac_keys:[ ](?P<hmac_keys>{_FILE})\n{_GAP})?devices:\n")
_ENTRY = re.compile(
    rf"{_GAP}[ ][ ]-[ ]id:[ ](?P<id>{_WORD})\n"
    rf"[ ]{{4}}source:[ ](?P<source>{_WORD})\n"
    rf"[ ]{{4}}addresses:[ ]\[(?P<addresses>{_ITEM}(?:,[ ]{_ITEM})*)\]\n"
    rf"(?:[ ]{{4}}anchor:[ ](?P<anchor>{_PLAIN})\n)?"
    rf"(?:[ ]{{4}}interface:[ ](?P<interface>{_LINK})\n)?"
    rf"(?:[ ]{{4}}mac:[ ](?P<mac>{_WORD})\n)?"
    rf"(?:[ ]{{4}}hmac_key_file:[ ](?P<hmac_key_file>{_FILE})\n)?"
    rf"(?:[ ]{{4}}labels:[ ]\{{(?P<labels>{_PLAIN}:[ ]{_WORD}(?:,[ ]{_PLAIN}:[ ]{_WORD})*)\}}\n)?"
    rf"(?:[ ]{{4}}max_age:[ ](?P<max_age>{_WORD})\n)?"
    rf"(?:[ ]{{4}}recovery_passes:[ ](?P<recovery_passes>{_WORD})\n)?"
)
_TAIL = re.compile(_GAP)


def read_common(text: str, path: Path) -> Entries | None:
    """Return the entries of a file in the common form, or None when it is in any other."""
    head = _HEAD.match(text)
    if head is None:
        return None
    entries: list[Entry] = []
    starts: list[int] = []
    # Many devices have the same labels: one tuple serves them all.
    known_labels: dict[str | None, tuple[tuple[str, str], ...]] = {None: ()}
    at = head.end()
    while (match := _ENTRY.match(text, at)) is not None:
        device, source, addresses, anchor, interface, mac, key_file, written, max_age, passes = match.groups()
        labels = known_labels.get(written)
        if labels is None:
            pairs = [pair.split(": ") for pair in written.split(", ")]
            labels = known_labels[written] = tuple((key, word.strip('"')) for key, word in pairs)
            if len(dict(labels)) != len(labels):
                return None
        entries.append(
            Entry(
                device.strip('"'),
                source.strip('"'),
                tuple(addresses.replace('"', "").split(", ")),
                anchor or "none",
                (key_file or "").strip('"'),
                labels,
                max_age=(max_age or "").strip('"'),
                recovery_passes=(passes or "").strip('"'),
                interface=(interface or "").strip('"'),
                mac=(mac or "").strip('"'),
            )
        )
        starts.append(at)
        at = match.end()
    tail = _TAIL.match(text, at)
    if not entries or tail is None or tail.end() != len(text):
        return None

    def where(number: int, key: str) -> str:
        match = _ENTRY.match(text, starts[number])
        assert match is not None
        if key not in match.re.groupindex or match[key] is None:
            key = "id"
        place = match.start(key) - (key in ("addresses", "labels"))  # where the bracket stands
        return _place(text, path, place)

    file = head["hmac_keys"]
    keys_where = _place(text, path, head.start("hmac_keys")) if file else ""
    return Entries((file or "").strip('"'), keys_where, tuple(entries), where)


def _place(text: str, path: Path, offset: int) -> str:
    line = text.count("\n", 0, offset) + 1
    return f"{path}:{line}:{offset - text.rfind(chr(10), 0, offset)}"


# --- any YAML -----------------------------------------------------------------------------------------------------


def read_any(text: str, path: Path, problems: Problems) -> Entries:
    """Return the entries of any YAML file. Raises ``ConfigError``; mistakes in single entries are remembered."""
    top = compose(text, path, problems)
    top.known("hmac_keys", "devices")
    sections: list[Section] = []

    def read(item: Value) -> Entry:
        entry, section = _entry(item)
        sections.append(section)
        return entry

    entries = top.need("devices", "a list of devices").gather(read)
    file = top.get("hmac_keys")

    def where(number: int, key: str) -> str:
        value = sections[number].get(key)
        return sections[number].where if value is None else value.where

    if file is None:
        return Entries("", "", entries, where)
    return Entries(file.text(), file.where, entries, where)


def _entry(item: Value) -> tuple[Entry, Section]:
    section = item.section()
    section.name = "a device"
    section.known(*ENTRY_KEYS)
    source, *also = _sources(section.need("source", "the name of a source"))
    entry = Entry(
        section.need("id", "cam-1").text(),
        source,
        section.need("addresses", "[10.77.1.11]").gather(Value.text),
        section.take("anchor", Value.text, "none"),
        section.take("hmac_key_file", Value.text, ""),
        section.take("labels", _labels, ()),
        tuple(also),
        max_age=section.take("max_age", Value.text, ""),
        recovery_passes=section.take("recovery_passes", Value.text, ""),
        interface=section.take("interface", Value.text, ""),
        mac=section.take("mac", Value.text, ""),
    )
    return entry, section


def _sources(value: Value) -> list[str]:
    """One name, or a list of them where several verifiers speak about the device."""
    if not value.is_list:
        return [value.text()]
    names = [item.text() for item in value.items()]
    if not names:
        raise value.wrong("source is empty: no verdict about the device could be believed", "name its verifier")
    return names


def _labels(value: Value) -> tuple[tuple[str, str], ...]:
    section = value.section()
    found: list[tuple[str, str]] = []
    for key, _, word in section.pairs():
        try:
            found.append((key, word.text()))
        except ConfigError as error:
            section.problems.keep(error)
    return tuple(found)
