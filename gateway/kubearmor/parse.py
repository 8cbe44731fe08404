"""Reading policy documents from YAML: typed values with positions, and what is wrong with their form.

Scalars are taken as the tools around KubeArmor take them, by YAML 1.1: ``yes`` is a boolean and ``80`` a number,
and either makes the daemon refuse the document where it wants text.
What must not live here: opening files, rules about values.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TypeVar

import yaml

from gateway.kubearmor.codes import Notes, quoted
from gateway.kubearmor.documents import KINDS, Document, Metadata
from gateway.kubearmor.elements import Element, Form, Wire, wires
from gateway.kubearmor.findings import Place
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.vocabulary import API_VERSION, GROUP

E = TypeVar("E", bound=Element)

#: Levels of nesting; a policy has 10. The composer calls itself for every level.
DEPTH = 32
#: Keys and values read of one file, five for each address of a network policy; aliases within aliases would
#: otherwise make a short file endless.
MAX_VALUES = 600_000

_TAG = "tag:yaml.org,2002:"
_NULL, _MERGE, _BOOL, _INT = f"{_TAG}null", f"{_TAG}merge", f"{_TAG}bool", f"{_TAG}int"
_NOT_TEXT = {_NULL: "nothing", _BOOL: "true or false", _INT: "a number", f"{_TAG}float": "a number"}
#: YAML 1.1 booleans that the composer here does not know but the tools around KubeArmor do.
_SHORT_BOOLS = {"y": True, "Y": True, "n": False, "N": False}
_TRUE = frozenset({"yes", "true", "on"})

#: Kubernetes' ObjectMeta has more than people write; what the API server adds is not a mistake.
_SERVER_META = """
    generateName uid resourceVersion generation creationTimestamp deletionTimestamp deletionGracePeriodSeconds
    ownerReferences finalizers managedFields selfLink
"""
_META = frozenset(_SERVER_META.split())
_TOP = frozenset({"kind", "status"})
_MISSING = object()


class _Loader(yaml.CSafeLoader):
    """Refuses deep nesting before the composer's stack ends."""

    depth = 0

    def descend_resolver(self, current_node: yaml.Node | None, _index: object) -> None:
        self.depth += 1
        if self.depth > DEPTH:
            mark = None if current_node is None else current_node.start_mark
            raise yaml.composer.ComposerError(None, None, "it is nested too deeply", mark)

    def ascend_resolver(self) -> None:
        self.depth -= 1


def parse(data: bytes, file: str, notes: Notes) -> tuple[Document, ...]:
    """Return the KubeArmor documents of a file, and add to ``notes`` what is wrong with their form.

    Raises ``DocumentRefused`` with ``file:line:column`` when it is no YAML, or nothing that can be read in bounds.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        msg = f"{file}:{line}:1: is not UTF-8 text; save the file as UTF-8"
        raise DocumentRefused(msg) from error
    reader = _Reader(file, notes)
    found = (reader.document(root) for root in _roots(text, file))
    return tuple(document for document in found if document is not None)


def _roots(text: str, file: str) -> Iterator[yaml.Node]:
    try:
        yield from yaml.compose_all(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = file if mark is None else f"{file}:{mark.line + 1}:{mark.column + 1}"
        msg = f"{where}: is not YAML: {error.problem or error.context}; correct the line or the one before"
        raise DocumentRefused(msg) from error
    except yaml.YAMLError as error:
        msg = f"{file}: is not YAML: {str(error).splitlines()[0]}; save it as plain text"
        raise DocumentRefused(msg) from error


def _hint(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word.lower(), {each.lower(): each for each in known}, n=1, cutoff=0.6)
    match = next((each for each in known if close and each.lower() == close[0]), None)
    return f"did you mean {match!r}?" if match else f"remove it; known here: {', '.join(known)}"


def _is_text(node: yaml.Node) -> bool:
    if not isinstance(node, yaml.ScalarNode):
        return False
    if node.tag == _INT:
        return ":" in node.value  # base 60 is a number to YAML 1.1, text to the tools around KubeArmor
    plain = not node.style
    return node.tag not in _NOT_TEXT and node.tag.startswith(_TAG) and not (plain and node.value in _SHORT_BOOLS)


_KEYS: dict[str, Mapping[str, str]] = {}


def _by_key(made_of: type[Element]) -> Mapping[str, str]:
    """The names of an element's fields by their keys in lower case: the daemon takes any case."""
    known = _KEYS.get(made_of.__qualname__)
    if known is None:
        known = {wire.key.lower(): name for name, wire in wires(made_of).items()}
        _KEYS[made_of.__qualname__] = known
    return known


