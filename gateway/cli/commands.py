"""The commands that run, check and remove the service, and ``explain``."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from gateway import __version__
from gateway.cli.certs import certs_app
from gateway.cli.devices import about, devices_app
from gateway.cli.doctor import doctor
from gateway.cli.policy import policy_app
from gateway.cli.rehearsing import plan, what_if
from gateway.cli.reloading import reload_book
from gateway.cli.terminal import (
    DEFAULT_CONFIG,
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
from gateway.console import text
from gateway.console.client import Client, NotRunning
from gateway.core.errors import ConfigError

if TYPE_CHECKING:
    from gateway.config import Config

app = typer.Typer(
    name="ragate",
    help="Remote-attestation gateway: a device that fails attestation loses its network path.\n" + EXITS,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(devices_app, name="devices")
app.add_typer(policy_app, name="policy")
app.add_typer(certs_app, name="certs")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ragate {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version_asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Options of all commands."""


def _load(config: Path) -> Config:
    from gateway.config import load  # noqa: PLC0415

    return load(config)


def _check_socket(number: int) -> None:
    try:
        mode = os.fstat(number).st_mode
    except OSError:
        mode = 0
    if not stat.S_ISSOCK(mode):
        raise ConfigError("--listen-fd", f"{number} is no socket", "hand in a listening one, open across exec")


@app.command()
def serve(
    config: ConfigOption = DEFAULT_CONFIG,
    listen_fd: Annotated[
        int | None, typer.Option("--listen-fd", min=3, help="A listening socket for the console, handed in.")
    ] = None,
) -> None:
    """Run the service in the foreground until SIGTERM or Ctrl-C; enforcement stays, with its leases."""
    with declared():
        if listen_fd is not None:
            _check_socket(listen_fd)
        loaded = _load(config)
        from gateway.app.serve import serve as run_service  # noqa: PLC0415

        code = run_service(loaded, console_fd=listen_fd)
    raise typer.Exit(code)


@app.command()
def agent(
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE", envvar="RAGATE_AGENT", help="The agent's agent.yaml.")
    ] = Path("agent.yaml"),
) -> None:
    """Enforce on this host what the gateway tells it, in the foreground until SIGTERM or Ctrl-C."""
    with declared():
        from gateway.config import load_agent  # noqa: PLC0415

        loaded = load_agent(config)
        from gateway.app.agent import run_agent  # noqa: PLC0415

        code = run_agent(loaded)
    raise typer.Exit(code)


@app.command()
def run(
    once: Annotated[bool, typer.Option("--once", help="End after the story; 1 if a step did not happen.")] = False,
) -> None:
    """Show the whole on a simulated site: devices attest, one fails and is cut off, recovers, one goes silent."""
    with declared():
        from gateway.app.site import run_site  # noqa: PLC0415

        code = run_site(once=once)
    raise typer.Exit(code)


@app.command()
def check(
    config: ConfigOption = DEFAULT_CONFIG,
    socket: SocketOption = None,
    output: OutputOption = Output.TEXT,
    journal: Annotated[
        bool, typer.Option("--journal", help="Recompute the journal's whole digest chain too: 10 s a gigabyte.")
    ] = False,
    path: Annotated[
        bool, typer.Option("--path", help="Look for ways around the path gate, as seen from this very host.")
    ] = False,
) -> None:
    """Check configuration, inventory and book, and ask a running service whether it is ready.

    Exit code 0: usable, warnings or not; 1: a finding is an error, or the service is not ready; 2: unusable.
    """
    with declared():
        from gateway.config import find_findings  # noqa: PLC0415

        if _is_agents(config):
            _check_agent(config, output)
        loaded = _load(config)
        listed = [finding._asdict() for finding in find_findings(loaded)]
        if journal:
            listed += _chain_findings(loaded.journal)
        if path:
            listed += _path_findings(loaded)
        ready, silent = _readiness(config, socket)
    bad = any(each["severity"] == "error" for each in listed) or (ready is not None and not ready["ready"])
    if output is Output.JSON:
        print_json({"findings": listed, "service": ready})
    else:
        _print_check(config, listed, ready, silent)
    raise typer.Exit(EXIT_NO if bad else 0)


def _is_agents(config: Path) -> bool:
    """Whether the file is an agent's and not the gateway's."""
    from gateway.config import is_agent_file  # noqa: PLC0415

    return is_agent_file(config)


