"""Policy templates: a parsed document with ``${parameter}`` in some of its values, checked field by field.

Values go into parsed documents only, never into text that is parsed afterwards. Each field that may have parameters
has a rule of its own; all others have none. A device's parameters stand in rules (repeated for each device), in the
labels that select a container (a document for each value), and, as addresses, in network entries (aggregated).
What must not live here: which documents stand, budgets, values of parameters, reading files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gateway.kubearmor.budget import effective
from gateway.kubearmor.codes import quoted
from gateway.kubearmor.documents import ClusterDocument, Document, HostDocument, NetworkDocument
from gateway.kubearmor.elements import Acting, Element, Form, wires
from gateway.kubearmor.fields import (
    DEVICE_ADDRESS,
    PLACEHOLDER,
    Field,
    PathRule,
    depends_in,
    field_of,
    names_in,
    parent_of,
    path_of,
)
from gateway.kubearmor.findings import Place
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.parameters import BUILT_IN, Parameter, Type, of_device, unknown
from gateway.kubearmor.rules import FileDirectory, FilePath, ProcessDirectory, ProcessPath, Source

#: Directories that many programs share: too much would stop with one of them denied.
_VITAL = """
    / /bin/ /boot/ /dev/ /etc/ /home/ /lib/ /lib64/ /opt/ /proc/ /root/ /run/ /sbin/ /srv/ /sys/ /tmp/ /usr/
    /usr/bin/ /usr/lib/ /usr/lib64/ /usr/local/ /usr/sbin/ /usr/share/ /var/ /var/lib/ /var/log/ /var/run/
"""
VITAL = frozenset(_VITAL.split())

_NAME = re.compile(r"([1-9][0-9])-([a-z0-9](?:[a-z0-9-]*[a-z0-9])?)\Z")
_REPEATED = (FilePath, FileDirectory, ProcessPath, ProcessDirectory)


class Mistake(NamedTuple):
    """What is wrong with a template, and what to write instead."""

    at: Place
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.at}: {self.what}; {self.mend}"


class TemplateRefused(DocumentRefused):
    """A template that can never be rendered."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


_NO_TEXT = "a text is for messages only"
_WHY_NOT = {
    "name": "a policy's name becomes a file name and part of an nft script; it is made from profile and document",
    "port": "a port is written into an nft script as it stands",
    "protocol": "a protocol is written into an nft script as it stands",
    "iface": "an interface is written into an nft script as it stands",
    "action": "what a document does must be readable in it",
}


@dataclass(frozen=True, slots=True)
class Template:
    """A document of a profile that has been found renderable.

    ``order`` and ``slug`` come from its name, ``10-slug`` to ``99-slug``; ``word`` is its kind.
    ``used`` are the parameters in it; ``grouped`` is whether a device's label selects the container.
    """

    profile: str
    document: Document
    declared: Mapping[str, Parameter]
    order: int
    slug: str
    word: str
    used: frozenset[str]
    grouped: bool

    @property
    def per_device(self) -> bool:
        """Whether anything in it depends on the device."""
        return any(map(of_device, self.used))


def word_of(document: Document) -> str:
    """Return a document's kind as names have it."""
    if isinstance(document, NetworkDocument):
        return "network"
    if isinstance(document, ClusterDocument):
        return "cluster"
    return "host" if isinstance(document, HostDocument) else "container"


def compile_template(
    document: Document, declared: Mapping[str, Parameter], profile: str, *, site: bool = False
) -> Template:
    """Return a document as a template; ``site``: of a profile of the site, which is for no device.

    Raises ``TemplateRefused`` with every mistake and its place.
    """
    compiler = _Compiler(document, declared, site=site)
    compiler.check()
    if compiler.mistakes:
        raise TemplateRefused(tuple(compiler.mistakes))
    match = _NAME.match(document.name)
    assert match is not None
    order, slug = int(match[1]), match[2]
    return Template(
        profile, document, declared, order, slug, word_of(document), frozenset(compiler.used), compiler.grouped
    )


