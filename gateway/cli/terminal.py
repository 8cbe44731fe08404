"""What all commands share: options, where the service is, printing, and errors as one line and an exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from gateway.console import text
from gateway.console.client import Client, NotRunning
from gateway.core.errors import ConfigError, RagateError

EXIT_NO = 1  # the answer is no
EXIT_CONFIG = 2  # usage or configuration
EXIT_NOT_RUNNING = 3

EXITS = """
Exit codes: 0 done; 1 the answer is no (unknown device, refused, not ready, an error found); 2 wrong usage or
configuration; 3 no service answers.
"""

DEFAULT_CONFIG = Path("ragate.yaml")

_SOCKET_DEFAULT = "var/operator.sock"

_COLOURS = {
    "trusted": "green",
    "ready": "green",
    "suspect": "yellow",
    "lapsed": "yellow",
    "distrusted": "red",
    "held": "red",
    "failed": "red",
}


class Output(StrEnum):
    """How to print."""

    TEXT = "text"
    JSON = "json"


ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", envvar="RAGATE_CONFIG", help="The service's ragate.yaml.")
]
SocketOption = Annotated[
    Path | None,
    typer.Option(
        "--socket", metavar="PATH", envvar="RAGATE_SOCKET", help="Operator socket, instead of the one in --config."
    ),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to print.")]
DeviceArgument = Annotated[str, typer.Argument(metavar="DEVICE", help="Device id, as in the inventory.")]


@contextmanager
def declared() -> Iterator[None]:
    """Turn the declared errors into one line on standard error and an exit code."""
    try:
        yield
    except ConfigError as error:
        end(str(error), EXIT_CONFIG)
    except NotRunning as error:
        end(str(error), EXIT_NOT_RUNNING)
    except RagateError as error:
        end(str(error), EXIT_NO)


def end(message: str, code: int) -> NoReturn:
    """Say why on standard error and end."""
    lines = "\n".join(map(text.clean, message.split("\n")))
    typer.echo(f"ragate: {lines}", err=True)
    raise typer.Exit(code) from None


def setting(config: Path, keys: tuple[str, ...], default: str) -> Path:
    """One path setting, without loading inventory and book: asking a question must not cost a full check.

    Relative paths start at the configuration's own folder. Raises ``ConfigError`` when the file cannot be read.
    """
    import yaml  # noqa: PLC0415

    try:
        # Every scalar as the text that stands there, as the configuration itself reads it.
        found = yaml.load(config.read_text(encoding="utf-8"), Loader=yaml.CBaseLoader)  # noqa: S506 - makes text only
    except OSError as error:
        raise ConfigError(
            str(config),
            error.strerror or "cannot be read",
            "name it with --config FILE, or a socket with --socket PATH",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(str(config), f"is no YAML: {error}") from error
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    if found is None:
        found = default
    if not isinstance(found, str):
        raise ConfigError(str(config), f"{'.'.join(keys)} must be a path")
    return config.parent / found


def client(config: Path, socket: Path | None) -> Client:
    """Who to ask: ``--socket`` (or RAGATE_SOCKET), else the socket that the configuration names."""
    return Client(socket or setting(config, ("operator", "socket"), _SOCKET_DEFAULT))


def print_json(value: object) -> None:
    """For machines, and still readable."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_lines(lines: Iterable[str]) -> None:
    """One after the other."""
    for line in lines:
        typer.echo(line)


def paint() -> Callable[[str], str]:
    """Colour for words that tell good from bad, at a terminal and unless NO_COLOR is set."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return str
    return lambda word: typer.style(word, fg=_COLOURS[word]) if word in _COLOURS else word
