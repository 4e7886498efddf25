"""Runs what netlab rendered for a node inside that node, in as few processes as it takes: a boot runs hundreds."""

from __future__ import annotations

import os
import subprocess

from remote_lab.netlab.netns import lab, node, runtime

_SCRIPT_SECONDS = 120.0
_DIRECTORY = "tmp"
_SHELL = ["/bin/bash"]
_VTYSH = ["/usr/bin/vtysh", "-f"]
# By itself `vtysh -f` forks once for each daemon (FRR 10, vtysh/vtysh_main.c), which costs more than the configuration.
_VTYSH_WITHOUT_FORKS = ["/usr/bin/vtysh", "--no-fork", "-f"]
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
    file = f"config-{script_name.replace('/', '_')}"
    path = f"/{_DIRECTORY}/{file}"
    # Not executed itself: what netlab's other threads start meanwhile has it open, and it would be busy (ETXTBSY).
    command = runtime.enter_command(name, *_interpreter(text), path)
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


def _interpreter(text: str) -> list[str]:
    """Return what the kernel makes of a script's first line (execve(2)): an interpreter and one argument at most."""
    first_line = text.partition("\n")[0]
    found = first_line.removeprefix("#!").split(maxsplit=1) if first_line.startswith("#!") else []
    found = [word.strip() for word in found] or _SHELL
    return _VTYSH_WITHOUT_FORKS if found == _VTYSH else found


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
