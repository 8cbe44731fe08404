"""``ragate reload``: have the running service take the book as its files are now."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli.terminal import (
    DEFAULT_CONFIG,
    EXIT_NO,
    ConfigOption,
    Output,
    OutputOption,
    SocketOption,
    client,
    declared,
    end,
    print_json,
)
from gateway.console import text
from gateway.console.client import Client

POLL_SECONDS = 0.1
"""Between two looks at what has become of it."""

WAIT_SECONDS = 600.0
"""The trial of a book takes at most 300 s; then 100,000 devices are decided anew."""


def reload_book(
    reason: Annotated[
        str, typer.Option("--reason", "-r", help="Why; the journal keeps it, with your user name.")
    ] = "ragate reload",
    config: ConfigOption = DEFAULT_CONFIG,
    socket: SocketOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Let the running service take the policy book and its profiles as their files are now, or say why not.

    The book is tried first, for every device. A book with any mistake changes nothing: the running one stays.

    Exit code 0: taken, or nothing had changed; 1: refused, with every reason; 3: no service answers.
    """
    with declared():
        service = client(config, socket)
        last = _awaited(service, service.reload(reason))
    if output is Output.JSON:
        print_json(last)
    else:
        _print(last)
    raise typer.Exit(0 if last["result"] in ("taken", "unchanged") else EXIT_NO)


def _awaited(service: Client, number: int) -> Mapping[str, Any]:
    """How the attempt ended; one behind it, if others came so quickly."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        found = service.book()
        last = found["last"]
        if last is not None and last["number"] >= number:
            return dict(last)
        if time.monotonic() > until:
            end(f"no end after {WAIT_SECONDS:g} s: {found['doing']} {found['waiting_for']}".rstrip(), EXIT_NO)
        time.sleep(POLL_SECONDS)


def _print(last: Mapping[str, Any]) -> None:
    digest = f" {last['digest'][:12]}" if last["digest"] else ""
    stays = "; the running book stays" if last["result"] in ("refused", "failed") else ""
    typer.echo(f"book{digest} {last['result']}{stays}")
    for line in last["lines"]:
        typer.echo(text.clean(f"  {line}"))
