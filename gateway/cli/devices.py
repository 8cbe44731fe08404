"""``ragate devices``: questions and acts about devices of the running service, and importing an inventory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.terminal import (
    DEFAULT_CONFIG,
    EXIT_CONFIG,
    EXIT_NO,
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
from gateway.cli.terminal import end as fail
from gateway.console import text
from gateway.console.client import Client
from gateway.core.errors import ConfigError

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


@devices_app.command()
def override(
    device: DeviceArgument,
    reason: ReasonOption,
    profile: Annotated[str | None, typer.Argument(metavar="[PROFILE]", help="One of the book's profiles.")] = None,
    lasting: Annotated[str | None, typer.Option("--for", metavar="TIME", help="How long: 30m, 2h, 1d …")] = None,
    end: Annotated[bool, typer.Option("--end", help="End the device's override before its time.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    socket: SocketOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Give a device another profile than the book does, for some time, or end that.

    It changes what the device gets when it is trusted, and is the most that it gets when it is suspect. It gives
    nobody trust: a device that has failed, has lapsed or is held stays cut.
    """
    if end is (profile is not None) or end is (lasting is not None):
        fail("give PROFILE and --for, such as: maintenance --for 2h; or --end alone", EXIT_CONFIG)
    with declared():
        service = client(config, socket)
        if profile is None or lasting is None:
            done = service.act(device, "end-override", reason)
        else:
            done = service.override(device, profile, _seconds(lasting), reason)
    if output is Output.JSON:
        print_json(done)
    else:
        typer.echo(text.clean(f"{done['device']}: {done['before']} → {done['after']}: {done['why']}"))


def _seconds(lasting: str) -> float:
    from gateway.config.parsing import parse_duration  # noqa: PLC0415

    try:
        return parse_duration(lasting)
    except ValueError as error:
        raise ConfigError("--for", str(error)) from error


@devices_app.command()
def attest(
    device: DeviceArgument,
    reason: ReasonOption,
    config: ConfigOption = DEFAULT_CONFIG,
    socket: SocketOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Have a device attest again: its verifier asks it at the next opportunity.

    A trusted device then has the source's grace (5 minutes) to pass, if its deadline is not nearer. Exit code 1
    also when the verifier could not be asked; within its budget a request may wait, which is an answer.
    """
    with declared():
        done = client(config, socket).attest(device, reason)
    if output is Output.JSON:
        print_json(done)
    else:
        for each in done["asked"]:
            typer.echo(text.clean(f"{done['device']}: {each['source']}: {each['state']}: {each['detail']}"))
    if all(each["state"] == "failed" for each in done["asked"]):
        raise typer.Exit(EXIT_NO)


def about(
    device: str,
    config: Path,
    socket: Path | None,
    output: Output,
    tell: Callable[[Mapping[str, Any], float], Iterable[str]],
    ask: Callable[[Client, str], Mapping[str, Any]] = Client.device,
) -> Mapping[str, Any]:
    """Ask about one device, print the answer as ``tell`` puts it, and return it."""
    with declared():
        found = ask(client(config, socket), device)
    if output is Output.JSON:
        print_json(found)
    else:
        print_lines(tell(found, time.time()))
    return found


def _act(verb: str, device: str, reason: str, config: Path, socket: Path | None, output: Output) -> None:
    with declared():
        done = client(config, socket).act(device, verb, reason)
    if output is Output.JSON:
        print_json(done)
    else:
        typer.echo(text.clean(f"{done['device']}: {done['before']} → {done['after']}: {done['why']}"))


@devices_app.command("import")
def import_devices(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="SEDIMENT's SQLite database, a .csv table, or a YAML inventory.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    source: Annotated[
        str | None,
        typer.Option(
            "--source", metavar="NAME", help="The source of a database's or a table's devices, if several."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change and write nothing.")] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Drop devices that FILE does not list. From an inventory: let known devices change. From a "
            "database: drop only those of its source, and move known devices here from another.",
        ),
    ] = False,
    rebind: Annotated[
        bool,
        typer.Option(
            "--rebind",
            help="From a database: replace addresses and anchor of known devices where the verifier saw another "
            "address; the anchor is then none.",
        ),
    ] = False,
    unseen: Annotated[
        bool,
        typer.Option("--unseen", help="From a database: take over rows, too, that have never attested."),
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out devices of FILE that cannot be taken over.")
    ] = False,
) -> None:
    """Take devices and keys of FILE into the inventory, showing the difference first.

    Without options new devices are added, and known ones get the keys that a database has now; their addresses,
    anchor and labels stay. What is written has been loaded before, in a dry run as well.
    """
    with declared():
        from gateway.cli.importing import Wishes, import_inventory  # noqa: PLC0415

        import_inventory(file, config, Wishes(source, dry_run, overwrite, partial, rebind, unseen))


@devices_app.command()
def learn(
    config: ConfigOption = DEFAULT_CONFIG,
    socket: SocketOption = None,
    write: Annotated[
        Path | None,
        typer.Option("--write", metavar="FILE", help="Write an inventory with these addresses, to be looked at."),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Propose bindings: where verifiers see devices that the inventory binds elsewhere. Nothing is admitted by it.

    An address is where the evidence came from, which a neighbour or a NAT can stand between. With --write the known
    addresses stay and the seen one is added, with anchor none: look at each, set its anchor, and take it over with
    ragate devices import FILE --overwrite.
    """
    with declared():
        from gateway.cli.learning import learn as run  # noqa: PLC0415

        run(config, socket, write, as_json=output is Output.JSON)


@devices_app.command()
def seal(
    config: ConfigOption = DEFAULT_CONFIG,
    new_key: Annotated[
        Path | None,
        typer.Option("--new-key", metavar="FILE", help="Seal with this key; name it in --config afterwards."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be written and write nothing.")
    ] = False,
) -> None:
    """Seal the devices' HMAC keys with the key that `sealing` in --config names, and change the inventory to match.

    All keys, also those with a file of their own, come into one sealed file. Sealing again takes a new nonce.
    """
    with declared():
        from gateway.cli.sealing import seal_keys  # noqa: PLC0415

        seal_keys(config, new_key, dry_run=dry_run)


@devices_app.command("make-key")
def make_key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to put it; it must not exist.")],
) -> None:
    """Make a key to seal device keys with, readable by its owner alone. Keep a copy elsewhere: nothing else opens
    them."""
    with declared():
        from gateway.cli.sealing import make_key as run  # noqa: PLC0415

        run(file)
