"""``ragate certs``: the site's certificate authority, and certificates of gateway, agents, relying parties,
operators."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.terminal import EXIT_NO, Output, OutputOption, declared, paint, print_json, print_lines
from gateway.console import text
from gateway.core.errors import ConfigError

if TYPE_CHECKING:
    from gateway.certs.folder import Folder, Issued
    from gateway.certs.identity import Role

DEFAULT_FOLDER = Path("certs")
REQUEST_BYTES = 65_536

certs_app = typer.Typer(
    help="Certificates of the site's own links: authority, issue, renew, revoke.", no_args_is_help=True
)

FolderOption = Annotated[
    Path,
    typer.Option("--folder", metavar="FOLDER", envvar="RAGATE_CERTS", help="Where authority and certificates lie."),
]
RoleArgument = Annotated[str, typer.Argument(metavar="ROLE", help="gateway, agent, relying-party or operator.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The holder, as the configuration names it.")]
HostOption = Annotated[
    list[str] | None,
    typer.Option("--host", metavar="HOST", help="Address or name under which a gateway is reached; repeat it."),
]
DaysOption = Annotated[int, typer.Option("--days", help="How long the certificate lasts, 1 to 398 days.")]


@certs_app.command()
def init(
    site: Annotated[str, typer.Argument(metavar="SITE", help="Name of the site, for people.")],
    folder: FolderOption = DEFAULT_FOLDER,
) -> None:
    """Make the site's authority. Keep its key (ca.key) on one host only, best on none that devices can reach."""
    with declared():
        opened = _open(folder)
        opened.init(site, time.time())
        typer.echo(f"{opened.authority}: the authority of site {site}; every host of the site gets a copy of it")
        typer.echo(f"{folder / 'ca.key'}: its private key; it stays here")
        typer.echo(f"{opened.revocations}: the revocation list; copy it to every host again after each revocation")


@certs_app.command()
def issue(
    role: RoleArgument,
    name: NameArgument,
    host: HostOption = None,
    days: DaysOption = 90,
    folder: FolderOption = DEFAULT_FOLDER,
) -> None:
    """Make a key and a certificate."""
    with declared():
        opened = _open(folder)
        _told(opened, opened.issue(_made(role, host), name, host or [], time.time(), days))


@certs_app.command()
def request(
    name: NameArgument,
    folder: FolderOption = DEFAULT_FOLDER,
) -> None:
    """Make a key on this host and the request that the authority's host signs: the key never travels."""
    with declared():
        from gateway.certs.authority import make_request  # noqa: PLC0415
        from gateway.certs.folder import PRIVATE, PUBLIC, write_whole  # noqa: PLC0415

        made, key = make_request(name)
        key_file, request_file = folder / f"{name}.key", folder / f"{name}.csr"
        if key_file.exists():
            raise ConfigError(str(key_file), "exists already", "remove it if it is not in use")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(key_file, key, PRIVATE)
        write_whole(request_file, made, PUBLIC)
        typer.echo(f"{request_file}: take it to the authority's host: ragate certs sign ROLE {name} {name}.csr")


@certs_app.command()
def sign(
    role: RoleArgument,
    name: NameArgument,
    file: Annotated[Path, typer.Argument(metavar="REQUEST", help="The request, as ragate certs request made it.")],
    host: HostOption = None,
    days: DaysOption = 90,
    folder: FolderOption = DEFAULT_FOLDER,
) -> None:
    """Make the certificate for a request; nothing but its key is taken from it."""
    with declared():
        opened = _open(folder)
        try:
            with file.open("rb") as read:
                asked = read.read(REQUEST_BYTES)
        except OSError as error:
            raise ConfigError(str(file), f"cannot be read: {error.strerror}", "check the path") from error
        _told(opened, opened.sign(asked, _made(role, host), name, host or [], time.time(), days))


@certs_app.command()
def renew(
    everything: Annotated[bool, typer.Option("--all", help="Also what is not due.")] = False,
    folder: FolderOption = DEFAULT_FOLDER,
) -> None:
    """Make anew what is in the last third of its life. The old ones stay good until their end."""
    with declared():
        opened = _open(folder)
        made = opened.renew(time.time(), everything=everything)
        for one in made:
            _told(opened, one)
        if not made:
            typer.echo("nothing is due")
        for one in opened.register():
            if one.requested and not one.revoked and one.due(time.time()) and one.not_after > time.time():
                typer.echo(f"{one.role.value} {one.name}: its host made the key: send a new request from there")


@certs_app.command()
def revoke(role: RoleArgument, name: NameArgument, folder: FolderOption = DEFAULT_FOLDER) -> None:
    """Revoke every certificate of a holder, and write the revocation list anew."""
    with declared():
        opened = _open(folder)
        for one in opened.revoke(_role(role), name, time.time()):
            typer.echo(f"revoked: {one.role.value} {one.name}, serial {one.serial:x}")
        typer.echo(f"copy {opened.revocations} to every host; a running service takes it by itself")


@certs_app.command("list")
def list_(folder: FolderOption = DEFAULT_FOLDER, output: OutputOption = Output.TEXT) -> None:
    """What was issued, until when, and what is revoked. Exit code 1 when something is due or has expired."""
    with declared():
        now = time.time()
        rows = [_row(one, now) for one in _newest(_open(folder).register())]
        if output is Output.JSON:
            print_json(rows)
        else:
            shown = ((row["role"], row["name"], row["state"], row["until"], row["serial"]) for row in rows)
            print_lines(text.table(("ROLE", "NAME", "STATE", "UNTIL", "SERIAL"), shown, paint()))
    raise typer.Exit(EXIT_NO if any(row["state"] in ("due", "expired") for row in rows) else 0)


def _open(folder: Path) -> Folder:
    from gateway.certs.folder import Folder  # noqa: PLC0415

    return Folder(folder)


def _role(word: str) -> Role:
    from gateway.certs.identity import Role  # noqa: PLC0415

    known = [role.value for role in Role]
    if word not in known:
        raise ConfigError(f"role {word[:64]!r}", "is not known", f"use one of: {', '.join(known)}")
    return Role(word)


def _made(word: str, hosts: list[str] | None) -> Role:
    """The role of a certificate to be made. A gateway without a host could be reached by no agent."""
    role = _role(word)
    if role.value == "gateway" and not hosts:
        raise ConfigError("a gateway", "needs --host", "name the address under which agents reach it")
    return role


def _told(folder: Folder, one: Issued) -> None:
    until = datetime.fromtimestamp(one.not_after, UTC).date().isoformat()
    typer.echo(f"{folder.certificate(one.role, one.name)}: {one.role.value} {one.name}, until {until}")


def _newest(issued: Iterable[Issued]) -> list[Issued]:
    """The newest certificate of each holder, and every revoked one."""
    newest: dict[tuple[str, str, float], Issued] = {}
    for one in issued:
        newest[one.role.value, one.name, one.revoked] = one
    return list(newest.values())


def _row(one: Issued, now: float) -> dict[str, Any]:
    state = "good"
    if one.revoked:
        state = "revoked"
    elif one.not_after <= now:
        state = "expired"
    elif one.due(now):
        state = "due"
    return {
        "role": one.role.value,
        "name": one.name,
        "state": state,
        "until": datetime.fromtimestamp(one.not_after, UTC).isoformat(timespec="seconds"),
        "serial": f"{one.serial:x}",
        "hosts": list(one.hosts),
    }
