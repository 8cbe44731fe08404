"""YAML files as trees with positions: every mistake gets a file, a line, a column and the mend.

What lives here: reading a file, composing it, and the readers by which a section takes its keys. What must not:
what any key means.

A scalar is taken as the text that stands there, whatever YAML 1.1 would make of it (``no``, ``1:30``, ``0123``):
the reader of a key knows its type.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

import yaml

from gateway.core.errors import ConfigError

T = TypeVar("T")
W = TypeVar("W", bound=str)

#: Bytes of a settings file or a book; they are written by hand and have a few kilobytes.
SMALL_FILE = 1 << 20
#: Bytes of an inventory: a million devices with two addresses each.
LARGE_FILE = 1 << 28
#: Levels of nesting; the deepest that any file of ours has is 7.
DEPTH = 32
#: Mistakes told at once: more would hide the first.
SHOWN = 20

_NULL = "tag:yaml.org,2002:null"
#: What YAML 1.1 finds in plain and quoted scalars; any other tag was written on purpose and is refused.
_SCALARS = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "timestamp", "merge", "value")
)


class _Loader(yaml.CSafeLoader):
    """The C composer calls itself for every level, and a file of brackets would exhaust its stack."""

    depth = 0

    def descend_resolver(self, current_node: yaml.Node | None, _index: object) -> None:
        self.depth += 1
        if self.depth > DEPTH:
            mark = None if current_node is None else current_node.start_mark
            raise yaml.composer.ComposerError(None, None, "it is nested too deeply", mark)

    def ascend_resolver(self) -> None:
        self.depth -= 1


class Problems:
    """Mistakes found so far; ``settle`` raises them as one ``ConfigError``, in the order found."""

    def __init__(self) -> None:
        self._errors: list[ConfigError] = []

    def __bool__(self) -> bool:
        return bool(self._errors)

    @property
    def full(self) -> bool:
        """Whether enough was found: who goes through many entries stops."""
        return len(self._errors) >= SHOWN

    def add(self, where: str, what: str, mend: str = "") -> None:
        """Remember one mistake."""
        self.keep(ConfigError(where, what, mend))

    def keep(self, error: ConfigError) -> None:
        """Remember one mistake that was raised."""
        if not self.full:
            self._errors.append(error)

    def settle(self) -> None:
        """Raise ``ConfigError`` when there were mistakes."""
        if not self._errors:
            return
        first, *rest = self._errors
        lines = [first.mend or "correct it", *map(str, rest)]
        if self.full:
            lines.append("there may be more")
        raise ConfigError(first.where, first.what, "\n".join(lines) if rest else first.mend)


def read_bytes(path: Path, limit: int, judge: Callable[[Path, os.stat_result], None] | None = None) -> bytes:
    """Return a file's bytes. Raises ``ConfigError`` when it cannot be read or is larger than ``limit`` bytes.

    ``judge`` sees what the file is before it is read, and may raise ``ConfigError``.
    """
    try:
        with path.open("rb") as file:
            if judge is not None:
                judge(path, os.fstat(file.fileno()))
            data = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(
            str(path), f"cannot be read: {error.strerror}", "check the path and its rights"
        ) from error
    if len(data) > limit:
        raise ConfigError(str(path), f"is larger than {limit} bytes", "is this the right file?")
    return data


def read_text(path: Path, limit: int) -> str:
    """Return a UTF-8 file's text. Raises ``ConfigError`` likewise."""
    data = read_bytes(path, limit)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}", "is not UTF-8 text", "save the file as UTF-8") from error


