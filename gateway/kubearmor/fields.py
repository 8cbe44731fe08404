"""The fields of a policy document that may have parameters: which, how, and what they may hold once filled in.

What must not live here: whole templates, values of parameters, which documents stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from gateway.core.model import Device
from gateway.kubearmor.check_access import check_directory, check_path
from gateway.kubearmor.codes import Notes, quoted
from gateway.kubearmor.documents import IpBlock, NodeSelector, Selector
from gateway.kubearmor.elements import Element, Form, Remarked, Settled, wires
from gateway.kubearmor.findings import NOWHERE, Mode, Place
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.parameters import Scope, of_device
from gateway.kubearmor.rules import FileDirectory, FilePath, ProcessDirectory, ProcessPath, Source
from gateway.kubearmor.vocabulary import CONTAINER_LABEL, MAX_DIRECTORY, NODE_LABEL

E = TypeVar("E", bound=Element)

#: Characters of a tag and of a message after substitution: alerts carry both.
MAX_TAG = 63
MAX_MESSAGE = 200
#: The one thing that may stand for an address.
DEVICE_ADDRESS = "${device.address}"

PLACEHOLDER = re.compile(r"\$\{([^${}]*)\}")
_TAG = re.compile(rf"[A-Za-z0-9_.:=-]{{1,{MAX_TAG}}}\Z")
_MESSAGE = re.compile(rf"[ -~]{{0,{MAX_MESSAGE}}}\Z")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\$\Z")

#: A path or directory with nothing wrong in it: plain names, none beginning with a dot, short enough for both.
_SHORT = re.compile(rf"(?=.{{1,{MAX_DIRECTORY}}}\Z)(?:/[A-Za-z0-9_@+=:-][A-Za-z0-9._@+=:-]*)+/?\Z")

#: The rules that a device's parameter repeats.
PathRule = FilePath | FileDirectory | ProcessPath | ProcessDirectory
_PATHS = (FilePath, ProcessPath)
_DIRECTORIES = (FileDirectory, ProcessDirectory)


class Field(Enum):
    """How a field takes parameters."""

    PATH = "path"
    DIRECTORY = "directory"
    CIDR = "cidr"
    CONTAINER = "container name"
    HOST = "host name"
    LABEL = "label"
    MESSAGE = "message"
    TAG = "tag"


@lru_cache(maxsize=4_096)
def names_in(text: str) -> tuple[str, ...]:
    """Return the parameters that a text names."""
    return tuple(PLACEHOLDER.findall(text)) if "${" in text else ()


def depends(element: Element) -> bool:
    """Whether a part of a template has a parameter of a device in it."""
    return any(depends_in(slot.text) for slot in slots(element))


def slots(element: Element) -> Iterator[Slot]:
    """Return every text with parameters of an element and of its parts."""
    for name, wire in wires(type(element)).items():
        value = getattr(element, name)
        if wire.form is Form.TEXT:
            found = [("", value)]
        elif wire.form is Form.TEXTS:
            found = [("", text) for text in value]
        elif wire.form is Form.LABELS:
            found = list(value)
        else:
            found = []
            if isinstance(value, Settled):
                continue
            for item in (
                (value or ()) if wire.form is Form.MANY else (value,) if wire.form is Form.ONE and value else ()
            ):
                yield from slots(item)
        yield from (Slot(element, name, text, label) for label, text in found if names_in(text))


def field_of(element: Element, name: str, label: str = "") -> Field | None:
    """Return how a field of an element takes parameters; None: not at all."""
    if isinstance(element, Remarked) and name in ("message", "tags"):
        return Field.MESSAGE if name == "message" else Field.TAG
    if isinstance(element, NodeSelector) and name == "labels":
        return _label(element, label)
    if isinstance(element, _DIRECTORIES) and name == "directory":
        return Field.DIRECTORY
    if (isinstance(element, _PATHS) or type(element) is Source) and name == "path":
        return Field.PATH
    return Field.CIDR if isinstance(element, IpBlock) and name == "cidr" else None


def _label(selector: NodeSelector, label: str) -> Field | None:
    if label == CONTAINER_LABEL:
        return Field.CONTAINER
    if isinstance(selector, Selector):
        return Field.LABEL
    return Field.HOST if label == NODE_LABEL else None


def path_of(rule: PathRule) -> str:
    """The path or directory of a rule."""
    return rule.path if isinstance(rule, _PATHS) else rule.directory


def depends_in(text: str) -> bool:
    """Whether a text has a parameter of a device in it."""
    return any(map(of_device, names_in(text)))


def parent_of(rule: PathRule) -> str:
    """The directory above the first part of a rule's path that depends on the device."""
    parts = path_of(rule).split("/")
    depth = next((number for number, part in enumerate(parts) if depends_in(part)), len(parts) - 1)
    return "/".join(parts[:depth]) + "/"


