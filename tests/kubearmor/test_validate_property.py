"""Whatever is written, only the declared refusal escapes; and what we render ourselves is always clean."""

from __future__ import annotations

import msgspec
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.kubearmor import check_together
from gateway.kubearmor.codes import CODES, Notes
from gateway.kubearmor.documents import KINDS, Document
from gateway.kubearmor.elements import Element, Form, descend, render, wires
from gateway.kubearmor.findings import Mode, Severity
from gateway.kubearmor.host import Hardening, build_host
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.network import Scope, build_network
from gateway.kubearmor.parse import parse
from gateway.kubearmor.policies import Port
from gateway.kubearmor.prefixes import Prefix, Span, merge
from gateway.kubearmor.validate import Report, document_of, judge, validate, written
from gateway.kubearmor.vocabulary import API_VERSION

MODES = st.sampled_from(Mode)

#: Nothing here is timed: the machine may be busy.
untimed = settings(deadline=None)


def known(kind: type[Element]) -> set[str]:
    """Every key of an element and of what it is made of, so that chance finds its way deep into a document."""
    below = (known(wire.made_of) for wire in wires(kind).values() if wire.made_of is not None)
    return {wire.key for wire in wires(kind).values()}.union(*below)


KEYS = sorted({"<<", "Path", "kind"}.union(*map(known, KINDS.values())))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["Block", "/etc/", "/usr/bin/nc", "10.0.0.0/8", "::/0", "443", "a,b", "[a]", *KINDS, API_VERSION]
    ),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner),
    max_leaves=25,
)


def check(data: bytes, mode: Mode) -> Report | None:
    try:
        report = validate([("a.yaml", data)], mode)
    except DocumentRefused as refused:
        said = str(refused)
    else:
        said = ""
    if said:
        assert said.startswith("a.yaml:")
        return None
    for each in report.findings:
        assert each.code in CODES
        assert each.line > 0
        assert each.column > 0
    return report


@untimed
@given(st.binary(max_size=200), MODES)
def test_arbitrary_bytes_raise_only_the_declared_refusal(data: bytes, mode: Mode) -> None:
    check(data, mode)


@untimed
@given(st.text(alphabet="{}[]:,-&*!|>'\"#%@`? \n\tab1~<", max_size=80), MODES)
def test_arbitrary_yaml_signs_raise_only_the_declared_refusal(text: str, mode: Mode) -> None:
    check(text.encode(), mode)


@untimed
@given(st.sampled_from(sorted(KINDS)), TREES, TREES, MODES)
def test_arbitrary_trees_raise_only_the_declared_refusal(
    kind: str, spec: object, metadata: object, mode: Mode
) -> None:
    tree = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
    check(yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "replace"), mode)


def elements(kind: type[Element]) -> st.SearchStrategy[dict[str, object]]:
    """Any mapping of the right types for an element, as JSON."""
    made: dict[Form, st.SearchStrategy[object]] = {
        Form.TEXT: st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=6)
        | st.sampled_from(["Allow", "/a/b"]),
        Form.WHOLE: st.integers(-1, 70_000),
        Form.TRUTH: st.booleans(),
        Form.TEXTS: st.lists(st.sampled_from(["a", "eth0", "x y"]), min_size=1, max_size=2),
        Form.LABELS: st.dictionaries(st.sampled_from(["app", "kubearmor.io/hostname"]), st.just("x"), min_size=1),
    }
    fields: dict[str, st.SearchStrategy[object]] = {}
    for wire in wires(kind).values():
        if wire.made_of is None:
            fields[wire.key] = made[wire.form]
        elif wire.form is Form.ONE:
            fields[wire.key] = st.deferred(lambda made_of=wire.made_of: elements(made_of))  # type: ignore[misc]
        else:
            inner = st.deferred(lambda made_of=wire.made_of: elements(made_of))  # type: ignore[misc]
            fields[wire.key] = st.lists(inner, min_size=1, max_size=2)
    return st.fixed_dictionaries({}, optional=fields)


