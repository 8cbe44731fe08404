"""The trial of a book in a process of its own: nothing of it is done beside the running service's loop.

What lives here: the service's end. What must not: judging a book, changing the service.

The child gets the running inventory, not the file: a file that was edited since the start says nothing of the
devices that are enforced now. It ends when its parent does, since that closes its input.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import gateway
from gateway.config.trial import Ground
from gateway.config.trial_child import CHUNK, lean, pack, receive, send
from gateway.core.errors import ConfigError
from gateway.core.model import Device, DeviceId
from gateway.core.policy import Book, Finding, compiling
from gateway.kubearmor.render import Library

SECONDS = 300.0
"""A trial that takes longer is given up: 100,000 devices take some 10 s of a slow core at low priority."""

WORK, REST = 0.0005, 0.0005
"""Seconds of work in one go beside the loop, and of leaving it the interpreter."""


class Tried(NamedTuple):
    """A book that may run, with its rulings made ahead for the devices of the trial."""

    book: Book
    library: Library
    digest: str
    warnings: tuple[Finding, ...]


class Trial:
    """One trial. ``run`` blocks and is for a thread; ``kill`` ends it from any other."""

    def __init__(self, ground: Ground, devices: Sequence[Device]) -> None:
        self._ground = replace(ground, running=lean(ground.running))
        self._devices = devices
        self._killed = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> Tried:
        """Judge the book. Raises ``ConfigError`` with every mistake, or when the trial did not come to its end."""
        ours = str(Path(gateway.__file__).parent.parent)
        path = os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path}
        program = [sys.executable, "-P", "-c", "from gateway.config.trial_child import judge; judge()"]
        pipe = subprocess.PIPE
        timer = threading.Timer(SECONDS, self.kill)
        timer.start()
        try:
            with subprocess.Popen(program, stdin=pipe, stdout=pipe, env=environment) as child:  # noqa: S603 - ourselves
                self._child = child
                if self._killed.is_set():  # while it was being started
                    child.kill()
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
        send(pipe, pickle.dumps(self._ground))
        pace = _Pace()
        for start in range(0, len(self._devices), CHUNK):
            send(pipe, pack(self._devices[start : start + CHUNK]))
            pace.take()
        send(pipe, b"")

    def _hear(self, pipe: IO[bytes]) -> Tried:
        # Our own program wrote this, into a pipe that nobody else has.
        refused, fit = pickle.loads(receive(pipe))  # noqa: S301
        if refused is not None:
            raise refused
        book, digest, warnings = fit
        of_devices: dict[DeviceId, Any] = {}
        templates: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        pace = _Pace()
        while (data := receive(pipe)) != b"":
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
