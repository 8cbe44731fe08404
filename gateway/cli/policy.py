"""``ragate policy``: what can be asked about KubeArmor policy documents without a service."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.terminal import EXIT_CONFIG, EXIT_NO, Output, OutputOption, end, print_json, print_lines
from gateway.console import text
from gateway.core.errors import RagateError

if TYPE_CHECKING:
    from gateway.kubearmor.validate import Report

#: Bytes of one file: a policy of 100,000 addresses has 4 MB as JSON and twice that as tidy YAML.
MAX_FILE = 1 << 24

_STDIN = Path("-")

policy_app = typer.Typer(help="KubeArmor policy documents.", no_args_is_help=True, rich_markup_mode=None)


class Where(StrEnum):
    """Where the documents are meant to go."""

    VM = "vm"
    K8S = "k8s"


class _Unusable(RagateError):
    """A file that cannot be read."""


@policy_app.callback()
def policy() -> None:
    """KubeArmor policy documents."""


@policy_app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="YAML documents; - is standard input.")],
    output: OutputOption = Output.TEXT,
    mode: Annotated[
        Where, typer.Option("--mode", help="vm: a daemon without Kubernetes; k8s: custom resources of a cluster.")
    ] = Where.VM,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
) -> None:
    """Judge KubeArmor policies: against the published schema, and against what the engine really does.

    All files are judged as one whole: names, order and table entries count over all of them.
    Exit code 0: clean, or notes and warnings only; 1: errors (with --strict also warnings); 2: a file is unusable.
    """
    from gateway.kubearmor.findings import Mode, Severity  # noqa: PLC0415
    from gateway.kubearmor.validate import validate as judge  # noqa: PLC0415

    try:
        report = judge(_read(files), Mode(mode.value))
    except RagateError as error:
        end(str(error), EXIT_CONFIG)
    counts = report.counts()
    if output is Output.JSON:
        print_json(_as_json(report, mode))
    else:
        print_lines(_as_text(report, files))
    bad = counts[Severity.ERROR] or (strict and counts[Severity.WARNING])
    raise typer.Exit(EXIT_NO if bad else 0)


def _read(files: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    for file in files:
        try:
            if file == _STDIN:
                data = sys.stdin.buffer.read(MAX_FILE + 1)
            else:
                with file.open("rb") as opened:
                    data = opened.read(MAX_FILE + 1)
        except OSError as error:
            msg = f"{file}: cannot be read: {error.strerror}; check the path and its rights"
            raise _Unusable(msg) from error
        if len(data) > MAX_FILE:
            msg = f"{file}: is larger than {MAX_FILE} bytes; is this the right file?"
            raise _Unusable(msg)
        yield str(file), data


def _as_json(report: Report, mode: Where) -> dict[str, Any]:
    return {
        "mode": mode.value,
        "documents": len(report.documents),
        "counts": {severity.value: number for severity, number in report.counts().items()},
        "findings": [{**each._asdict(), "severity": each.severity.value} for each in report.findings],
        "budgets": [each._asdict() for each in report.usages],
    }


def _as_text(report: Report, files: Sequence[Path]) -> Iterator[str]:
    for each in report.findings:
        yield text.clean(str(each))
        yield text.clean(f"    {each.why}")
    for usage in report.usages:
        yield text.clean(f"{usage.subject}: {usage.entries} of {usage.limit} table entries")
    words = ", ".join(f"{number} {severity.value}s" for severity, number in report.counts().items())
    yield f"{len(report.documents)} documents in {len(files)} files: {words}"
