"""Runs the tools of the image."""

from __future__ import annotations

import subprocess

TOOL_SECONDS = 30


def output(*command: str, stdin: str | None = None) -> str:
    """Return what a command prints.

    Raises:
        OSError: it failed; the message has its own words.
    """
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False)
    if result.returncode:
        raise OSError(f"{command[0]}: {result.stderr.strip()}")
    return result.stdout
