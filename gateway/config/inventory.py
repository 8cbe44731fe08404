"""The inventory's file: which devices there are, where they are bound, and their keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.config.document import LARGE_FILE, Problems, did_you_mean, read_text
from gateway.config.entries import Entries, Entry, read_entries
from gateway.config.keyfiles import is_plain, read_hmac_key, read_hmac_keys, refusal_of
from gateway.config.parsing import parse_address, parse_duration, parse_name
from gateway.config.posters import Poster
from gateway.config.sealing import Sealing
from gateway.config.values import AGE_LEAST, AGE_MOST, PASSES_MOST, Inventory, Source
from gateway.control.collecting import no_collection
from gateway.core.errors import ConfigError
from gateway.core.model import Address, AnchorKind, Binding, Device, DeviceId, SourceName, parse_device_id

#: Addresses of one device: each is an element of the path gate's sets, and a camera has two or three.
ADDRESSES = 16
#: Labels of one device, and characters of one label: they are kept in memory and shown.
LABELS, LABEL = 16, 64

#: An interface's name: at most fifteen characters (linux/if.h: IFNAMSIZ less the closing zero), and none that the
#: kernel or nft would read otherwise.
INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,14}\Z")
MAC = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}\Z")
#: Anchors that an interface belongs to.
_PLACED = (AnchorKind.L2, AnchorKind.L3, AnchorKind.UPSTREAM)
_ANCHORS: Mapping[str, AnchorKind] = {anchor.value: anchor for anchor in AnchorKind}


class Located(NamedTuple):
    """An inventory, and where the key of its nth device stands."""

    inventory: Inventory
    where: Callable[[int, str], str]


def load_inventory(path: Path, sources: Sequence[Source | Poster], sealing: Sealing | None = None) -> Inventory:
    """Return the devices and their HMAC keys, opened with the sealing key if they are sealed. Raises
    ``ConfigError`` for an inventory that cannot be used."""
    return read_inventory(path, sources, sealing).inventory


def read_inventory(path: Path, sources: Sequence[Source | Poster], sealing: Sealing | None = None) -> Located:
    """As ``load_inventory``, with the places."""
    with no_collection():
        return _read_inventory(path, sources, sealing)


def _read_inventory(path: Path, sources: Sequence[Source | Poster], sealing: Sealing | None) -> Located:
    problems = Problems()
    written = read_entries(read_text(path, LARGE_FILE), path, problems)
    devices = read_devices(written, [each.name for each in sources], problems)
    problems.settle()
    unsafe = {source.name for source in sources if isinstance(source, Source) and source.allow_published}
    keyless = frozenset(source.name for source in sources if isinstance(source, Poster))
    keys = _read_keys(path, written, devices, unsafe, problems, sealing, keyless)
    problems.settle()
    plain = () if sealing is None else _plain(path, written)
    return Located(Inventory(devices, keys, plain), written.where)


def _plain(path: Path, written: Entries) -> tuple[Path, ...]:
    """The key files that are not sealed."""
    names = dict.fromkeys((written.hmac_keys, *(entry.key_file for entry in written.entries)))
    return tuple(path.parent / name for name in names if name and is_plain(path.parent / name))


def read_devices(written: Entries, sources: Sequence[SourceName], problems: Problems) -> tuple[Device, ...]:
    """Judge every entry's values; what is wrong with them is remembered."""
    known = {str(name): name for name in sources}
    checked: set[tuple[tuple[str, str], ...]] = {()}
    first: dict[str, int] = {}
    devices: list[Device] = []
    for number, entry in enumerate(written.entries):
        if problems.full:
            break
        earlier = first.setdefault(entry.id, number)
        if earlier != number:
            place = written.where(earlier, "id")
            problems.add(
                written.where(number, "id"), f"{entry.id} is listed at {place} already", "keep one of them"
            )
            continue
        try:
            devices.append(_device(entry, number, known, written, checked))
        except ConfigError as error:
            problems.keep(error)
    return tuple(devices)


def _device(
    entry: Entry,
    number: int,
    sources: Mapping[str, SourceName],
    written: Entries,
    checked: set[tuple[tuple[str, str], ...]],
) -> Device:
    key = "id"
    try:
        device = parse_device_id(entry.id)
        for name in (entry.source, *entry.also):
            if name not in sources:
                mend = did_you_mean(name, list(sources))
                raise ConfigError(written.where(number, "source"), f"no source is named {name[:64]!r}", mend)
        key = "source"
        if entry.source in entry.also or len(set(entry.also)) != len(entry.also):
            msg = "a source is listed twice; keep one of the two"
            raise ValueError(msg)
        key = "addresses"
        addresses = _addresses(entry)
        anchor = _ANCHORS.get(entry.anchor)
        if anchor is None:
            mend = did_you_mean(entry.anchor, list(_ANCHORS))
            raise ConfigError(written.where(number, "anchor"), f"anchor {entry.anchor[:64]!r} is not known", mend)
        key = "labels"
        if entry.labels not in checked:
            _check_labels(entry)
            checked.add(entry.labels)
        key = "max_age"
        max_age = _age(entry.max_age) if entry.max_age else None
        key = "recovery_passes"
        passes = _passes(entry.recovery_passes) if entry.recovery_passes else None
    except ValueError as error:
        raise ConfigError(written.where(number, key), f"{entry.id[:64]}: {error}") from error
    also = tuple(sources[name] for name in entry.also)
    binding = Binding(device, addresses, anchor, *_place(entry, anchor, number, written))
    return Device(
        device, sources[entry.source], binding, entry.labels, also, max_age=max_age, recovery_passes=passes
    )


