"""Small decisions about the spare sandbox that need no sandbox."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 60
_CAPABILITIES = re.search(r"^CapEff:\t(.*)$", Path("/proc/self/status").read_text(), re.MULTILINE)
HAS_SYS_NICE = _CAPABILITIES is not None and bool(int(_CAPABILITIES[1], 16) >> 23 & 1)
# A process in the place of netlab: how nice it is while it gets ready, and afterwards, beside the server.
_SCRIPT = """
import os, socket, subprocess
from ipaddress import IPv4Network
from remote_lab.netlab import spares
from remote_lab.netlab.connector import BegunCall
from remote_lab.netlab.management import ManagementNetwork

def nice(pid):
    return os.getpriority(os.PRIO_PROCESS, pid) - usual

class Watched(socket.socket):
    def recv(self, *arguments):
        print(nice(netlab.pid))
        return super().recv(*arguments)

usual = os.getpriority(os.PRIO_PROCESS, 0)
here, there = socket.socketpair()
there.send(b"!")
with subprocess.Popen(["sleep", "600"], start_new_session=True) as netlab:
    call = BegunCall(netlab, Watched(fileno=here.detach()))
    spares._wait_until_ready(spares.Spare("", ManagementNetwork(1, IPv4Network("198.18.1.0/24")), 1, there, call))
    print(nice(netlab.pid), nice(0))
    netlab.kill()
"""


def how_nice(*prefix: str) -> list[str]:
    command = [*prefix, sys.executable, "-c", _SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    return done.stdout.split()


def test_a_priority_that_cannot_be_raised_is_not_lowered() -> None:
    """The lab would keep it."""
    is_root = os.geteuid() == 0
    assert how_nice(*(["setpriv", "--bounding-set=-sys_nice"] if is_root else [])) == ["0", "0", "0"]


@pytest.mark.skipif(not HAS_SYS_NICE, reason="nobody here can raise priorities")
def test_a_spare_gets_ready_behind_everybody_else() -> None:
    """And is as quick as any other when it is."""
    lowest = 19 - os.getpriority(os.PRIO_PROCESS, 0)
    assert how_nice() == [str(min(10, lowest)), "0", "0"]
