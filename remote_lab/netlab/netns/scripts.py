"""Runs what netlab rendered for a node inside that node, in as few processes as it takes: a boot runs hundreds."""

from __future__ import annotations

import os
import subprocess

from remote_lab.netlab.netns import lab, node, runtime

_SCRIPT_SECONDS = 120.0
_DIRECTORY = "tmp"
_NO_SHEBANG = "#!/bin/bash\n"
_VTYSH = "#!/usr/bin/vtysh -f\n"
# By itself `vtysh -f` forks once for each daemon (FRR 10, vtysh/vtysh_main.c), which costs more than the configuration.
_WITHOUT_FORKS = ("vtysh", "--no-fork", "-f")
_ENVIRONMENT = node.ENVIRONMENT | {"BASH_FUNC_vtysh%%": '() { command vtysh --no-fork "$@"; }'}
"""The same for `vtysh` in shell scripts, as a function that bash takes from its environment."""


def run_script(name: str, script_name: str, text: str) -> subprocess.CompletedProcess[str]:
    """Run a rendered configuration inside its node, where it stays in /tmp.

    Args:
        name: the node.
        script_name: for the file that it is stored in.
        text: the script; without a `#!` line it is a shell script.
    Returns:
        how it ended; with status 1 and the reason when it could not be stored.
    """
    if not text.startswith("#!"):
        text = _NO_SHEBANG + text
    file = f"config-{script_name.replace('/', '_')}"
    path = f"/{_DIRECTORY}/{file}"
    command = runtime.enter_command(name, *(_WITHOUT_FORKS if text.startswith(_VTYSH) else ()), path)
    try:
        _store(lab.read_state()[name].pid, file, text)
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", f"{path} cannot be written: {error.strerror}\n")
    return subprocess.run(
        command,
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SCRIPT_SECONDS,
        check=False,
    )


def _store(pid: int, file: str, text: str) -> None:
    """Write an executable file into /tmp of a node, through no link that something in the node may have put there."""
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY)
    try:
        directory = os.open(_DIRECTORY, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
    finally:
        os.close(root)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(file, flags, 0o755, dir_fd=directory), "w") as stream:
            stream.write(text)
            os.fchmod(stream.fileno(), 0o755)
    finally:
        os.close(directory)