class _Compiler:
    """Looks at every text of a document once."""

    def __init__(self, document: Document, declared: Mapping[str, Parameter], *, site: bool) -> None:
        self.document = document
        self.site = site
        self.declared = declared
        self.mistakes: list[Mistake] = []
        self.used: set[str] = set()
        self.grouped = False
        self.network = isinstance(document, NetworkDocument)

    def check(self) -> None:
        if "/" in self.document.name:
            what = f"the name {quoted(self.document.name)} has a '/': KubeArmor writes a file of that name, as root"
            self._wrong(self.document.metadata.place("name"), what, "write one word, such as 60-feeds")
        elif not _NAME.match(self.document.name) and not names_in(self.document.name):
            what = f"the name {quoted(self.document.name)} does not say its order"
            mend = (
                "write two digits, a hyphen and a word of a-z 0-9 -, such as 60-feeds: policies apply in this order"
            )
            self._wrong(self.document.metadata.place("name"), what, mend)
        self._walk(self.document, self.document.body, None, None)

    def _wrong(self, at: Place, what: str, mend: str) -> None:
        self.mistakes.append(Mistake(at, what, mend))

    def _walk(self, element: Element, spec: Acting, section: Acting | None, rule: Element | None) -> None:
        for name, wire in wires(type(element)).items():
            value = getattr(element, name)
            if wire.form is Form.ONE and value is not None:
                below = value if isinstance(value, Acting) and value is not spec else section
                self._walk(value, spec, below, rule)
            elif wire.form is Form.MANY:
                for item in value:
                    inside = rule or (item if isinstance(item, _REPEATED) else None)
                    self._walk(item, spec, section, inside)
            elif wire.form is Form.LABELS:
                for key, text in value:
                    self._text(element, name, key, key=True, spec=spec, section=section, rule=rule, label=key)
                    self._text(element, name, text, key=False, spec=spec, section=section, rule=rule, label=key)
            else:
                for text in (value,) if wire.form is Form.TEXT else value if wire.form is Form.TEXTS else ():
                    self._text(element, name, text, key=False, spec=spec, section=section, rule=rule, label="")

    def _text(
        self,
        element: Element,
        name: str,
        text: str,
        *,
        key: bool,
        spec: Acting,
        section: Acting | None,
        rule: Element | None,
        label: str,
    ) -> None:
        if "${" not in text:
            return
        at = element.place(name)
        if "${" in PLACEHOLDER.sub("", text):
            self._wrong(at, f"{quoted(text)} has a '${{' without its end", "write ${device.id}, say, all in one")
            return
        field = None if key else field_of(element, name, label)
        found = names_in(text)
        wire = wires(type(element))[name].key
        if field is None:
            why = _WHY_NOT.get(wire, "only paths, dirs, cidrs, selecting labels, messages and tags have them")
            self._wrong(at, f"no parameter may stand in {wire!r}: {why}", "write the value itself")
            return
        for each in found:
            self._parameter(each, at, field, text)
        known = [each for each in found if each in BUILT_IN or each in self.declared]
        self.used.update(known)
        if any(map(of_device, known)) and not self.site:
            self._of_device(at, field, spec, section, rule, element)
        if field is Field.CONTAINER and not text.endswith("$"):
            self._wrong(at, f"{quoted(text)} also matches longer names", f"write {text}$")

    def _parameter(self, name: str, at: Place, field: Field, text: str) -> None:
        parameter = BUILT_IN.get(name) or self.declared.get(name)
        if parameter is None:
            self._wrong(at, f"parameter {quoted(name)} is not known", unknown(name, self.declared))
            return
        if self.site and of_device(name):
            self._wrong(
                at, f"${{{name}}} in a profile of the site, which is for no device", "use site.* or target.name"
            )
            return
        address = parameter.type is Type.ADDRESS
        if field is Field.CIDR and text != DEVICE_ADDRESS:
            self._wrong(at, f"{quoted(text)} is no prefix", "write ${device.address} alone, or a prefix")
        elif address and field is not Field.CIDR:
            mend = "write ${device.id} here; addresses stand in ipBlock.cidr"
            self._wrong(at, "an address may stand in a cidr only", mend)
        elif parameter.type is Type.TEXT and field is not Field.MESSAGE:
            self._wrong(at, f"${{{name}}} is a text: {_NO_TEXT}", "declare it with type: word")

    def _of_device(
        self,
        at: Place,
        field: Field,
        spec: Acting,
        section: Acting | None,
        rule: Element | None,
        element: Element,
    ) -> None:
        if field is Field.CIDR:
            return
        if self.network:
            what = "a network policy stands once for all devices: it takes their addresses only"
            self._wrong(at, what, "write ${device.address} as a cidr, and no other of the device's parameters")
            return
        if field in (Field.CONTAINER, Field.LABEL):
            self.grouped = True
            return
        if rule is None or isinstance(element, Source):
            where = "in a source" if isinstance(element, Source) else "here"
            what = f"a device's parameter cannot stand {where}: one document is for many devices"
            self._wrong(at, what, "use it in path or dir, or in the message or tags of such a rule")
            return
        assert isinstance(rule, _REPEATED)
        self._collapsible(rule, at, spec, section)

    def _collapsible(self, rule: PathRule, at: Place, spec: Acting, section: Acting | None) -> None:
        """A rule that is repeated must have a parent that can be denied when there are too many."""
        if effective(rule, section, spec) != "Block":
            what = "a rule with a device's parameter must block"
            mend = "write action: Block; with too many devices its parent is denied, and an Allow would open that"
            self._wrong(at, what, mend)
        elif rule.owner_only:
            what = "a rule with a device's parameter cannot have ownerOnly"
            self._wrong(at, what, "leave it out; with too many devices the whole parent is denied")
        elif not depends_in(path_of(rule)):
            self._wrong(at, "a device's parameter stands in the remarks, not in the path", "use it in path or dir")
        elif parent_of(rule) in VITAL:
            what = f"with too many devices all of {parent_of(rule)} would be denied"
            self._wrong(at, what, "put a directory of its own before the parameter, as /srv/feeds/${device.id}/")
