# ruff: noqa: E501 - table rows of Markdown are one line
"""The page about ``ragate policy validate`` and the recorded findings, made from the list of codes and the documents
beside this file. ``python -m tests.kubearmor.page`` writes them anew; tests keep them equal.
"""

from __future__ import annotations

import json
from pathlib import Path

from gateway.kubearmor.codes import CODES
from gateway.kubearmor.findings import Finding, Mode, Severity
from gateway.kubearmor.validate import validate

HERE = Path(__file__).parent / "documents"
PAGE = Path(__file__).parents[2] / "docs" / "policy-validate.md"

#: A document of four megabytes is no example.
WITHOUT_DOCUMENT = frozenset({"KA-SIZE"})
#: Lines of an example that are shown.
LONGEST = 40

_HEAD = """\
# `ragate policy validate`

Judges KubeArmor policy documents before anything is sent: against the published schema, and against what the engine
really does with them. KubeArmor answers *Applied* to documents that it half ignores, that match nothing, or that
freeze the rules of the whole node; this command says so, with the line and with what to write instead.

```
ragate policy validate FILE… [-o text|json] [--mode vm|k8s] [--strict]
```

| option | meaning |
|---|---|
| `FILE…` | YAML files, several documents each (`---`); `-` is standard input. All are judged as one whole: names, order and table entries count over all files |
| `--mode vm` | the documents go to a daemon without Kubernetes (the default) |
| `--mode k8s` | they go to a cluster as custom resources |
| `--strict` | warnings count as errors |
| `-o json` | one object: `mode`, `documents`, `counts`, `findings[]` (`file`, `line`, `column`, `severity`, `code`, `what`, `why`, `mend`), `budgets[]` (`subject`, `entries`, `limit`, `documents`) |

| exit code | meaning |
|---|---|
| 0 | clean, or notes and warnings only |
| 1 | errors; with `--strict` also warnings |
| 2 | a file cannot be read, or is not YAML |

Severities: an **error** is refused, does the opposite of what it says, or harms others; a **warning** has no effect, or
more effect than it says; a **note** works and is worth knowing. Documents of the book's profiles are refused for errors, and
for KA-IGNORED-PATTERN, KA-IGNORED-CAPABILITY and KA-SYSCALL-AUDIT: what a profile says must be enforced.

Labels of real containers are not known here. A container is taken to have the labels that some document selects by, so
the entries of its table are counted over all documents whose labels are among those.

## Codes

This list and its examples are made from the code; a test runs every example.

| code | vm | k8s | |
|---|---|---|---|
"""


def read(code: str) -> tuple[Mode, bytes]:
    """Return the document that shows a code, and the mode that it is judged in."""
    data = (HERE / f"{code}.yaml").read_bytes()
    first = data.split(b"\n", 1)[0].decode()
    return Mode(first.removeprefix("# mode: ")), data


def findings(code: str) -> tuple[Finding, ...]:
    """Judge the document that shows a code."""
    mode, data = read(code)
    return validate([(f"{code}.yaml", data)], mode).findings


def golden(code: str) -> str:
    """Return what is recorded of a document's findings."""
    rows = [{**each._asdict(), "severity": each.severity.value} for each in findings(code)]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def _word(severity: Severity | None) -> str:
    return "-" if severity is None else severity.value


def page() -> str:
    """Return the whole page."""
    rows = (
        f"| [{name}](#{name.lower()}) | {_word(code.vm)} | {_word(code.k8s)} | {code.title} |"
        for name, code in CODES.items()
    )
    return _HEAD + "\n".join((*rows, "", *map(_section, CODES)))


def _section(name: str) -> str:
    code = CODES[name]
    lines = [f"### {name}", "", f"{code.title[0].upper()}{code.title[1:]}. {code.why}", ""]
    if name in WITHOUT_DOCUMENT:
        return "\n".join(lines)
    mode, data = read(name)
    shown = data.decode().rstrip("\n").split("\n")
    if len(shown) > LONGEST:
        shown = [*shown[:12], "      # … and so on", *shown[-1:]]
    lines += ["```yaml", *shown, "```", ""]
    found = next(each for each in findings(name) if each.code == name)
    where = " with `--mode k8s`" if mode is Mode.K8S else ""
    lines += [f"Line {found.line}{where}: {found.what}. Mend: {found.mend}.", ""]
    return "\n".join(lines)


def main() -> None:
    """Write the page and the recorded findings anew."""
    for code in CODES:
        if code not in WITHOUT_DOCUMENT:
            (HERE / f"{code}.json").write_text(golden(code), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
