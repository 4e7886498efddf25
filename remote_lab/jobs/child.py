"""The command of `remote-lab run`: a process group of its own, on the terminal where there is one, as shells do it.

Nothing of labs is known here.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
import time
from collections.abc import Callable, Mapping

from remote_lab.jobs.signals import Signals

GRACE_SECONDS = 10.0
"""Between asking a command to end and killing it."""

PAUSE_SECONDS = 0.05
"""Between two looks at what is left of a process group: nothing tells when its last process ends."""


class Child:
    """A started command.

    It leads a process group of its own, so that a signal can be sent to all that it started; and where this process
    is in the foreground of a terminal, the terminal is given to that group, so that Ctrl-C and Ctrl-Z are the
    command's alone and an interactive shell has its job control.

    Raises FileNotFoundError or PermissionError when it cannot be started.
    """

    def __init__(self, argv: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._terminal = Terminal()
        try:
            self.pid = os.posix_spawnp(
                argv[0],
                argv,
                environment,
                setpgroup=0,
                # What Python ignores for itself.
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except BaseException:
            self._terminal.close()
            raise
        self.status: int | None = None
        """Its exit status as shells count it, 128 + n after signal n; None while it runs."""
        # With its input or output redirected it may be one of a pipeline whose others read the terminal; it gets the
        # terminal when it asks for it.
        if sys.stdin is not None and sys.stdout is not None and sys.stdin.isatty() and sys.stdout.isatty():
            self._terminal.give(self.pid)

    def look(self) -> bool:
        """Follow what has become of it, without waiting; tell whether it has ended."""
        while self.status is None:
            pid, what = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                break
            if os.WIFSTOPPED(what):
                self._stopped(os.WSTOPSIG(what))
            else:
                code = os.waitstatus_to_exitcode(what)
                self.status = code if code >= 0 else 128 - code
                self._terminal.take(restore=code < 0)
                self._terminal.close()
        return self.status is not None

    def send(self, signum: signal.Signals) -> None:
        """Send a signal to the whole process group, also to what is left of it when the command itself has ended."""
        try:
            os.killpg(self.pid, signum)
        except (ProcessLookupError, PermissionError):
            return  # all gone, or all of another user by now (setuid)

    def end(self, signals: Signals, first: signal.Signals) -> None:
        """Ask its group to end, wait for that `GRACE_SECONDS`, kill what is left; the command has ended on return."""
        deadline = time.monotonic() + GRACE_SECONDS
        self.send(first)
        if self._terminal.given and first != signal.SIGHUP:
            # An interactive shell ignores SIGTERM; this is what it hears when its terminal goes.
            self.send(signal.SIGHUP)
        self.send(signal.SIGCONT)
        while not self.look() and time.monotonic() < deadline:
            signals.wait(deadline - time.monotonic())
        while self._has_group() and time.monotonic() < deadline:
            time.sleep(PAUSE_SECONDS)
        self.send(signal.SIGKILL)
        while not self.look():
            signals.wait()

    def _has_group(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _stopped(self, signum: int) -> None:
        """Give it the terminal it stopped for, or stop as well and go on together."""
        if signum in (signal.SIGTTIN, signal.SIGTTOU) and self._terminal.give(self.pid):
            self.send(signal.SIGCONT)
            return
        had_terminal = self._terminal.given
        self._terminal.take()
        # As the terminal would have done it to one process group; returns when somebody continues us. Where nobody
        # could (an orphaned process group), the kernel ignores it.
        os.killpg(0, signal.SIGTSTP)
        if had_terminal:
            self._terminal.give(self.pid)
        self.send(signal.SIGCONT)


class Terminal:
    """The controlling terminal, if there is one, and whose foreground it is."""

    def __init__(self) -> None:
        self.given = False
        """It was given to the command."""
        self._settings: list[object] = []
        try:
            self._fd = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            self._fd = -1
            return
        self._settings = termios.tcgetattr(self._fd)

    def give(self, group: int) -> bool:
        """Make a process group the foreground, if it is ours to give; tell whether it is the foreground now."""
        if self._fd < 0 or self._foreground() not in (os.getpgrp(), group):
            return False
        self.given = _worked(lambda: self._set_foreground(group))
        return self.given

    def take(self, *, restore: bool = False) -> None:
        """Make our process group the foreground again; `restore` undoes what a killed command did to the settings."""
        if self.given:
            self.given = False
            _worked(lambda: self._set_foreground(os.getpgrp()))
            if restore:
                _worked(self._restore)

    def close(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _foreground(self) -> int | None:
        try:
            return os.tcgetpgrp(self._fd)
        except OSError:
            return None

    def _set_foreground(self, group: int) -> None:
        # tcsetpgrp(3) out of the background stops its caller with SIGTTOU, unless that is blocked.
        old = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
        try:
            os.tcsetpgrp(self._fd, group)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)

    def _restore(self) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._settings)  # type: ignore[arg-type]  # as tcgetattr gave it


def _worked(action: Callable[[], None]) -> bool:
    """Tell whether something could be done with a terminal that may be gone by now."""
    try:
        action()
    except (OSError, termios.error):
        return False
    return True
