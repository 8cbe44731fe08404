"""The documents of the profiles: read, compiled as templates, and tried, every mistake with its place.

What lives here: files to a library of templates. What must not: what a template may be, which documents stand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from gateway.config.document import SMALL_FILE, Problems, Section, Value, compose, read_bytes, read_text
from gateway.config.values import ClusterTarget
from gateway.core.errors import ConfigError
from gateway.core.model import Address, Binding, Device, DeviceId, SourceName
from gateway.core.policy import KINDS, Book, Profile
from gateway.kubearmor.cluster import for_cluster
from gateway.kubearmor.codes import Notes
from gateway.kubearmor.documents import ClusterDocument, Document
from gateway.kubearmor.expand import pieces
from gateway.kubearmor.fields import ValueRefused
from gateway.kubearmor.findings import Mode
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.parameters import Parameter, Type, check_declared, check_value, of_device
from gateway.kubearmor.parse import parse
from gateway.kubearmor.render import Library, try_library
from gateway.kubearmor.template import Template, TemplateRefused, compile_template
from gateway.kubearmor.validate import forbids, judge

#: The types that a profile may declare.
TYPES: tuple[Literal["word", "number", "text"], ...] = ("word", "number", "text")
PARAMETER_KEYS = ("type", "value", "default")
#: Kinds of document that only a cluster takes.
CLUSTERS_ONLY = frozenset({"cluster"})
_NO_CLUSTERS: Mapping[str, str] = {}


def read_library(book: Book) -> Library:
    """Return the templates of every profile of a book. Raises ``ConfigError`` for every mistake found."""
    problems = Problems()
    made = {name: tuple(_templates(profile, problems)) for name, profile in book.profiles.items()}
    names: dict[tuple[str, str], Template] = {}
    for template in (each for mine in made.values() for each in mine):
        first = names.setdefault((template.profile, template.document.name), template)
        if first is not template:
            at = template.document.metadata.place("name")
            problems.add(str(at), f"the name stands at {first.document.at} already", "give each a name of its own")
    problems.settle()
    return Library(
        {name: mine for name, mine in made.items() if not book.profiles[name].site},
        {name: mine for name, mine in made.items() if book.profiles[name].site},
    )


def namespaces_of(clusters: Iterable[ClusterTarget]) -> Mapping[str, str]:
    """Return for each cluster's target the namespace that documents for containers go to."""
    return {cluster.name: cluster.namespace for cluster in clusters}


def document_targets(book: Book, only: str, clusters: Collection[str] = ()) -> Mapping[str, tuple[str, ...]]:
    """Return the kinds of document that each target takes: all that fit at the ``only`` one of this host and at the
    ``clusters``, where the book says nothing."""
    if book.targets:
        return book.targets
    here = tuple(kind for kind in KINDS if kind not in CLUSTERS_ONLY)
    there = tuple(kind for kind in KINDS if kind != "path_gate")
    return {only: here, **dict.fromkeys(clusters, there)}


def check_kinds(book: Book, places: Mapping[str, str], clusters: Collection[str], problems: Problems) -> None:
    """Note kinds of document that a target cannot take."""
    for name, kinds in book.targets.items():
        where = places[f"target {name}"]
        if name in clusters and "path_gate" in kinds:
            problems.add(where, f"target {name} is a cluster and has no path gate", "leave path_gate out")
        if name not in clusters and CLUSTERS_ONLY & set(kinds):
            mend = "leave cluster out, or name a target that has kubernetes:"
            problems.add(where, f"target {name} is no cluster, and only clusters take that kind", mend)


def check_library(
    library: Library,
    targets: Mapping[str, tuple[str, ...]],
    devices: tuple[Device, ...],
    clusters: Mapping[str, str] = _NO_CLUSTERS,
) -> None:
    """Try every template for every device, and for each of the ``clusters``, given with their namespaces. Raises
    ``ConfigError`` for what could not be rendered some day."""
    problems = Problems()
    for refusal in try_library(library, targets, devices):
        _keep(refusal, "profiles", problems)
    every = [template for mine in (*library.devices.values(), *library.site.values()) for template in mine]
    for template in every:
        if template.word in CLUSTERS_ONLY and not clusters:
            mend = "add a target with kubernetes:, or write kind: KubeArmorPolicy with selector.matchLabels"
            problems.add(str(template.document.at), f"{template.document.kind} needs Kubernetes", mend)
    for target, namespace in clusters.items():
        for template in every:
            if template.word in targets.get(target, ()):
                try:
                    _try_cluster(template, target, namespace)
                except DocumentRefused as error:
                    _keep(error, template.document.at.file, problems)
    problems.settle()


def _try_cluster(template: Template, target: str, namespace: str) -> None:
    """Raise ``DocumentRefused`` when a cluster cannot take what is made of a template."""
    for piece in pieces(template, [_sample(template.declared)], "normal", target):
        for document in (piece.full, piece.wide):
            if document is not None:
                for_cluster(document, namespace)