def compose(text: str, path: Path, problems: Problems) -> Section:
    """Return the one mapping that ``text`` is. Raises ``ConfigError`` for anything else."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = str(path) if mark is None else f"{path}:{mark.line + 1}:{mark.column + 1}"
        what = f"is not YAML: {error.problem or error.context}"
        raise ConfigError(where, what, "correct the line or the one before") from error
    except yaml.YAMLError as error:
        raise ConfigError(
            str(path), f"is not YAML: {str(error).splitlines()[0]}", "save it as plain text"
        ) from error
    if node is None:
        raise ConfigError(str(path), "is empty", "see the example in the documentation")
    return Section(node, path, problems, "the file")


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return the mend for an unknown word."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"use one of: {', '.join(known)}"


class Value:
    """One node of the tree: where it stands, and what it can be read as. Readers raise ``ConfigError``."""

    def __init__(self, node: yaml.Node, path: Path, problems: Problems, name: str) -> None:
        self.node = node
        self.path = path
        self.problems = problems
        self.name = name

    @property
    def where(self) -> str:
        """``file:line:column``."""
        mark = self.node.start_mark
        return f"{self.path}:{mark.line + 1}:{mark.column + 1}"

    def wrong(self, what: str, mend: str = "") -> ConfigError:
        """Return the error that says so of this place."""
        return ConfigError(self.where, what, mend)

    @property
    def is_null(self) -> bool:
        """Whether nothing, ``~`` or ``null`` stands here."""
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag == _NULL

    @property
    def is_list(self) -> bool:
        """Whether a list stands here."""
        return isinstance(self.node, yaml.SequenceNode)

    def text(self) -> str:
        """A single word or sentence, as it stands."""
        node = self.node
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _SCALARS:
            raise self.wrong(f"{self.name} must be a single value", "write one word, in quotes if it has spaces")
        return str(node.value)

    def parsed(self, parse: Callable[[str], T]) -> T:
        """A text in the form that ``parse`` takes; its ``ValueError`` becomes the message."""
        text = self.text()
        try:
            return parse(text)
        except ValueError as error:
            raise self.wrong(f"{self.name}: {error}", "") from error

    def choice(self, known: Collection[W]) -> W:
        """One of a closed list of words."""
        text = self.text()
        for word in known:
            if word == text:
                return word
        raise self.wrong(f"{self.name} {text[:64]!r} is not known", did_you_mean(text, known))

    def whole(self, least: int, most: int) -> int:
        """A whole number from ``least`` to ``most``."""
        text = self.text()
        if not (text.isascii() and text.isdigit() and len(text) <= 12 and least <= int(text) <= most):
            raise self.wrong(
                f"{self.name} {text[:64]!r} must be a whole number", f"write one from {least} to {most}"
            )
        return int(text)

    def truth(self) -> bool:
        """``true`` or ``false``."""
        return self.choice(("true", "false")) == "true"

    def items(self) -> list[Value]:
        """A list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.wrong(f"{self.name} must be a list", "write [one, two], or one per line after '- '")
        return [Value(node, self.path, self.problems, self.name) for node in self.node.value]

    def section(self) -> Section:
        """A mapping."""
        return Section(self.node, self.path, self.problems, self.name)

    def gather(self, read: Callable[[Value], T]) -> tuple[T, ...]:
        """Every item of a list that could be read; the mistakes of the others are remembered."""
        found: list[T] = []
        for item in self.items():
            if self.problems.full:
                break
            try:
                found.append(read(item))
            except ConfigError as error:
                self.problems.keep(error)
        return tuple(found)


class Section(Value):
    """A mapping whose keys are taken one by one; ``known`` names all that there may be.

    Raises ``ConfigError`` at once when the node is no mapping or a key is none, and for a duplicate key.
    """

    def __init__(self, node: yaml.Node, path: Path, problems: Problems, name: str) -> None:
        super().__init__(node, path, problems, name)
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(f"{name} must be a mapping", "write 'key: value' lines")
        self._values: dict[str, Value] = {}
        self._keys: dict[str, Value] = {}
        for key_node, value_node in node.value:
            place = Value(key_node, path, problems, "a key")
            key = place.text()
            if key in self._values:
                first = self._keys[key].where
                problems.add(place.where, f"{key!r} stands here twice, first at {first}", "keep one of the two")
                continue
            self._keys[key] = place
            self._values[key] = Value(value_node, path, problems, key)

    def known(self, *names: str) -> None:
        """Remember every key that is not one of these as a mistake."""
        for key, place in self._keys.items():
            if key not in names:
                self.problems.add(
                    place.where, f"{key[:64]!r} is not known in {self.name}", did_you_mean(key, names)
                )

    def pairs(self) -> list[tuple[str, Value, Value]]:
        """Every key, its place and its value, for mappings whose keys are names."""
        return [(key, self._keys[key], value) for key, value in self._values.items()]

    def get(self, key: str) -> Value | None:
        """The value of a key, or None when it is absent or null."""
        value = self._values.get(key)
        return None if value is None or value.is_null else value

    def need(self, key: str, example: str) -> Value:
        """The value of a key that must be there."""
        value = self.get(key)
        if value is None:
            raise self.wrong(f"{self.name} needs {key!r}", f"write {key}: {example}")
        return value

    def take(self, key: str, read: Callable[[Value], T], default: T) -> T:
        """What ``read`` makes of a key, or the default when it is absent. A mistake is remembered."""
        value = self.get(key)
        if value is None:
            return default
        try:
            return read(value)
        except ConfigError as error:
            self.problems.keep(error)
            return default
