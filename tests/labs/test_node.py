"""How a node and whoever starts it hear of each other, when one of their processes is late or gone."""

from __future__ import annotations

import os
import time
from typing import NoReturn

import pytest

from remote_lab.netlab.netns import node
from remote_lab.netlab.netns.credentials import Credentials
from remote_lab.netlab.netns.lab import Outline

pytestmark = pytest.mark.lab

H1 = Outline("h1", "linux")
NO_CREDENTIALS = Credentials("", "", b"")
LATE_SECONDS = 0.3


def begin_at_once(_outline: Outline, _credentials: Credentials, said: int, _go: int) -> NoReturn:
    """A PID 1 that has nothing to prepare."""
    os.write(said, b"begun\n")
    os._exit(0)


def test_a_node_that_is_quicker_than_who_names_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pid is said first, however late; on a busy host the process that knows it may not run for a while."""
    write = os.write

    def write_late(descriptor: int, text: bytes) -> int:
        if text.startswith(b"pid "):
            time.sleep(LATE_SECONDS)
        return write(descriptor, text)

    monkeypatch.setattr(node, "_become_pid_1", begin_at_once)
    monkeypatch.setattr(os, "write", write_late)
    starting = node.start(H1, NO_CREDENTIALS)
    starting.settle()
    assert starting.pid > 0
    assert starting.hear() is None
    starting.close()


def test_a_node_that_nobody_hears_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes never go on in the code of who started it."""

    def unshare_late(_flags: int) -> None:
        time.sleep(LATE_SECONDS)

    monkeypatch.setattr(node.kernel, "unshare", unshare_late)
    starting = node.start(H1, NO_CREDENTIALS)
    starting.close()
    assert os.waitstatus_to_exitcode(os.waitpid(starting._child, 0)[1]) == 1
