"""Run one command in a pod, as its root, under the same limits as its PID 1; run on the host, in a process of its own.

    python -I -S enter.py PID GROUPS COMMAND [ARGUMENT...]

PID is the pod's PID 1 as the host numbers it, GROUPS the files through which its control groups are joined, separated
by colons, or empty. The environment goes to the command as it is.

Procedure, with P this process and C its child:
1. P closes every file but standard input, output and error, joins the control groups and then the namespaces, takes the
   limits of PID 1, and gives up the privileges that nothing in a pod has.
2. P forks C, which is in the pod's pid namespace; C executes the command.
3. P waits and ends as C did. When P is killed, C is. An interrupt of the terminal is left to C, which gets it as well.

It is run for every call of netlab, so it imports next to nothing: no signal, no typing, no pathlib.
"""

from __future__ import annotations

import os
import select
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.abspath(f"{__file__}/../../../.."))  # noqa: PTH100 - Path is not loaded yet

from remote_lab.netlab.netns import kernel, privileges, seccomp

TYPE_CHECKING = False  # that of typing costs more than all else that is imported here
if TYPE_CHECKING:
    from typing import NoReturn

_NAMESPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWCGROUP
)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_SIGKILL = 9
_DIRECTORY = "/lab"
_FAILED = 125
"""Exit status when the command was not run; the one that env(1) and others have for it."""


def main() -> NoReturn:
    pid, groups, *command = sys.argv[1:]
    parent = os.getppid()
    try:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        _enter(int(pid), [group for group in groups.split(":") if group])
        kernel.process_control(_PR_SET_PDEATHSIG, _SIGKILL)
        if os.getppid() != parent:
            os._exit(_FAILED)
        child = _fork_command(command)
    except (OSError, ValueError, seccomp.FilterUnavailable) as error:
        _fail(error)
    _wait(child)


def _fork_command(command: list[str]) -> int:
    alive_read, alive_write = os.pipe()
    child = os.fork()
    if child:
        os.close(alive_read)
        return child
    try:
        os.close(alive_write)
        kernel.process_control(_PR_SET_PDEATHSIG, _SIGKILL)
        # A parent of another pid namespace has no number here, so whether it died before that line is seen by its pipe.
        if select.select([alive_read], [], [], 0)[0]:
            os._exit(_FAILED)
        os.chdir(_DIRECTORY)
        os.execve(command[0], command, os.environ)  # noqa: S606
    except OSError as error:
        _fail(error)


def _enter(pid: int, groups: list[str]) -> None:
    pidfd = os.pidfd_open(pid)
    for group in groups:
        _join_control_group(group)
    # Nobody in the pod may look into this process before it has become the command (ptrace(2)).
    kernel.process_control(_PR_SET_DUMPABLE, 0)
    kernel.join_namespaces(pidfd, _NAMESPACES)
    os.close(pidfd)
    # Now that this process has all capabilities over PID 1, which not even root has in every container.
    privileges.copy_limits(pid)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    privileges.confine_to_pod()


def _join_control_group(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, b"0")
    finally:
        os.close(descriptor)


def _fail(error: Exception) -> NoReturn:
    os.write(2, f"the sandbox cannot be entered: {error}\n".encode())
    os._exit(_FAILED)


def _wait(child: int) -> NoReturn:
    while True:
        try:
            _, status = os.waitpid(child, 0)
            break
        except KeyboardInterrupt:
            continue
    if os.WIFSIGNALED(status):
        os._exit(128 + os.WTERMSIG(status))  # as shells have it
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main()
