"""``python -m gateway.simulate``: the roles of a simulated site, one process each, as compose/ runs them.

What lives here: the command line. What must not: what the roles do.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.certs.folder import (  # type: ignore[attr-defined] # ConfigError: what the folder declares to raise
    ConfigError,
)
from gateway.simulate import plan
from gateway.simulate.hosts import set_addresses, set_default_routes
from gateway.simulate.inquiry import InquiryError, ask
from gateway.simulate.prepare import PARTIES, prepare
from gateway.simulate.roles import STATES, play

CONTROL = Path("/run/site/control.sock")
"""Where a role answers questions, unless told otherwise."""


def parser() -> argparse.ArgumentParser:
    """The command line; parsing ends the process with code 2 for what it does not know."""
    what = "The parties of a simulated site, one process each, as compose/ runs them."
    made = argparse.ArgumentParser(prog="python -m gateway.simulate", description=what)
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, what: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=what, allow_abbrev=False)

    ready = command("prepare", "write keys, certificates and settings of everybody; repeatable")
    ready.add_argument("--into", type=Path, required=True, help="folder with a folder (a volume) for each party")
    ready.add_argument("--readers", type=int, help="id of the group that the simulated parties run as")
    host = command("host", "give this network namespace a host's addresses and routes, and end")
    host.add_argument("role", choices=PARTIES)
    host.add_argument("--link", default="eth0", help="its one link to the site (default: eth0)")
    for name, what in zip(PARTIES, ("attest devices", "be every device", "take data"), strict=True):
        role = command(name, f"{what} until told to end")
        role.add_argument("--files", type=Path, required=True, help="the folder that prepare filled for it")
        role.add_argument("--control", type=Path, default=CONTROL, help="socket on which it answers")
    show = command("show", "what the role of this container has seen, as JSON")
    tell = command("tell", "make a device genuine again, tampered with, or silent")
    tell.add_argument("device", choices=[each.id for each in plan.DEVICES])
    tell.add_argument("state", choices=STATES)
    for each in (show, tell):
        each.add_argument("--control", type=Path, default=CONTROL, help="socket of the role")
    return made


def main(argv: Sequence[str]) -> int:
    """Run one command; its exit code: 0, or 1 with one sentence of why not."""
    given = parser().parse_args(argv)
    try:
        if given.command == "prepare":
            prepare(given.into, given.readers)
        elif given.command == "host":
            addresses, gateways = plan.host_of(given.role)
            set_addresses(given.link, addresses)
            set_default_routes(given.link, gateways)
        elif given.command in PARTIES:
            play(given.command, given.files, given.control)
        else:
            words = ["show"] if given.command == "show" else ["tell", given.device, given.state]
            print(json.dumps(ask(given.control, words), indent=1))
    except (OSError, ValueError, InquiryError, ConfigError) as error:
        print(f"{given.command}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
