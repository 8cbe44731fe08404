"""Every code has a document that shows it; the page and the recorded findings are what the code says today."""

from __future__ import annotations

import msgspec
import pytest

from gateway.kubearmor import parse
from gateway.kubearmor.codes import CODES, Notes
from gateway.kubearmor.findings import Finding, Mode, Place, Severity
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.policies import EventType, render_event
from gateway.kubearmor.validate import Report, validate
from tests.kubearmor import page

SHOWN = sorted(set(CODES) - page.WITHOUT_DOCUMENT)

#: Codes that come along with another because both are true of the document.
COMPANY = {"KA-DEVICE-LEVEL": {"KA-DEVICE"}, "KA-LATER-WINS": {"KA-ALLOW"}, "KA-BUDGET-NEAR": {"KA-DNS"}}

HEAD = "apiVersion: security.kubearmor.com/v1\n"
CONTAINER = HEAD + "kind: KubeArmorPolicy\nmetadata: {name: ksp-a}\nspec:\n  selector: {matchLabels: {app: a}}\n"
HOST = HEAD + (
    "kind: KubeArmorHostPolicy\nmetadata: {name: hsp-a}\nspec:\n"
    "  nodeSelector: {matchLabels: {kubearmor.io/hostname: edge-1}}\n"
)
CLEAN = CONTAINER + "  process:\n    matchPaths:\n      - path: /usr/bin/nc\n  action: Block\n"


def judge(text: str, mode: Mode = Mode.VM) -> Report:
    return validate([("a.yaml", text.encode())], mode)


def codes(text: str, mode: Mode = Mode.VM) -> list[str]:
    return [each.code for each in judge(text, mode).findings]


@pytest.mark.parametrize("code", SHOWN)
def test_the_document_of_a_code_shows_it_and_nothing_else(code: str) -> None:
    found = {each.code for each in page.findings(code)}
    assert found == {code} | COMPANY.get(code, set())


@pytest.mark.parametrize("code", SHOWN)
def test_the_findings_are_those_recorded(code: str) -> None:
    assert (page.HERE / f"{code}.json").read_text(encoding="utf-8") == page.golden(code)


def test_no_document_is_left_without_a_code() -> None:
    assert {each.stem for each in page.HERE.iterdir()} == set(SHOWN)


def test_the_page_is_complete_and_up_to_date() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert text == page.page()
    assert all(f"### {code}\n" in text for code in CODES)


def test_every_finding_says_where_what_why_and_what_to_write() -> None:
    for code in SHOWN:
        for each in page.findings(code):
            assert each.file == f"{code}.yaml"
            assert each.line > 1
            assert each.column > 0
            assert each.what
            assert each.mend
            assert each.why == CODES[each.code].why


def test_a_clean_document_has_no_findings() -> None:
    report = judge(CLEAN)
    assert report.findings == ()
    assert [document.name for document in report.documents] == ["ksp-a"]
    assert report.usages[0][1:] == (1, 256, 1)
    assert report.counts() == {Severity.ERROR: 0, Severity.WARNING: 0, Severity.NOTE: 0}


def test_a_document_larger_than_a_message_is_an_error_and_a_cluster_takes_less() -> None:
    message = f"  message: {'x' * 2_000_000}\n"
    assert codes(CLEAN + message) == []
    assert codes(CLEAN + message, Mode.K8S) == ["KA-SIZE"]
    assert codes(CLEAN + f"  message: {'x' * 4_200_000}\n") == ["KA-SIZE"]


def test_a_finding_has_the_line_and_column_of_the_value_in_its_own_file() -> None:
    first = ("one.yaml", CLEAN.encode())
    second = ("two.yaml", ("---\n" + CLEAN.replace("ksp-a", "ksp-b") + "  severity: 0\n").encode())
    (found,) = validate([first, second], Mode.VM).findings
    assert found[:5] == ("two.yaml", 11, 13, Severity.ERROR, "KA-SEVERITY")
    assert str(found) == "two.yaml:11:13: error: KA-SEVERITY: severity 0; write 1 to 10"


def test_findings_follow_the_order_of_files_and_lines() -> None:
    bad = CLEAN + "  severity: 0\n"
    files = [("z.yaml", bad.encode()), ("a.yaml", bad.replace("ksp-a", "ksp-b").encode())]
    assert [each.file for each in validate(files, Mode.VM).findings] == ["z.yaml", "a.yaml"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a: [", "a.yaml:2:1: is not YAML"),
        (b"\xff\xfe", "a.yaml:1:1: is not UTF-8"),
        (b"ok: 1\n\xff", "a.yaml:2:1: is not UTF-8"),
        (b"a: \x07", "is not YAML"),
        (b"[" * 100, "nested too deeply"),
        (b"a: *nowhere", "is not YAML"),
        (HOST.encode() + b"  <<: {action: Block}\n", "merge keys"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(data: bytes, words: str) -> None:
    with pytest.raises(DocumentRefused, match=words):
        validate([("a.yaml", data)], Mode.VM)


def test_aliases_within_aliases_end_at_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "MAX_VALUES", 20_000)
    sources = ", ".join(["{path: /bin/x}"] * 1000)
    bomb = f"{CONTAINER}  process:\n    matchPaths:\n      - {{path: /usr/bin/nc, fromSource: &many [{sources}]}}\n"
    bomb += "      - {path: /usr/bin/nc, fromSource: *many}\n" * 600
    with pytest.raises(DocumentRefused, match="more than 20000 values"):
        judge(bomb)


def test_empty_documents_between_others_are_nothing() -> None:
    assert codes("---\n---\n" + CLEAN + "---\n# the end\n") == []


@pytest.mark.parametrize(
    "text", ["just words\n", "[a, b]\n", "kind: [KubeArmorPolicy]\nspec: {}\n", "spec: {a: 1}\n"]
)
def test_what_is_no_document_is_an_error(text: str) -> None:
    assert codes(text) == ["KA-KIND"]


def test_a_mapping_that_is_no_policy_at_all_is_left_alone() -> None:
    assert codes("version: 1\nitems: []\n") == ["KA-KIND-FOREIGN"]


def test_notes_remember_only_what_matters_in_their_mode() -> None:
    notes = Notes(Mode.K8S)
    notes.add("KA-NODE-LABEL", Place("a", 1, 1), "x", "y")
    assert notes.found == []
    notes.add("KA-NODE-EMPTY", Place("a", 1, 1), "x", "y")
    assert [type(each) for each in notes.found] == [Finding]
    assert notes.has("KA-NODE-EMPTY", Place("a", 1, 1))


def test_a_document_that_was_read_can_be_sent_as_it_is() -> None:
    (document,) = judge(CLEAN + "  tags: [a]\n").documents
    sent = msgspec.json.decode(render_event(EventType.ADDED, document))
    assert sent["type"] == "ADDED"
    assert sent["object"]["metadata"] == {"name": "ksp-a"}
    rules = {"matchPaths": [{"path": "/usr/bin/nc"}]}
    selector = {"matchLabels": {"app": "a"}}
    assert sent["object"]["spec"] == {"selector": selector, "process": rules, "action": "Block", "tags": ["a"]}