def _check_agent(config: Path, output: Output) -> NoReturn:
    """``check`` for a host with an agent. Exit code 0, 1 or 2, likewise."""
    from gateway.app.agent import agent_state, plan_file  # noqa: PLC0415
    from gateway.config import agent_findings, load_agent  # noqa: PLC0415

    loaded = load_agent(config)
    listed = [finding._asdict() for finding in agent_findings(loaded, plan_file(loaded))]
    state, silent = agent_state(loaded)
    if output is Output.JSON:
        print_json({"findings": listed, "service": state})
    else:
        _print_check(config, listed, state, silent)
    bad = any(each["severity"] == "error" for each in listed) or (state is not None and not state["ready"])
    raise typer.Exit(EXIT_NO if bad else 0)


def _chain_findings(path: Path) -> list[dict[str, str]]:
    """What recomputing the journal's digests finds; a journal that was never written is as it should be."""
    import asyncio  # noqa: PLC0415 - a third of the time that most commands take to start

    from gateway.journal import SqliteHistory  # noqa: PLC0415

    async def verify() -> Sequence[str]:
        history = SqliteHistory(path)
        try:
            return await history.verify_chain()
        finally:
            history.close()

    if not path.exists():
        return []
    mend = "put back a copy, and ask who could write the file"
    return [
        {"severity": "error", "subject": f"journal {path}", "what": sentence, "mend": mend}
        for sentence in asyncio.run(verify())
    ]


def _path_findings(loaded: Config) -> list[dict[str, str]]:
    """What leads around the path gate of the network namespace that this command runs in."""
    from gateway.app.parts.gates import bypass_addresses  # noqa: PLC0415
    from gateway.watch.bypass import look  # noqa: PLC0415

    if loaded.target.path_gate != "nft":
        return []
    found = look(*bypass_addresses(loaded))
    return [
        {
            "severity": "error",
            "subject": f"target {loaded.target.name}",
            "what": f"bypass: {each.what}",
            "mend": each.mend,
        }
        for each in found
    ]


def _readiness(config: Path, socket: Path | None) -> tuple[dict[str, Any] | None, str]:
    """What a running service says of itself; ``None`` and why when none answers."""
    try:
        return client(config, socket).ready(), ""
    except NotRunning as error:
        return None, str(error)


def _print_check(
    config: Path, findings: Sequence[Mapping[str, str]], ready: Mapping[str, Any] | None, silent: str
) -> None:
    for each in findings:
        mend = f"; {each['mend']}" if each["mend"] else ""
        typer.echo(text.clean(f"{each['severity']}: {each['subject']}: {each['what']}{mend}"))
    if not findings:
        typer.echo(f"{config}: nothing to mend")
    if ready is None:
        typer.echo(f"service: {silent}")
        return
    typer.echo(f"service: {'ready' if ready['ready'] else 'not ready'}")
    rows = ((part["part"], "ready" if part["ready"] else "failed", part["detail"]) for part in ready["parts"])
    print_lines(f"  {line}" for line in text.table(("PART", "STATE", "DETAIL"), rows, paint()))


@app.command()
def baseline(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Print the nftables baseline (default deny, corridor) to load at boot, before the network comes up."""
    with declared():
        if _is_agents(config):
            from gateway.app.agent import agent_baseline_text  # noqa: PLC0415
            from gateway.config import load_agent  # noqa: PLC0415

            typer.echo(agent_baseline_text(load_agent(config)), nl=False)
        else:
            from gateway.app.baseline import baseline_text  # noqa: PLC0415

            typer.echo(baseline_text(_load(config)), nl=False)


@app.command()
def uninstall(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Remove every trace of enforcement from this host. The protected services are then open to everybody."""
    with declared():
        if _is_agents(config):
            from gateway.app.agent import agent_uninstall  # noqa: PLC0415
            from gateway.config import load_agent  # noqa: PLC0415

            print_lines(agent_uninstall(load_agent(config)))
        else:
            from gateway.app.baseline import uninstall as take_away  # noqa: PLC0415

            print_lines(take_away(_load(config)))


@app.command()
def explain(
    device: DeviceArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    socket: SocketOption = None,
    proof: Annotated[
        bool,
        typer.Option("--proof", help="Only the proof: every target reads its rules back now. Exit 1: not proven."),
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Explain one device: its verdicts and standing, each rule of the book and which were used, what it reaches,
    and what every target answers now."""
    if not proof:
        about(device, config, socket, output, text.explain, Client.explanation)
        return
    found = about(device, config, socket, output, text.proof, Client.proof)
    if not found["proven"]:
        raise typer.Exit(EXIT_NO)


app.command()(doctor)
app.command()(plan)
app.command("reload")(reload_book)
app.command("what-if")(what_if)