@settings(untimed, max_examples=50)
@given(
    st.sampled_from(sorted(KINDS.items())).flatmap(lambda each: st.tuples(st.just(each[0]), elements(each[1]))),
    MODES,
)
def test_documents_of_the_right_types_read_back_as_they_were_rendered(
    pair: tuple[str, dict[str, object]], mode: Mode
) -> None:
    kind, tree = pair
    tree |= {"kind": kind, "apiVersion": API_VERSION, "metadata": {"name": "a"}} | {"spec": tree.get("spec", {})}
    report = check(msgspec.json.encode(tree), mode)
    assert report is not None
    (document,) = report.documents
    again = {"kind": kind, **document.render()}
    (second,) = parse(msgspec.json.encode(again), "b.yaml", Notes(mode))
    assert second == document
    assert second.at.file == "b.yaml"
    assert render(second) == render(document)
    assert not any(each.code in {"KA-TYPE", "KA-UNKNOWN-FIELD"} for each in report.findings)


SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)), max_size=8).map(
    lambda pairs: merge((start, start + more) for start, more in pairs)
)


@untimed
@given(SPANS, SPANS)
def test_ranges_compare_as_the_numbers_in_them(one: tuple[Span, ...], other: tuple[Span, ...]) -> None:
    mine, theirs = ({number for start, end in spans for number in range(start, end + 1)} for spans in (one, other))
    assert check_together._ranges(one, other) is (mine <= theirs)
    assert check_together._overlap(one, other) is bool(mine & theirs)


@st.composite
def hardenings(draw: st.DrawFn) -> Hardening:
    words = st.text(st.sampled_from("abz019._-"), min_size=1, max_size=9).filter(lambda word: word.strip("."))
    paths = st.lists(words, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
    listed = st.lists(paths, max_size=4, unique=True).map(tuple)
    return Hardening(journal=draw(st.none() | paths), private=draw(listed), sealed=draw(listed))


PORTS = st.integers(1, 65535)
ADDRESSES = st.binary(min_size=4, max_size=4).map(lambda packed: (packed, 32)) | st.binary(
    min_size=16, max_size=16
).map(lambda packed: (packed, 128))


def serious(report_of: Document) -> list[str]:
    notes = Notes(Mode.VM)
    judge([report_of], notes)
    return [str(each) for each in notes.found if each.severity is not Severity.NOTE]


@untimed
@given(hardenings(), st.sampled_from(["*", "edge-1"]))
def test_host_policies_of_ours_are_clean(hardening: Hardening, node: str) -> None:
    policy = build_host(hardening, name="20-host-own-0a1b2c3d", node=node, generation=7)
    if policy is None:
        return
    report = validate([("own.yaml", written(policy))], Mode.VM)
    # A file may be named both as the journal and as a private file: the later rule says the same.
    assert [str(each) for each in report.findings if each.severity is not Severity.NOTE] == []
    assert report.usages[0].entries == policy.cost
    assert serious(document_of(policy)) == []


@untimed
@given(
    st.lists(ADDRESSES, max_size=20, unique=True),
    st.lists(PORTS, min_size=1, max_size=3, unique=True),
    st.booleans(),
    st.sampled_from(["tcp", "udp", "sctp"]),
)
def test_network_policies_of_ours_are_clean(
    admitted: list[tuple[bytes, int]], ports: list[int], managed: bool, protocol: str
) -> None:
    gated, *others = (Port(number, protocol) for number in ports)
    scope = Scope(
        gated=(gated,),
        corridor=tuple(others),
        management=(Port(gated.number, "tcp" if protocol != "tcp" else "udp"),) if managed else (),
        management_from=(Prefix.parse("10.9.0.0/24"),) if managed else (),
    )
    policy = build_network(scope, admitted, name="50-network-gate-0a1b2c3d", node="edge-1", generation=3)  # type: ignore[arg-type]
    assert policy is not None
    report = validate([("own.yaml", written(policy))], Mode.VM)
    assert [str(each) for each in report.findings] == []
    assert len([each for each in descend(document_of(policy)) if type(each).__name__ == "IngressEntry"]) == len(
        policy.ingress
    )