class _Reader:
    """Reads one file's nodes. A value of the wrong type is noted and read as absent."""

    def __init__(self, file: str, notes: Notes) -> None:
        self.file = file
        self.notes = notes
        self.left = MAX_VALUES
        self._simple: Mapping[Form, Callable[[yaml.Node, str], object]] = {
            Form.TEXT: self._text,
            Form.WHOLE: self._whole,
            Form.TRUTH: self._truth,
            Form.LABELS: self._labels,
        }

    def at(self, node: yaml.Node) -> Place:
        mark = node.start_mark
        return Place(self.file, mark.line + 1, mark.column + 1)

    def document(self, root: yaml.Node) -> Document | None:
        """Read one document; None when it is empty or not KubeArmor's."""
        if isinstance(root, yaml.ScalarNode) and root.tag == _NULL:
            return None
        if not isinstance(root, yaml.MappingNode):
            self.notes.add("KA-KIND", self.at(root), "this is no document", "write 'apiVersion:', 'kind:', …")
            return None
        top = {str(key.value): value for key, value in root.value if isinstance(key, yaml.ScalarNode)}
        kind = self._kind(root, top)
        if kind is None:
            return None
        version = top.get("apiVersion")
        if version is None or version.value != API_VERSION:
            mend = f"write apiVersion: {API_VERSION}"
            self.notes.add("KA-API-VERSION", self.at(version or root), "apiVersion is missing or another", mend)
        return self.element(root, kind)

    def _kind(self, root: yaml.Node, top: dict[str, yaml.Node]) -> type[Document] | None:
        node, version = top.get("kind"), top.get("apiVersion")
        word = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
        if word in KINDS:
            return KINDS[word]
        place = self.at(node or root)
        group = str(version.value).partition("/")[0] if isinstance(version, yaml.ScalarNode) else ""
        ours = group == GROUP or "kubearmor" in word.lower()
        if not ours and (word or "spec" not in top):
            what = f"kind {quoted(word)} is not KubeArmor's" if word else "this is no policy"
            self.notes.add("KA-KIND-FOREIGN", place, what, "nothing to mend")
        else:
            what = f"kind {quoted(word)} is not known" if word else "kind is missing"
            self.notes.add("KA-KIND", place, what, f"write one of: {', '.join(KINDS)}")
        return None

    def element(self, node: yaml.Node, made_of: type[E]) -> E:
        """Read a mapping as an element; a node of another type as an empty one, noted."""
        fields = wires(made_of)
        values: dict[str, object] = {}
        places: dict[str, Place] = {}
        by_key = _by_key(made_of)
        for key, key_node, value in self._pairs(node, made_of):
            name = by_key.get(key.lower())
            if name is None:
                self._unknown(key, key_node, made_of)
                continue
            wire = fields[name]
            if key != wire.key:
                what = f"{quoted(key)} is spelt {wire.key!r}"
                self.notes.add("KA-FIELD-CASE", self.at(key_node), what, f"write {wire.key}")
            places[name] = self.at(value)
            read = self._value(value, wire)
            if read is not _MISSING:
                values[name] = read
        for name, wire in fields.items():
            if wire.need:
                self._complete(name, wire, node, made_of, values, places)
        return made_of(at=self.at(node), places=places, **values)

    def _complete(
        self,
        name: str,
        wire: Wire,
        node: yaml.Node,
        made_of: type[Element],
        values: dict[str, object],
        places: dict[str, Place],
    ) -> None:
        if values.get(name, "") != "":
            return
        if name not in places or values.get(name) == "":
            place = places.get(name, self.at(node))
            self.notes.add("KA-REQUIRED", place, f"{wire.key!r} is missing", f"write {wire.key}: …")
        if wire.made_of is not None and issubclass(made_of, Document):
            values[name] = wire.made_of(at=places.get(name, self.at(node)))

    def _unknown(self, key: str, node: yaml.Node, made_of: type[Element]) -> None:
        if (issubclass(made_of, Document) and key in _TOP) or (made_of is Metadata and key in _META):
            return
        known = [wire.key for wire in wires(made_of).values()]
        self.notes.add("KA-UNKNOWN-FIELD", self.at(node), f"{quoted(key)} is not known here", _hint(key, known))

    def _pairs(self, node: yaml.Node, made_of: type[Element]) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """Every key once, the last one's value: that is the one that KubeArmor sees."""
        if not isinstance(node, yaml.MappingNode):
            known = ", ".join(wire.key for wire in wires(made_of).values())
            self._wrong_type(node, "a mapping", f"write 'key: value' lines with: {known}")
            return
        found: dict[str, tuple[str, yaml.Node, yaml.Node]] = {}
        for key_node, value in node.value:
            self._spend(key_node)
            if key_node.tag == _MERGE:
                msg = f"{self.at(key_node)}: merge keys ('<<') are not read here; write the keys out"
                raise DocumentRefused(msg)
            if not isinstance(key_node, yaml.ScalarNode):
                self._wrong_type(key_node, "a key", "write a word before the colon")
                continue
            key = str(key_node.value)
            if key.lower() in found:
                first = self.at(found[key.lower()][1])
                what = f"{quoted(key)} stands here twice, first in line {first.line}"
                self.notes.add("KA-DUPLICATE-KEY", self.at(key_node), what, "keep one of the two")
            found[key.lower()] = key, key_node, value
        yield from found.values()

    def _spend(self, node: yaml.Node) -> None:
        self.left -= 1
        if self.left < 0:
            msg = f"{self.at(node)}: more than {MAX_VALUES} values, aliases counted as written out; split the file"
            raise DocumentRefused(msg)

    def _value(self, node: yaml.Node, wire: Wire) -> object:
        """Read a value as its field wants it, or note why not and return ``_MISSING``."""
        self._spend(node)
        if isinstance(node, yaml.ScalarNode) and node.tag == _NULL:
            mend = f"give {wire.key!r} a value or leave it out"
            self.notes.add("KA-NULL", self.at(node), f"{wire.key!r} has no value", mend)
            return _MISSING
        scalars = {
            Form.TEXT: self._text,
            Form.WHOLE: self._whole,
            Form.TRUTH: self._truth,
            Form.LABELS: self._labels,
        }
        if wire.form in scalars:
            return scalars[wire.form](node, wire.key)
        if wire.form is not Form.ONE or wire.made_of is None:
            return self._many(node, wire)
        if isinstance(node, yaml.MappingNode):
            return self.element(node, wire.made_of)
        self._wrong_type(node, f"{wire.key!r}", "a mapping is wanted: write 'key: value' lines")
        return _MISSING

    def _many(self, node: yaml.Node, wire: Wire) -> object:
        if not isinstance(node, yaml.SequenceNode):
            self._wrong_type(node, f"{wire.key!r}", "a list is wanted: begin each item with '- '")
            return _MISSING
        if wire.made_of is None:
            texts = (self._item(item, wire.key) for item in node.value)
            return tuple(text for text in texts if text is not _MISSING)
        return tuple(self._mapping(item, wire.made_of) for item in node.value)

    def _mapping(self, node: yaml.Node, made_of: type[E]) -> E:
        self._spend(node)
        return self.element(node, made_of)

    def _item(self, node: yaml.Node, key: str) -> object:
        self._spend(node)
        return self._text(node, key)

    def _wrong_type(self, node: yaml.Node, what: str, mend: str) -> None:
        if isinstance(node, yaml.MappingNode):
            found = "a mapping"
        elif isinstance(node, yaml.SequenceNode):
            found = "a list"
        else:
            found = _NOT_TEXT.get(node.tag, "a text" if node.tag.startswith(_TAG) else f"tagged {node.tag[:32]}")
            found = f"{quoted(str(node.value))}, {found}"
        self.notes.add("KA-TYPE", self.at(node), f"{what} is {found}", mend)

    def _text(self, node: yaml.Node, key: str) -> object:
        if isinstance(node, yaml.ScalarNode) and _is_text(node):
            return str(node.value)
        self._wrong_type(node, f"{key!r}", "a text is wanted: put it in quotes")
        return _MISSING

    def _whole(self, node: yaml.Node, key: str) -> object:
        if isinstance(node, yaml.ScalarNode) and node.tag == _INT and ":" not in node.value:
            digits = node.value.replace("_", "")
            if digits.lstrip("+-").isdecimal() and len(digits) < 12:
                return int(digits, 8 if digits.lstrip("+-").startswith("0") and len(digits) > 1 else 10)
        self._wrong_type(node, f"{key!r}", "a whole number is wanted, without quotes")
        return _MISSING

    def _truth(self, node: yaml.Node, key: str) -> object:
        if isinstance(node, yaml.ScalarNode):
            if node.tag == _BOOL:
                return node.value.lower() in _TRUE
            if not node.style and node.value in _SHORT_BOOLS:
                return _SHORT_BOOLS[node.value]
        self._wrong_type(node, f"{key!r}", "write true or false, without quotes")
        return _MISSING

    def _labels(self, node: yaml.Node, key: str) -> object:
        if not isinstance(node, yaml.MappingNode):
            self._wrong_type(node, f"{key!r}", "a mapping is wanted: write 'label: value' lines")
            return _MISSING
        found: dict[str, str] = {}
        for key_node, value in node.value:
            self._spend(value)
            if key_node.tag == _MERGE or not isinstance(key_node, yaml.ScalarNode):
                self._wrong_type(key_node, "a label", "write a word before the colon")
                continue
            label = str(key_node.value)
            if label in found:
                what = f"label {quoted(label)} stands here twice"
                self.notes.add("KA-DUPLICATE-KEY", self.at(key_node), what, "keep one of the two")
            text = self._text(value, label[:64])
            if isinstance(text, str):
                found[label] = text
        return tuple(found.items())
