"""Real routers, and a user process that is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from harness import CALL_SECONDS, ROOT, wait_until

from remote_lab.client import RemoteLabClient
from remote_lab.netlab import management, processes
from remote_lab.netlab.pod_site import missing_requirements, state_tag
from remote_lab.netlab.spares import is_spare

from .conftest import Home

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
PAIR = ROOT / "examples" / "ospf-pair.yml"


@pytest.fixture
def real(home: Home) -> Home:
    """A home whose labs are real."""
    if reasons := missing_requirements():
        pytest.skip(f"real labs cannot run here: {'; '.join(reasons)}")
    home.environment |= {"REMOTE_LAB_PROVIDER": "netns", "REMOTE_LAB_NETLAB": ""}
    return home


def in_tree(number: int) -> set[int]:
    return {one.pid for one in processes.pod_processes() if one.number == number}


@pytest.mark.parametrize("what", ["user", "user and guard"])
def test_kill_9_leaves_nothing_of_a_real_lab(real: Home, what: str) -> None:
    """No process, link, mount or folder; when the guard was killed too, after the next run has begun."""
    user = real.start()
    has = real.obtained(user)
    client = RemoteLabClient(has["url"], heartbeat=None)
    assert [device.name for device in client.acquire(PAIR, False)] == ["r1", "r2"]
    owner = state_tag(real.run_dir() / "state")
    (claim,) = [one for one in management.claims() if one.owner == owner and not is_spare(one.lab_id)]
    assert len(in_tree(claim.number)) > 10
    if what == "user and guard":
        os.kill(real.guard_pid(), signal.SIGKILL)
    os.kill(user.pid, signal.SIGKILL)
    user.wait(CALL_SECONDS)
    if what == "user and guard":
        wait_until(lambda: not real.processes("remote_lab serve"), "the server has ended")
        assert len(in_tree(claim.number)) > 10
        real.obtain("next").stop()
    real.wait_until_gone()
    wait_until(lambda: owner not in {one.owner for one in management.claims()}, "the spare sandbox is gone as well")
    indexes = {int((link / "ifindex").read_text()) for link in Path("/sys/class/net").iterdir()}
    assert claim.index not in indexes
    assert str(real.folder) not in Path("/proc/1/mountinfo").read_text()
