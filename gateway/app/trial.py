"""The trial of a book in a process of its own: nothing of it is done beside the running service's loop.

What lives here: both ends, and what goes between them. What must not: judging a book, changing the service.

The child gets the running inventory, not the file: a file that was edited since the start says nothing of the
devices that are enforced now. It ends when its parent does, since that closes its input.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

import gateway
from gateway.app.build import baseline_of
from gateway.config.trial import Fit, Ground, try_book
from gateway.core.errors import ConfigError
from gateway.core.model import Address, AnchorKind, Binding, Device, DeviceId, SourceName
from gateway.core.policy import Book, Finding, compiling, zone_of
from gateway.kubearmor.render import Library

SECONDS = 300.0
"""A trial that takes longer is given up: 100,000 devices take some 10 s of a slow core at low priority."""

NICE = 10
"""How far the child stands back: verdicts come first."""

CHUNK = 256
"""Devices, or entries of a book, in one message: below a millisecond of work at either end."""

WORK, REST = 0.0005, 0.0005
"""Seconds of work in one go beside the loop, and of leaving it the interpreter."""

_LENGTH = struct.Struct("!I")

_Row = tuple[str, str, str, list[tuple[bytes, int]], list[tuple[str, str]]]


class Tried(NamedTuple):
    """A book that may run, with its rulings made ahead for the devices of the trial."""

    book: Book
    library: Library
    digest: str
    warnings: tuple[Finding, ...]


class Trial:
    """One trial. ``run`` blocks and is for a thread; ``kill`` ends it from any other."""

    def __init__(self, ground: Ground, devices: Sequence[Device]) -> None:
        self._ground = replace(ground, running=_lean(ground.running))
        self._devices = devices
        self._killed = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> Tried:
        """Judge the book. Raises ``ConfigError`` with every mistake, or when the trial did not come to its end."""
        environment = {**os.environ, "PYTHONPATH": str(Path(gateway.__file__).parent.parent)}
        program = [sys.executable, "-P", "-c", "from gateway.app.trial import judge; judge()"]
        pipe = subprocess.PIPE
        timer = threading.Timer(SECONDS, self.kill)
        timer.start()
        try:
            with subprocess.Popen(program, stdin=pipe, stdout=pipe, env=environment) as child:  # noqa: S603 - ourselves
                self._child = child
                try:
                    return self._talk(child)
                finally:
                    child.kill()
        except (OSError, EOFError) as error:
            code = "not started" if self._child is None else f"exit code {self._child.returncode}"
            raise self._given_up(code) from error
        finally:
            timer.cancel()

    def _talk(self, child: subprocess.Popen[bytes]) -> Tried:
        if child.stdin is None or child.stdout is None:
            raise EOFError
        self._tell(child.stdin)
        return self._hear(child.stdout)

    def kill(self) -> None:
        """End the trial: ``run`` raises."""
        self._killed.set()
        if self._child is not None:
            self._child.kill()

    def _given_up(self, how: str) -> ConfigError:
        why = f"was given up after {SECONDS:g} s" if self._killed.is_set() else f"ended early ({how}), see the log"
        return ConfigError(str(self._ground.path), f"the trial of the book {why}", "try again, or: ragate check")

    def _tell(self, pipe: IO[bytes]) -> None:
        _send(pipe, pickle.dumps(self._ground))
        pace = _Pace()
        for start in range(0, len(self._devices), CHUNK):
            rows: list[_Row] = [_row(device) for device in self._devices[start : start + CHUNK]]
            _send(pipe, msgspec.msgpack.encode(rows))
            pace.take()
        _send(pipe, b"")

    def _hear(self, pipe: IO[bytes]) -> Tried:
        # Our own program wrote this, into a pipe that nobody else has.
        refused, fit = pickle.loads(_receive(pipe))  # noqa: S301
        if refused is not None:
            raise refused
        book, digest, warnings = fit
        of_devices: dict[DeviceId, Any] = {}
        templates: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        pace = _Pace()
        while (data := _receive(pipe)) != b"":
            place, part = pickle.loads(data)  # noqa: S301
            (of_devices if place is None else templates[place]).update(part)
            pace.take()
        whole = copy(book)  # was checked by the child, with its devices
        object.__setattr__(whole, "devices", of_devices)
        return Tried(self._compiled(whole), Library(*templates), digest, warnings)

    def _compiled(self, book: Book) -> Book:
        work = compiling(book, self._devices)
        pace = _Pace()
        while True:
            try:
                next(work)
            except StopIteration as end:
                made: Book = end.value
                return made
            pace.take()
            if self._killed.is_set():
                raise self._given_up("stopped")


def forget(book: Book) -> None:
    """Let go of a book's rulings piece by piece: 100,000 at once would hold the interpreter for milliseconds."""
    compiled = book.compiled
    pace = _Pace()
    while isinstance(compiled, dict) and compiled:
        for _ in range(min(CHUNK, len(compiled))):
            compiled.popitem()
        pace.take()


class _Pace:
    """Work in a thread that leaves the loop its turns."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def take(self) -> None:
        if time.monotonic() - self._began >= WORK:
            time.sleep(REST)
            self._began = time.monotonic()


# --- the child ----------------------------------------------------------------------------------------------------


def judge() -> None:
    """The child's whole life: read ground and devices, judge, tell. An undeclared error shows in the log."""
    os.nice(NICE)
    ground: Ground = pickle.loads(_receive(sys.stdin.buffer))  # noqa: S301 - from our parent
    devices = [_device(row) for row in _rows(sys.stdin.buffer)]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    output = sys.stdout.buffer
    try:
        fit = _fit(ground, devices)
    except ConfigError as error:
        _send(output, pickle.dumps((_portable(error), None)))
        return
    _send(output, pickle.dumps((None, (_lean(fit.book), fit.digest, fit.warnings))))
    for part in _parts(fit):
        _send(output, pickle.dumps(part))
    _send(output, b"")


def _fit(ground: Ground, devices: Sequence[Device]) -> Fit:
    fit = try_book(ground, devices)
    addresses = {address for device in devices for address in device.binding.addresses}
    baseline_of(zone_of(fit.book), len(addresses))
    return fit


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


def _lean(book: Book) -> Book:
    """A book without what it says of single devices, and without rulings."""
    return replace(book, devices={}, compiled={})


def _send(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
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
    while (data := _receive(pipe)) != b"":
        yield from decoder.decode(data)


def _row(device: Device) -> _Row:
    binding = device.binding
    addresses = [(address.packed, address.prefix) for address in binding.addresses]
    return device.id, device.source, binding.anchor.value, addresses, list(device.labels)


def _device(row: _Row) -> Device:
    name, source, anchor, addresses, labels = row
    device = DeviceId(name)
    bound = tuple(Address(packed, prefix) for packed, prefix in addresses)
    return Device(device, SourceName(source), Binding(device, bound, AnchorKind(anchor)), tuple(labels))
