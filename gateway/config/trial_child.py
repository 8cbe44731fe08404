"""The far end of a book's trial: a process that judges a book for a running service, and what the two say.

What lives here: the child's whole life, and the messages in both directions. What must not: starting a process, or
the service's own side.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import IO, Any

import msgspec

from gateway.config.trial import Fit, Ground, try_book
from gateway.core.errors import ConfigError
from gateway.core.model import Address, AnchorKind, Binding, Device, DeviceId, SourceName
from gateway.core.policy import Book

NICE = 10
"""How far the child stands back: verdicts come first."""

CHUNK = 256
"""Devices, or entries of a book, in one message: below a millisecond of work at either end."""

_LENGTH = struct.Struct("!I")

_Row = tuple[
    str,
    list[str],
    str,
    list[tuple[bytes, int]],
    list[tuple[str, str]],
    float | None,
    int | None,
    tuple[str, bytes],
]


# --- the child ----------------------------------------------------------------------------------------------------


def judge() -> None:
    """The child's whole life: read ground and devices, judge, tell. An undeclared error shows in the log."""
    os.nice(NICE)
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes to the log and not between our messages
    ground: Ground = pickle.loads(receive(sys.stdin.buffer))  # noqa: S301 - from our parent
    devices = [_device(row) for row in _rows(sys.stdin.buffer)]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        fit = try_book(ground, devices)
    except ConfigError as error:
        send(output, pickle.dumps((_portable(error), None)))
        return
    send(output, pickle.dumps((None, (lean(fit.book), fit.digest, fit.warnings))))
    for part in _parts(fit):
        send(output, pickle.dumps(part))
    send(output, b"")


def _end_with_parent() -> None:
    sys.stdin.buffer.read(1)
    os._exit(1)


def _portable(error: ConfigError) -> ConfigError:
    """The same without causes; an exception is pickled by its arguments, of which this one has made a sentence."""
    return _Refusal(error.where, error.what, error.mend, str(error))


class _Refusal(ConfigError):
    def __init__(self, where: str, what: str, mend: str, text: str) -> None:
        super().__init__(where, what, mend)
        self.args = (where, what, mend, text)

    def __str__(self) -> str:
        return str(self.args[3])


def _parts(fit: Fit) -> Iterator[tuple[int | None, dict[Any, Any]]]:
    """Entries of the book's devices, and templates of one profile each, by where they belong."""
    entries = list(fit.book.devices.items())
    for start in range(0, len(entries), CHUNK):
        yield None, dict(entries[start : start + CHUNK])
    for place, templates in enumerate((fit.library.devices, fit.library.site)):
        for name, mine in templates.items():
            yield place, {name: mine}


# --- between them -------------------------------------------------------------------------------------------------


def lean(book: Book) -> Book:
    """A book without what it says of single devices, and without rulings."""
    return replace(book, devices={}, compiled={})


def send(pipe: IO[bytes], data: bytes) -> None:
    """Send one message; an empty one ends a list. Raises ``OSError``."""
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> bytes:
    """The next message. Raises ``EOFError`` when the other end is gone."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _rows(pipe: IO[bytes]) -> Iterator[_Row]:
    decoder = msgspec.msgpack.Decoder(list[_Row])
    while (data := receive(pipe)) != b"":
        yield from decoder.decode(data)


def pack(devices: Sequence[Device]) -> bytes:
    """Devices as one message."""
    return msgspec.msgpack.encode([_row(device) for device in devices])


def _row(device: Device) -> _Row:
    binding = device.binding
    addresses = [(address.packed, address.prefix) for address in binding.addresses]
    return (
        device.id,
        list(device.sources),
        binding.anchor.value,
        addresses,
        list(device.labels),
        device.max_age,
        device.recovery_passes,
        (binding.interface, binding.mac),
    )


def _device(row: _Row) -> Device:
    name, (source, *also), anchor, addresses, labels, max_age, passes, place = row
    device = DeviceId(name)
    bound = tuple(Address(packed, prefix) for packed, prefix in addresses)
    binding = Binding(device, bound, AnchorKind(anchor), *place)
    others = tuple(map(SourceName, also))
    return Device(device, SourceName(source), binding, tuple(labels), others, max_age, passes)