def _place(entry: Entry, anchor: AnchorKind, number: int, written: Entries) -> tuple[str, bytes]:
    """The interface and the MAC that an anchor names. Raises ``ConfigError``."""
    interface, mac = entry.interface, entry.mac
    if not interface and not mac:
        return "", b""
    if interface and not INTERFACE.match(interface):
        what = f"{entry.id[:64]}: {interface[:64]!r} cannot be an interface's name"
        raise ConfigError(written.where(number, "interface"), what, "write it as ip link shows it")
    if mac and (not MAC.match(mac) or int(mac[1], 16) & 1):
        what = f"{entry.id[:64]}: {mac[:64]!r} is no device's MAC"
        raise ConfigError(written.where(number, "mac"), what, 'write it like "02:00:5e:10:00:0b", in quotes')
    for key, value, kinds in (("interface", interface, _PLACED), ("mac", mac, (AnchorKind.L2,))):
        if value and anchor not in kinds:
            mend = f"set anchor to {' or '.join(kind.value for kind in kinds)}, or remove {key}"
            what = f"{entry.id[:64]}: {key} says nothing with anchor {anchor.value}"
            raise ConfigError(written.where(number, key), what, mend)
    if anchor is AnchorKind.L2 and not (interface and mac):
        what = f"{entry.id[:64]}: an l2 anchor is an interface and a MAC, and one of them is missing"
        raise ConfigError(written.where(number, "anchor"), what, "write both interface and mac")
    return interface, bytes.fromhex(mac.replace(":", ""))


def _age(text: str) -> float:
    seconds = parse_duration(text)
    if not AGE_LEAST <= seconds <= AGE_MOST:
        msg = f"max_age of {seconds:g} seconds is out of range; write {AGE_LEAST:g} to {AGE_MOST:g} seconds"
        raise ValueError(msg)
    return seconds


def _passes(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 2 and 1 <= int(text) <= PASSES_MOST):
        msg = f"recovery_passes {text[:64]!r} must be a whole number from 1 to {PASSES_MOST}"
        raise ValueError(msg)
    return int(text)


def _addresses(entry: Entry) -> tuple[Address, ...]:
    if not 1 <= len(entry.addresses) <= ADDRESSES:
        msg = f"a device has 1 to {ADDRESSES} addresses, not {len(entry.addresses)}"
        raise ValueError(msg)
    addresses = tuple(map(parse_address, entry.addresses))
    if len(addresses) > 1 and len(set(addresses)) != len(addresses):
        msg = "an address is listed twice; keep one of the two"
        raise ValueError(msg)
    return addresses


def _check_labels(entry: Entry) -> None:
    if len(entry.labels) > LABELS:
        msg = f"a device has at most {LABELS} labels, not {len(entry.labels)}"
        raise ValueError(msg)
    for name, word in entry.labels:
        parse_name(name)
        if len(word) > LABEL or not word.isprintable():
            msg = f"label {name}: write at most {LABEL} printable characters"
            raise ValueError(msg)


def _read_keys(
    path: Path,
    written: Entries,
    devices: Sequence[Device],
    unsafe: set[SourceName],
    problems: Problems,
    sealing: Sealing | None,
    keyless: frozenset[SourceName],
) -> Mapping[DeviceId, bytes]:
    """Find exactly one key for every device of which SEDIMENT speaks. Other formats know no device's key."""
    listed: Mapping[DeviceId, bytes] = {}
    file = "a file named by hmac_keys"
    where_listed: Callable[[DeviceId], str] = str
    if written.hmac_keys:
        file = written.hmac_keys
        try:
            listed, where_listed = read_hmac_keys(path.parent / file, problems, sealing)
        except ConfigError as error:
            problems.add(written.keys_where, str(error))
            return {}
    keys: dict[DeviceId, bytes] = {}
    for number, device in enumerate(devices):
        if problems.full:
            break
        own = written.entries[number].key_file
        key = listed.get(device.id)
        if own and key is not None:
            where = written.where(number, "hmac_key_file")
            problems.add(where, f"{device.id} has a key in {file} too", "keep one of the two")
            continue
        if own:
            try:
                key = read_hmac_key(path.parent / own, sealing)
            except ConfigError as error:
                problems.add(written.where(number, "hmac_key_file"), str(error))
                continue
        if key is None and keyless.issuperset(device.sources):
            continue
        if key is None:
            mend = f"add hmac_key_file, or a line in {file}"
            problems.add(written.where(number, "id"), f"{device.id} has no HMAC key", mend)
            continue
        refusal = None if unsafe.intersection(device.sources) else refusal_of(device.id, key)
        if refusal is not None:
            problems.add(written.where(number, "hmac_key_file") if own else where_listed(device.id), *refusal)
        keys[device.id] = key
    for name in listed.keys() - {device.id for device in devices}:
        problems.add(where_listed(name), f"{name} is not in the inventory", "remove the line, or list the device")
    return keys
