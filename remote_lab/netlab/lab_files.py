"""Reads files out of the working directory of a lab, which code of that lab may have made: nothing in it is trusted.

No link is followed, nothing but a regular file is read, and no more of it than was asked for.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_lab_file(directory: Path, name: str, max_bytes: int) -> bytes | None:
    """Return a file of a lab; None when it is not there, no regular file, behind a link, or larger than `max_bytes`.

    Args:
        directory: of the lab; the folders above it are the server's.
        name: relative to `directory`, without `..`.
        max_bytes: of the file.
    """
    *folders, last = name.split("/")
    try:
        folder = os.open(directory, _FOLDER)
    except OSError:
        return None
    try:
        for part in folders:
            # One by one: O_NOFOLLOW is about the last part of a path only (open(2)).
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        return _read(os.open(last, _FILE, dir_fd=folder), max_bytes)
    except OSError:
        return None
    finally:
        os.close(folder)


def _read(descriptor: int, max_bytes: int) -> bytes | None:
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = stream.read(max_bytes + 1)
    return content if len(content) <= max_bytes else None
