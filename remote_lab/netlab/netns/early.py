"""Starts nodes as soon as their names are known, while netlab goes on with its transformation and its files.

netlab works on one processor, nodes start on the others. `netns-lab up` needs the names first and then the plan, so it
begins in the background, and the call that netlab makes later is answered with how that went.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn


class EarlyUp:
    """A `netns-lab up` that runs in the background, and waits for the plan.

    Args:
        run: becomes it, in a new process.
        plan: the file that netlab will write.
    """

    def __init__(self, run: Callable[[], NoReturn], plan: Path) -> None:
        told, tells = os.pipe()
        said, says = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(tells)
            os.close(said)
            for source, standards in ((told, (0,)), (says, (1, 2))):
                for standard in standards:
                    os.dup2(source, standard)
                os.close(source)
            run()
        os.close(told)
        os.close(says)
        self._tells = tells
        self._said = said
        self._plan = plan
        self._used: bytes | None = None

    def go_on(self) -> None:
        """Let it go on with the plan, which is written."""
        self._used = self._read_plan()
        self._tell(b"planned\n")

    def finish(self) -> int | None:
        """Print what it says until it ends.

        Returns:
            the wait status; None when what it did is of no use, because hooks of a topology have changed the plan.
        """
        self._tell(b"hurry\n")
        os.close(self._tells)
        is_of_this_plan = self._used is not None and self._used == self._read_plan()
        with os.fdopen(self._said, "rb", buffering=0) as said, os.fdopen(os.dup(1), "wb", buffering=0) as log:
            shutil.copyfileobj(said, log)
        status = os.waitpid(self._pid, 0)[1]
        return status if is_of_this_plan else None

    def _read_plan(self) -> bytes | None:
        try:
            return self._plan.read_bytes()
        except OSError:  # `netns-lab up` says so
            return None

    def _tell(self, line: bytes) -> None:
        with suppress(BrokenPipeError):  # it has ended, and says why when it is asked
            os.write(self._tells, line)