def widened(rule: PathRule) -> FileDirectory | ProcessDirectory:
    """Return the rule that denies, for all devices, what ``rule`` denies for each of them: its parent directory."""
    message = f"too many devices for one table: all of {parent_of(rule)} is denied"
    remarks: dict[str, Any] = {"severity": rule.severity, "action": rule.action, "sources": rule.sources}
    remarks |= {"tags": tuple(tag for tag in rule.tags if not depends_in(tag)), "message": message, "pts": rule.pts}
    remarks |= {"at": rule.at, "places": rule.places, "directory": parent_of(rule), "recursive": True}
    if isinstance(rule, (FilePath, FileDirectory)):
        return FileDirectory(read_only=rule.read_only, **remarks)
    return ProcessDirectory(**remarks)


# --- filling in ---------------------------------------------------------------------------------------------------


def fill(element: E, scope: Scope) -> E:
    """Return a part of a template with the values of ``scope`` in it; the very part when there are none.

    Raises ``DocumentRefused`` with place, device and mend for a value that its field cannot take.
    """
    changed: dict[str, Any] = {}
    for name, wire in wires(type(element)).items():
        value = getattr(element, name)
        new: Any = value
        if wire.form is Form.TEXT:
            new = _filled(element, name, value, scope)
        elif wire.form is Form.TEXTS:
            new = tuple(_filled(element, name, text, scope) for text in value)
        elif wire.form is Form.LABELS:
            new = tuple((key, _filled(element, name, text, scope, key)) for key, text in value)
        elif wire.form is Form.ONE and value is not None:
            new = fill(value, scope)
        elif wire.form is Form.MANY and not isinstance(value, Settled):
            new = tuple(fill(item, scope) for item in value)
        if new is not value and new != value:
            changed[name] = new
    return replace(element, **changed) if changed else element


class Slot(NamedTuple):
    """One text with parameters: what it is in, its field's name, the text, and of a label its key."""

    element: Element
    name: str
    text: str
    label: str

    def fill(self, scope: Scope) -> str:
        """Return the text with values. Raises ``DocumentRefused``."""
        return _filled(self.element, self.name, self.text, scope, self.label)


def _filled(element: Element, name: str, text: str, scope: Scope, label: str = "") -> str:
    found = names_in(text)
    if not found or text == DEVICE_ADDRESS:
        return text
    field = field_of(element, name, label)
    assert field is not None
    for each in found:
        try:
            value = scope.value(each)
        except ValueError as error:
            raise _refused(element.place(name), scope.device, f"${{{each}}}: {error}") from error
        text = text.replace(f"${{{each}}}", value)
    wrong = _wrong_with(field, text)
    if wrong:
        raise _refused(element.place(name), scope.device, wrong)
    return text


class ValueRefused(DocumentRefused):
    """A value that a field of a document cannot take: where the field stands, what is wrong, what to do."""

    def __init__(self, at: Place, what: str) -> None:
        super().__init__(f"{at}: {what}")
        self.at = at
        self.what = what


def _refused(at: Place, device: Device | None, what: str) -> ValueRefused:
    whose = "" if device is None else f"for device {device.id}: "
    return ValueRefused(at, f"{whose}{what}")


def _wrong_with(field: Field, text: str) -> str:
    """What is wrong with a field's text after substitution; "" when nothing is."""
    if field in (Field.PATH, Field.DIRECTORY):
        return _wrong_path(field, text)
    if field is Field.CONTAINER and not _CONTAINER.match(text):
        return (
            f"{quoted(text)} is no container name with '$' at its end: use letters, digits, '_' and '-' before it"
        )
    if field is Field.HOST and not all(name == "*" or _HOST.match(name) for name in text.split(",")):
        return f"{quoted(text)} is no host name: use letters, digits, '.', '_' and '-'"
    if field is Field.TAG and not _TAG.match(text):
        return f"tag {quoted(text)}: use 1 to {MAX_TAG} of A-Z a-z 0-9 _ . : = -"
    if field is Field.MESSAGE and not _MESSAGE.match(text):
        return f"the message has {len(text)} characters: use up to {MAX_MESSAGE}, plain ones"
    return ""


def _wrong_path(field: Field, text: str) -> str:
    if _SHORT.match(text) and text.endswith("/") is (field is Field.DIRECTORY):
        return ""
    notes = Notes(Mode.VM)
    (check_path if field is Field.PATH else check_directory)(text, NOWHERE, notes)
    return "; ".join(
        f"{each.what}; {each.mend}" if quoted(text) in each.what else f"{each.what}: {quoted(text)}; {each.mend}"
        for each in notes.found
    )
