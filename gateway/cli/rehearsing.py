"""``ragate plan`` and ``ragate what-if``: what another book, or one event, would change. Nothing is changed.

What lives here: the two commands, their options and exit codes. What must not: finding out (another module does).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.terminal import (
    DEFAULT_CONFIG,
    EXIT_CONFIG,
    EXIT_NO,
    ConfigOption,
    DeviceArgument,
    Output,
    OutputOption,
    SocketOption,
    declared,
    end,
    print_json,
    print_lines,
)

EVENTS = ("passed", "failed", "rejected", "requested", "lapsed", "held", "released", "hinted", "retired")
"""What can be asked about: the words of the rehearsal, which no other command has to wait for."""

EXIT_FINDINGS = 4  # the book would be refused


def plan(
    new_book: Annotated[Path, typer.Argument(metavar="NEW_BOOK", help="The book to rehearse.")],
    config: ConfigOption = DEFAULT_CONFIG,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="BOOK", help="Compare with this book, not with what runs.")
    ] = None,
    replayed: Annotated[
        str | None,
        typer.Option("--replay", metavar="TIME", help="Also run the journal of the last 12h, 7d … through it."),
    ] = None,
    socket: SocketOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Devices named for each change.")] = 10,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show what another book would change, and for whom. Nothing is changed.

    Devices' states come from the journal, which may be in use; from the running service where the journal may not
    be read, or --socket is given. Without any, every device is taken as unknown.

    Exit code 0: no access changes; 1: some does, now or when a device attests; 2: unusable; 3: no service answers;
    4: the book would be refused (somebody would be locked out, or it contradicts the inventory).
    """
    with declared():
        from gateway.cli.rehearsal import make_plan  # noqa: PLC0415
        from gateway.cli.rehearsed import plain_plan, plan_lines  # noqa: PLC0415

        found = make_plan(new_book, config, against, replayed, socket)
    head = (found.before, found.after, found.states, found.strays)
    if output is Output.JSON:
        print_json(plain_plan(head, found.comparison, found.differences))
    else:
        print_lines(plan_lines(head, found.comparison, found.differences, limit))
    if any(finding.severity == "error" for finding in found.comparison.findings):
        raise typer.Exit(EXIT_FINDINGS)
    raise typer.Exit(EXIT_NO if found.comparison.count() else 0)


def what_if(
    device: DeviceArgument,
    event: Annotated[str, typer.Argument(metavar="EVENT", help=f"One of {', '.join(EVENTS)}.")],
    config: ConfigOption = DEFAULT_CONFIG,
    book: Annotated[Path | None, typer.Option("--book", metavar="BOOK", help="Under this book instead.")] = None,
    socket: SocketOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show what one event would do to a device, and why. Nothing is changed.

    Exit code 0: answered; 1: the inventory does not list the device; 2: wrong usage or configuration; 3: no service
    answers.
    """
    if event not in EVENTS:
        end(f"event {event[:64]!r} must be one of {', '.join(EVENTS)}", EXIT_CONFIG)
    with declared():
        from gateway.cli.rehearsal import suppose  # noqa: PLC0415
        from gateway.cli.rehearsed import hypothesis_lines, plain_hypothesis  # noqa: PLC0415

        found = suppose(device, event, config, book, socket)
    if found is None:
        end(f"device {device!r} is not in the inventory", EXIT_NO)
    if output is Output.JSON:
        print_json(plain_hypothesis(event, found.book, found.states, found.hypothesis))
    else:
        print_lines(hypothesis_lines(event, found.book, found.states, found.hypothesis))