def _keep(refusal: DocumentRefused, where: str, problems: Problems) -> None:
    if isinstance(refusal, ValueRefused):
        problems.add(str(refusal.at), refusal.what)
    else:
        problems.add(where, str(refusal))


def _templates(profile: Profile, problems: Problems) -> Iterator[Template]:
    if not profile.documents:
        return
    home = Path(profile.documents[0]).parent
    path = home / "profile.yaml"
    top = compose(read_text(path, SMALL_FILE), path, problems)
    section = top.get("parameters")
    places: dict[str, str] = {}
    no_parameters: dict[str, Parameter] = {}
    mistakes = Problems()
    try:
        declared = no_parameters if section is None else _parameters(section.section(), places, mistakes)
        mistakes.settle()
    except ConfigError as error:
        # What is left out for its mistake would look unknown in the documents: first things first.
        problems.keep(error)
        return
    used: set[str] = set()
    whole = True
    for file in profile.documents:
        found = _file(Path(file), profile, declared, problems)
        whole = whole and found is not None
        for template in found or ():
            used |= template.used
            yield template
    for name, place in places.items():
        if whole and name not in used:
            problems.add(place, f"no document of the profile uses {name}", "remove it, or correct the document")


def _parameters(section: Section, places: dict[str, str], problems: Problems) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for name, place, value in section.pairs():
        try:
            place.parsed(check_declared)
            found[name] = _parameter(name, value)
            places[name] = place.where
        except ConfigError as error:
            problems.keep(error)
    return found


def _parameter(name: str, value: Value) -> Parameter:
    """``word`` alone is the value of a word; of a label, its default."""
    own, other = ("default", "value") if of_device(name) else ("value", "default")
    if value.is_null:
        raise value.wrong(f"{name} has no value", f"write {{type: word, {own}: …}}")
    try:
        section = value.section()
    except ConfigError:
        return Parameter(Type.WORD, value.parsed(lambda text: check_value(Type.WORD, text)))
    section.name = f"parameter {name}"
    unwanted = section.get(other)
    if unwanted is not None:
        raise unwanted.wrong(f"{name} takes {own}, not {other}", f"write {own}")
    kind = Type(section.need("type", "word").choice(TYPES))
    written = section.get(own) if of_device(name) else section.need(own, "feeds")
    section.known(*PARAMETER_KEYS)
    return Parameter(kind, None if written is None else written.parsed(lambda text: check_value(kind, text)))


def _file(
    path: Path, profile: Profile, declared: Mapping[str, Parameter], problems: Problems
) -> tuple[Template, ...] | None:
    """The templates of one file; None when something is wrong, which is remembered."""
    notes = Notes(Mode.VM)
    try:
        documents = parse(read_bytes(path, SMALL_FILE), str(path), notes)
    except ConfigError as error:
        problems.keep(error)
        return None
    except DocumentRefused as error:
        where, _, what = str(error).partition(": ")
        problems.add(where, what)
        return None
    found: list[Template] = []
    good = not _errors(notes, problems)
    if not documents and good:
        problems.add(f"{path}:1:1", "has no KubeArmor document", "write one, or take the file out of documents")
        good = False
    for document in documents if good else ():
        template = _compiled(document, profile, declared, problems)
        good = good and template is not None
        found += () if template is None else (template,)
    return tuple(found) if good else None


def _compiled(
    document: Document, profile: Profile, declared: Mapping[str, Parameter], problems: Problems
) -> Template | None:
    try:
        template = compile_template(document, declared, profile.name, site=profile.site)
    except TemplateRefused as error:
        for mistake in error.mistakes:
            problems.add(str(mistake.at), mistake.what, mistake.mend)
        return None
    notes = Notes(Mode.K8S if isinstance(document, ClusterDocument) else Mode.VM)
    try:
        made = list(pieces(template, [_sample(declared)], "normal", "target"))
    except DocumentRefused as error:
        _keep(error, document.at.file, problems)
        return None
    for piece in made:
        judge([each for each in (piece.full, piece.wide) if each is not None][:1], notes)
    return None if _errors(notes, problems) else template


def _errors(notes: Notes, problems: Problems) -> bool:
    """Remember the findings that keep a document out of a profile; whether there were any."""
    errors = [finding for finding in notes.found if forbids(finding)]
    for finding in errors:
        problems.add(
            f"{finding.file}:{finding.line}:{finding.column}", f"{finding.code}: {finding.what}", finding.mend
        )
    return bool(errors)


def _sample(declared: Mapping[str, Parameter]) -> Device:
    """A device that has every label which the templates may ask for."""
    labels = {
        name.removeprefix("device.labels."): parameter.value or ("1" if parameter.type is Type.NUMBER else "sample")
        for name, parameter in declared.items()
        if of_device(name)
    }
    addresses = tuple(
        Address(ip_address(text).packed, bits) for text, bits in (("192.0.2.1", 32), ("2001:db8::1", 128))
    )
    device = DeviceId("sample")
    return Device(device, SourceName("sample"), Binding(device, addresses), tuple(labels.items()))
