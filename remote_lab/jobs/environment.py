"""What the environment says to these commands: REMOTE_LAB_* variables, and those of a `.env` in the current folder."""

from __future__ import annotations

import os
from pathlib import Path

import click
from dotenv import dotenv_values

PREFIX = "REMOTE_LAB_"


def read_dotenv() -> None:
    """Put the REMOTE_LAB_* variables of `.env` into the environment; those that are there, also empty ones, win.

    The server reads its `.env` by the same rule. What else the file has is none of ours.
    """
    if Path(".env").is_file():
        for name, value in dotenv_values(".env").items():
            if name.startswith(PREFIX) and value is not None:
                os.environ.setdefault(name, value)


def server_url(option: str | None) -> str | None:
    """The address of the lab host: the option, else REMOTE_LAB_URL; None without either.

    Raises click.BadParameter for what is no http address.
    """
    url = (option or os.environ.get("REMOTE_LAB_URL", "")).strip()
    if not url:
        return None
    if not url.startswith(("http://", "https://")):
        source = "--url" if option else "REMOTE_LAB_URL"
        raise click.BadParameter(f"{source} is {url!r}, expected an address such as http://lab-host:8000.")
    return url
