"""A process that writes over its last argument, as others see it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from remote_lab.netlab.rootless.keepers import last_argument
from remote_lab.netlab.rootless.nameplate import Nameplate

LONG, SHORT = "the-name-it-has-at-first", "a-shorter-name"
WRITER = """
import sys
from remote_lab.netlab.rootless.nameplate import Nameplate
plate = Nameplate(sys.argv[-1])
for name in iter(sys.stdin.readline, ""):
    try:
        for _ in range(20_000):
            for word in name.split():
                plate.write(word)
    except OSError as error:
        print(error, flush=True)
    else:
        print("written", flush=True)
"""


def test_others_see_one_name_or_the_other() -> None:
    """A reader that looks all the time sees no mixture of two names; what it sees in between begins like neither."""
    command = [sys.executable, "-c", WRITER, "argument before it", LONG]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{SHORT}\n")
        assert process.stdout.readline() == "written\n"
        assert last_argument(process.pid) == SHORT
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        assert arguments[-2:] == [b"argument before it", SHORT.encode()]

        process.stdin.write(f"{LONG} {SHORT}\n")
        seen = {last_argument(process.pid) for _ in range(20_000)}
        assert process.stdout.readline() == "written\n"
        assert {one for one in seen if one.startswith(("t", "a"))} <= {LONG, SHORT}

        process.stdin.write(f"{LONG}r\n")
        assert process.stdout.readline() == f"there is no room for the name '{LONG}r'\n"
        assert last_argument(process.pid) == SHORT


def test_an_argument_that_is_another_one_is_left_alone() -> None:
    """Before anything is written it is clear that it would be written over what it shall be."""
    with pytest.raises(OSError, match="cannot be found"):
        Nameplate("no argument of this process")
