"""The entry point of `remote-lab`: the command line, or a sentence when the server is not installed."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from remote_lab.cli import commands
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("remote_lab"):
            raise
        sys.exit(f"remote-lab needs its server part ({error.name} is missing): pip install 'remote-lab[server]'")
    commands(prog_name="remote-lab")


if __name__ == "__main__":
    main()
