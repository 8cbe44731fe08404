"""``ragate doctor``: the insecure counterparts of the gateway, what they cost and how to mend them.

What lives here: the command, its options, printing. What must not: looking and judging (the configuration does).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.terminal import (
    DEFAULT_CONFIG,
    EXIT_NO,
    ConfigOption,
    Output,
    OutputOption,
    declared,
    print_json,
    print_lines,
)
from gateway.console import text

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.config.doctor import Places, Report

#: Seconds back for which refused alerts count, and rows of the journal looked at.
RECENT, ROWS = 86_400.0, 1_000

_Files = list[Path] | None


def doctor(
    config: ConfigOption = DEFAULT_CONFIG,
    sediment: Annotated[
        _Files, typer.Option("--sediment", metavar="PATH", help="SEDIMENT's folder, settings, keys or database.")
    ] = None,
    compose: Annotated[
        _Files, typer.Option("--compose", metavar="FILE", help="A compose file of SEDIMENT's containers.")
    ] = None,
    kubearmor: Annotated[
        _Files, typer.Option("--kubearmor", metavar="FILE", help="KubeArmor's kubearmor.yaml.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Look around the gateway for what undoes its protection: SEDIMENT's and KubeArmor's settings, containers,
    clocks.

    What is given here is added to what the section doctor of --config names. Nothing is changed, and nobody is
    asked over the network. Exit code 0: nothing found; 1: something was; 2: a file cannot be read.
    """
    with declared():
        from gateway.config.doctor import Places, examine, gather  # noqa: PLC0415

        loaded = _config(config)
        given = Places(tuple(sediment or ()), tuple(compose or ()), tuple(kubearmor or ()))
        places = given if loaded is None else _both(loaded.doctor, given)
        report = examine(gather(places, loaded, time.time(), None if loaded is None else _stale(loaded)))
    if output is Output.JSON:
        print_json(
            {
                "findings": [each._asdict() for each in report.diagnoses],
                "clean": list(report.clean),
                "unexamined": [{"check": name, "needs": needs} for name, needs in report.unexamined],
            }
        )
    else:
        print_lines(map(text.clean, _lines(report)))
    raise typer.Exit(EXIT_NO if report.diagnoses else 0)


def _config(path: Path) -> Config | None:
    """The configuration; none where the default file is not there: SEDIMENT can be looked at without a gateway."""
    if path == DEFAULT_CONFIG and not path.exists():
        return None
    from gateway.config import load  # noqa: PLC0415

    return load(path)


def _both(first: Places, second: Places) -> Places:
    pairs = zip(first, second, strict=True)
    return type(first)(*(tuple(dict.fromkeys((*ours, *theirs))) for ours, theirs in pairs))


def _stale(config: Config) -> int | None:
    """Alerts that the journal has as refused for their time; None without a journal."""
    import asyncio  # noqa: PLC0415 - a third of the time that most commands take to start

    from gateway.journal import SqliteHistory  # noqa: PLC0415

    if not config.journal.exists():
        return None

    async def ask() -> int:
        history = SqliteHistory(config.journal)
        try:
            rows = await history.refusals(ROWS)
        finally:
            history.close()
        since = time.time() - RECENT
        return sum(row["times"] for row in rows if row["refusal"] == "freshness" and row["last"] >= since)

    return asyncio.run(ask())


def _lines(report: Report) -> Iterator[str]:
    for check, found in groupby(report.diagnoses, key=lambda each: each.check):
        first, *rest = found
        yield check
        yield from (f"  {each.subject}: {each.what}" for each in (first, *rest))
        yield f"  why:  {first.why}"
        yield f"  mend: {first.mend}"
    if report.clean:
        yield f"nothing found: {', '.join(report.clean)}"
    for name, needs in report.unexamined:
        yield f"not looked at: {name}; give {needs}"
