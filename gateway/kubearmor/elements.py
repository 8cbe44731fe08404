"""What every part of a policy document has: fields that know how they are written, and the place they were read.

Reading and rendering follow from the declaration of the fields alone.
What must not live here: the parts themselves, reading YAML, rules about values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, NamedTuple

from gateway.kubearmor.findings import NOWHERE, Place

JSON = dict[str, object]


class Form(Enum):
    """The types that a field can have on the wire."""

    TEXT = "text"
    WHOLE = "a whole number"
    TRUTH = "true or false"
    TEXTS = "a list of texts"
    LABELS = "a mapping of texts"
    ONE = "a mapping"
    MANY = "a list of mappings"
    ANY = "anything"


class Wire(NamedTuple):
    """How a field is written: its name, its type, what the items are made of, whether it must be there."""

    key: str
    form: Form
    made_of: type[Element] | None
    need: bool


_EMPTY: Mapping[Form, object] = {
    Form.TEXT: "",
    Form.WHOLE: None,
    Form.TRUTH: None,
    Form.TEXTS: (),
    Form.LABELS: (),
    Form.ONE: None,
    Form.MANY: (),
    Form.ANY: None,
}


class Settled(tuple[Any, ...]):
    """Parts that were made of values known to be good: nothing in them is to be filled in or judged one by one.

    A hundred thousand addresses are otherwise walked a dozen times for each document that names them.
    """

    def render(self) -> list[JSON]:
        """All of them as JSON."""
        return [render(item) for item in self]


def wired(
    key: str,
    form: Form = Form.TEXT,
    made_of: type[Element] | None = None,
    *,
    need: bool = False,
    always: bool = False,
) -> Any:  # noqa: ANN401 - what dataclasses.field itself returns to the checker
    """Declare a field that is written as ``key``. ``need``: it must be there. ``always``: it has no default."""
    metadata = {"wire": Wire(key, form, made_of, need or always)}
    return field(metadata=metadata) if always else field(default=_EMPTY[form], metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One mapping of a document. ``at`` is where it starts, ``places`` where the value of a field stands; neither
    takes part in comparison."""

    at: Place = field(default=NOWHERE, compare=False, repr=False)
    places: Mapping[str, Place] = field(default_factory=dict, compare=False, repr=False)

    def place(self, name: str) -> Place:
        """Where the field ``name`` stands, or the element when it is absent."""
        return self.places.get(name, self.at)


_WIRES: dict[str, Mapping[str, Wire]] = {}


def wires(kind: type[Element]) -> Mapping[str, Wire]:
    """Return the fields of an element that are written, by their name here."""
    known = _WIRES.get(kind.__qualname__)
    if known is None:
        known = {each.name: each.metadata["wire"] for each in fields(kind) if "wire" in each.metadata}
        _WIRES[kind.__qualname__] = known
    return known


def render(element: Element) -> JSON:
    """Return an element as JSON, absent fields left out."""
    rendered: JSON = {}
    for name, wire in wires(type(element)).items():
        value = getattr(element, name)
        if value is None or value in ("", ()):
            continue
        if wire.form is Form.ONE:
            rendered[wire.key] = render(value)
        elif isinstance(value, Settled):
            rendered[wire.key] = value.render()
        elif wire.form is Form.MANY:
            rendered[wire.key] = [render(item) for item in value]
        elif wire.form is Form.LABELS:
            rendered[wire.key] = dict(value)
        elif wire.form is Form.TEXTS:
            rendered[wire.key] = list(value)
        elif wire.form is not Form.ANY:
            rendered[wire.key] = value
    return rendered


@dataclass(frozen=True, slots=True, kw_only=True)
class Remarked(Element):
    """What alerts carry; the nearest of rule, section and spec wins."""

    severity: int | None = wired("severity", Form.WHOLE)
    tags: tuple[str, ...] = wired("tags", Form.TEXTS)
    message: str = wired("message")


@dataclass(frozen=True, slots=True, kw_only=True)
class Acting(Remarked):
    """What also says what to do; the nearest of rule, section and spec wins."""

    action: str = wired("action")


def descend(element: Element) -> Iterator[Element]:
    """Return an element and all that it is made of, in the order of their fields."""
    yield element
    for name, wire in wires(type(element)).items():
        value = getattr(element, name)
        if wire.form is Form.ONE and value is not None:
            yield from descend(value)
        elif wire.form is Form.MANY and not isinstance(value, Settled):
            for item in value:
                yield from descend(item)
