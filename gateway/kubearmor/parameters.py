"""The parameters of policy templates: which there are, their types, and their values for one device and place.

A value is text of a closed alphabet: none of them has a '/', a quote, a brace, white space (``text`` has spaces) or
a line break, so that no value can become structure of a path, of JSON or of an nft script.
What must not live here: which field may have which parameter, documents.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from gateway.core.model import Device

#: Characters of a ``text``: alerts carry it in one line.
MAX_TEXT = 100

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\Z")
_NUMBER = re.compile(r"[0-9]{1,9}\Z")
_TEXT = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9 ._:;,()+=-]{{0,{MAX_TEXT - 1}}})\Z")
_DECLARED = re.compile(r"site\.[a-z][a-z0-9_]{0,31}\Z|device\.labels\.[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")

_LABEL = "device.labels."


class Type(Enum):
    """``word``: 1 to 64 of A-Z a-z 0-9 . _ : -, without '..', a letter or digit first. ``number``: up to nine
    digits. ``text``: words with spaces and light punctuation, for messages only. ``address``: a device's own."""

    WORD = "word"
    NUMBER = "number"
    TEXT = "text"
    ADDRESS = "address"


class Parameter(NamedTuple):
    """A parameter's type; for the site's own its value, for a label what stands where a device has none."""

    type: Type
    value: str | None = None


#: Known without being declared: the device, its addresses, the site profile that stands, the target.
BUILT_IN: Mapping[str, Parameter] = {
    "device.id": Parameter(Type.WORD),
    "device.address": Parameter(Type.ADDRESS),
    "site.name": Parameter(Type.WORD),
    "target.name": Parameter(Type.WORD),
}


def of_device(name: str) -> bool:
    """Whether a parameter's value depends on the device."""
    return name.startswith("device.")


def check_declared(name: str) -> str:
    """Return a name that a profile may declare. Raises ``ValueError``."""
    if name in BUILT_IN:
        msg = f"{name} is known without being declared"
        raise ValueError(msg)
    if not _DECLARED.match(name):
        msg = f"{name[:64]!r} must be site.NAME (a-z 0-9 _) or device.labels.LABEL"
        raise ValueError(msg)
    return name


def check_value(kind: Type, text: str) -> str:
    """Return a value of that type. Raises ``ValueError`` with the rule, naming what is most often wrong first."""
    if kind is Type.TEXT:
        if not _TEXT.match(text):
            msg = f"{text[:64]!r} is no text: use up to {MAX_TEXT} letters, digits, spaces and . _ : ; , ( ) + = -"
            raise ValueError(msg)
        return text
    if "/" in text or ".." in text:
        msg = f"{text[:64]!r} has a '/' or '..': a value is one name, never a path"
        raise ValueError(msg)
    good = _NUMBER.match(text) if kind is Type.NUMBER else _WORD.match(text)
    if not good:
        wanted = (
            "up to 9 digits" if kind is Type.NUMBER else "1 to 64 of A-Z a-z 0-9 . _ : -, a letter or digit first"
        )
        msg = f"{text[:64]!r} is no {kind.value}: use {wanted}"
        raise ValueError(msg)
    return text


def unknown(name: str, declared: Mapping[str, Parameter]) -> str:
    """Return the mend for a parameter that is not known."""
    known = [*BUILT_IN, *declared]
    label = name.removeprefix(_LABEL)
    if label != name and _DECLARED.match(name):
        # Compared by themselves: with the long prefix all labels would be alike.
        labels = [each.removeprefix(_LABEL) for each in declared if each.startswith(_LABEL)]
        close = difflib.get_close_matches(label, labels, n=1, cutoff=0.6)
        declare = f"declare it in profile.yaml: parameters: {{{name}: {{type: word}}}}"
        return f"did you mean ${{{_LABEL}{close[0]}}}?" if close else declare
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean ${{{close[0]}}}?"
    return f"use one of: {', '.join(known)}; or declare site.NAME or device.labels.LABEL in profile.yaml"


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a template is rendered: for which device (None: none), under which site profile, at which target."""

    declared: Mapping[str, Parameter]
    site: str
    target: str
    device: Device | None = None

    def value(self, name: str) -> str:
        """Return a parameter's value. Raises ``ValueError`` when it has none, or one of another type."""
        return check_value(self.kind(name), self._raw(name))

    def kind(self, name: str) -> Type:
        """The type of a parameter that is known."""
        return (BUILT_IN.get(name) or self.declared[name]).type

    def _raw(self, name: str) -> str:
        if name == "site.name":
            return self.site
        if name == "target.name":
            return self.target
        if not of_device(name):
            return self.declared[name].value or ""
        assert self.device is not None
        if name == "device.id":
            return self.device.id
        label = name.removeprefix(_LABEL)
        found = next((value for key, value in self.device.labels if key == label), self.declared[name].value)
        if found is None:
            msg = f"the device has no label {label}: give it one, or write a default in profile.yaml"
            raise ValueError(msg)
        return found
