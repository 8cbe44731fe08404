"""``ragate devices learn``: bindings to look at, from where verifiers see devices.

What lives here: the proposals, and the file that an operator edits and imports. What must not: changing the
inventory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import typer

from gateway.cli.importing import write_whole
from gateway.cli.terminal import EXIT_NO, client, end, print_json, print_lines
from gateway.config.document import LARGE_FILE, Problems, read_text
from gateway.config.entries import Entry, read_entries
from gateway.config.imports import inventory_text
from gateway.config.settings import read_settings
from gateway.console import text
from gateway.core.errors import ConfigError

#: The kernel's IPv4 neighbours (proc(5)): address, type, flags, hardware address, mask, interface.
NEIGHBOURS = Path("/proc/net/arp")
_COMPLETE = 0x2  # ATF_COM of linux/if_arp.h: the hardware address is known
_MODE = 0o640


def learn(config: Path, socket: Path | None, write: Path | None, *, as_json: bool) -> None:
    """Show the proposals, and write a file with them where one is named. Ends with code 1 when that file exists.

    Raises ``ConfigError`` when the inventory cannot be read or the file not written.
    """
    claims = client(config, socket).claims()
    neighbours = read_neighbours(NEIGHBOURS)
    proposals = [{**claim, "neighbour": neighbours.get(claim["address"])} for claim in claims]
    if as_json:
        print_json({"proposals": proposals})
    else:
        print_lines(map(_line, proposals))
        typer.echo(f"{len(proposals)} devices are seen where the inventory does not bind them")
    if write is not None and proposals:
        _write(read_settings(config).inventory, write, proposals)
        typer.echo(
            f"written: {write}; set the anchors, then: ragate devices import {write} --overwrite", err=as_json
        )


def _line(proposal: Mapping[str, Any]) -> str:
    seen = "once" if proposal["times"] == 1 else f"{proposal['times']} times"
    line = (
        f"{proposal['device']}: {proposal['source']} sees it at {proposal['address']}, {seen} "
        f"up to {text.instant(proposal['last'])}"
    )
    neighbour = proposal["neighbour"]
    if neighbour is not None:
        line += f"; a neighbour on {neighbour['interface']}, {neighbour['mac']}"
    return text.clean(line)


def read_neighbours(table: Path) -> dict[str, dict[str, str]]:
    """The neighbours that this host has met, by address; none where there is no such table."""
    found: dict[str, dict[str, str]] = {}
    try:
        lines = table.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return found
    for line in lines:
        fields = line.split()
        if len(fields) == 6 and int(fields[2], 16) & _COMPLETE:
            found[str(ip_address(fields[0]))] = {"interface": fields[5], "mac": fields[3]}
    return found


def _write(inventory: Path, file: Path, proposals: Sequence[Mapping[str, Any]]) -> None:
    if file.exists():
        end(f"{file} exists; nothing was written", EXIT_NO)
    if file.absolute().parent != inventory.parent:
        mend = f"write it to {inventory.parent}: its key files are named from there"
        raise ConfigError(str(file), "is not in the inventory's folder", mend)
    problems = Problems()
    written = read_entries(read_text(inventory, LARGE_FILE), inventory, problems)
    problems.settle()
    seen = {proposal["device"]: proposal["address"] for proposal in proposals}
    entries = [_bound(entry, seen[entry.id]) if entry.id in seen else entry for entry in written.entries]
    write_whole(file, inventory_text(entries, written.hmac_keys), _MODE)


def _bound(entry: Entry, address: str) -> Entry:
    """The entry with one more address. Its anchor spoke of the others alone."""
    return entry._replace(addresses=(*entry.addresses, address), anchor="none", interface="", mac="")
