"""``python -m gateway`` and the ``ragate`` command."""

from __future__ import annotations

from gateway.cli.commands import app


def main() -> None:
    """Run the command line; ends the process with its exit code."""
    app(prog_name="ragate")


if __name__ == "__main__":
    main()
