"""The last argument of this process, by which others find it, and which it can write over (proc_pid_cmdline(5)).

An exec would give a new one as well, but to a program that has to load what this one has loaded, and to a process whose
uid is not root's and which loses its capabilities with that.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

_ARGUMENTS_BEGIN, _ARGUMENTS_END = 48, 49
"""Numbers of fields in proc_pid_stat(5)."""
_FIRST_AFTER_NAME = 3


class Nameplate:
    """The last argument, as it is in the memory of this process.

    Args:
        text: what it says now.
    Raises:
        OSError: it cannot be found.
    """

    def __init__(self, text: str) -> None:
        begin, end = _arguments()
        name = text.encode()
        if not begin or not ctypes.string_at(begin, end - begin).endswith(b"\0" + name + b"\0"):
            raise OSError("the last argument of this process cannot be found in its memory")
        self._room = len(name)
        self._address = end - 1 - self._room

    def write(self, text: str) -> None:
        """Say something else, followed by NULs.

        Its first byte goes first and comes last: whoever looks in between sees neither the old nor the new text.

        Raises:
            OSError: it is longer than what it was at first.
        """
        name = text.encode()
        if not 0 < len(name) <= self._room:
            raise OSError(f"there is no room for the name {text!r}")
        name = name.ljust(self._room, b"\0")
        ctypes.memset(self._address, 0, 1)
        ctypes.memmove(self._address + 1, name[1:], self._room - 1)
        ctypes.memmove(self._address, name, 1)


def _arguments() -> tuple[int, int]:
    """Return the addresses of the first byte of the arguments and of the byte behind them; 0 where they are hidden."""
    # The name of the program, in parentheses, may have blanks and parentheses itself.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[_ARGUMENTS_BEGIN - _FIRST_AFTER_NAME]), int(fields[_ARGUMENTS_END - _FIRST_AFTER_NAME])
