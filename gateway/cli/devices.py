"""``ragate devices``: questions and acts about devices of the running service, and importing an inventory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.terminal import (
    DEFAULT_CONFIG,
    EXITS,
    ConfigOption,
    DeviceArgument,
    Output,
    OutputOption,
    SocketOption,
    client,
    declared,
    paint,
    print_json,
    print_lines,
)
from gateway.console import text

devices_app = typer.Typer(
    help="Devices of the running service.\n" + EXITS, no_args_is_help=True, rich_markup_mode=None
)

ReasonOption = Annotated[
    str, typer.Option("--reason", "-r", help="Why; the journal keeps it, with your user name.")
]


@devices_app.command("list")
def list_devices(
    config: ConfigOption = DEFAULT_CONFIG,
    socket: SocketOption = None,
    standing: Annotated[str | None, typer.Option("--standing", "-s", help="Only devices of this standing.")] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List devices: standing, profile, time left, and why."""
    with declared():
        found = list(client(config, socket).devices(standing))
    if output is Output.JSON:
        print_json(found)
        return
    now = time.time()
    print_lines(text.table(text.DEVICE_HEAD, (text.device_line(each, now) for each in found), paint()))
    typer.echo(text.counts_line(found))


@devices_app.command()
def show(
    device: DeviceArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    socket: SocketOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show one device in short."""
    about(device, config, socket, output, text.show)


@devices_app.command()
def hold(
    device: DeviceArgument,
    reason: ReasonOption,
    config: ConfigOption = DEFAULT_CONFIG,
    socket: SocketOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Hold a device: it is cut off until somebody releases it, whatever its verifier says."""
    _act("hold", device, reason, config, socket, output)


@devices_app.command()
def release(
    device: DeviceArgument,
    reason: ReasonOption,
    config: ConfigOption = DEFAULT_CONFIG,
    socket: SocketOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Release a held device to what lies beneath; it must attest before it is admitted again."""
    _act("release", device, reason, config, socket, output)


def about(
    device: str,
    config: Path,
    socket: Path | None,
    output: Output,
    tell: Callable[[Mapping[str, Any], float], Iterable[str]],
) -> None:
    """Ask about one device and print the answer as ``tell`` puts it."""
    with declared():
        found = client(config, socket).device(device)
    if output is Output.JSON:
        print_json(found)
    else:
        print_lines(tell(found, time.time()))


def _act(verb: str, device: str, reason: str, config: Path, socket: Path | None, output: Output) -> None:
    with declared():
        done = client(config, socket).act(device, verb, reason)
    if output is Output.JSON:
        print_json(done)
    else:
        typer.echo(text.clean(f"{done['device']}: {done['before']} → {done['after']}: {done['why']}"))


@devices_app.command("import")
def import_devices(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="SEDIMENT's SQLite database, or a YAML inventory.")],
    config: ConfigOption = DEFAULT_CONFIG,
    source: Annotated[
        str | None, typer.Option("--source", metavar="NAME", help="The source of a database's devices, if several.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change and write nothing.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Let known devices change, or go when FILE does not list them.")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out devices of FILE that cannot be taken over.")
    ] = False,
) -> None:
    """Make the inventory and its keys what FILE lists, showing the difference first.

    Without options only new devices are added. What is written has been loaded before.
    """
    with declared():
        from gateway.cli.importing import import_inventory  # noqa: PLC0415

        import_inventory(file, config, source=source, dry_run=dry_run, overwrite=overwrite, partial=partial)
