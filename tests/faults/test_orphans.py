"""What no record speaks of: found at the next round by what it is, and ended, while what is on record goes on."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from footprint import NODE, Footprint, ip, links, pod_of, wait_for_nothing
from harness import Server, list_labs, wait_until

from remote_lab.netlab import cgroups, management, pod
from remote_lab.netlab.image import Images
from remote_lab.netlab.limits import LabLimits
from remote_lab.netlab.pod import Pods
from remote_lab.netlab.pod_site import state_tag

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("pods")]

POOL = IPv4Network("198.18.0.0/16")


def test_a_lab_without_a_record(serve: Callable[..., Server]) -> None:
    """Its record is gone, its sandbox runs: that is ended, with what it has on the host, and said."""
    server = serve(SLOTS=2)
    lost, kept = server.open_session(), server.open_session()
    server.acquire(lost, NODE)
    [lab_id] = list_labs(server.state_dir)
    before = Footprint.of(server)
    server.acquire(kept, NODE)
    with closing(sqlite3.connect(server.state_dir / "remote-lab.sqlite3", timeout=30)) as database, database:
        database.execute("DELETE FROM lab_references WHERE lab_id = ?", (lab_id,))
        database.execute("DELETE FROM labs WHERE id = ?", (lab_id,))
    wait_until(lambda: not Footprint.of(server).links & before.links, "the link is gone")
    wait_until(lambda: not Footprint.of(server).pids & before.pids, "its processes are gone")
    wait_until(lambda: lab_id not in os.listdir(server.state_dir / "labs"), "its folder is gone")
    assert not [name for name in cgroups.names() for number in before.links if name == f"rlab{number}"]
    assert f"Ending the orphaned lab {lab_id[:8]}" in server.log.read_text()
    assert server.acquire(kept, NODE).json()["reused"] is True
    assert server.acquire(lost, NODE).json()["reused"] is False


def test_a_link_and_a_sandbox_apart(serve: Callable[..., Server]) -> None:
    """A link that was claimed for a sandbox which never came, and a sandbox whose link is gone: both go."""
    server = serve()
    owner, lab_id = state_tag(server.state_dir), str(uuid.uuid4())
    network = management.claim(POOL, owner, lab_id)
    wait_until(lambda: network.link not in links(), "the link is gone")
    assert f"Ending the orphaned lab {lab_id[:8]}" in server.log.read_text()

    session_id = server.open_session()
    server.acquire(session_id, NODE)
    first = pod_of(server)
    [number] = Footprint.of(server).links
    ip("link", "delete", f"rlab{number}")
    wait_until(lambda: not Path(f"/proc/{first}").exists(), "its sandbox is gone")
    wait_for_nothing(server)
    assert "The lab died: its management network interface is gone" in server.log.read_text()
    assert server.status(session_id) == ("active", 0)


def test_a_half_started_sandbox(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first process is there, its link was never given to it, and whoever started it is gone."""
    server = serve()
    server.terminate()
    monkeypatch.setattr(management, "give_to_pod", lambda network, pid: None)
    images = Images(Path(os.environ.get("REMOTE_LAB_IMAGE_DIR") or "/var/cache/remote-lab/images"))
    pods = Pods(state_tag(server.state_dir), POOL, LabLimits(512, 512, 64))
    lab_id = str(uuid.uuid4())
    directory = server.state_dir / "half"
    directory.mkdir(mode=0o755)
    network = pods.claim(lab_id)
    pid = pods.start(lab_id, network, images.ensure(), directory, {})
    server.start()
    wait_until(lambda: not Path(f"/proc/{pid}").exists() and network.link not in links(), "both are gone")
    wait_for_nothing(server)
    directory.rmdir()


def test_a_link_that_names_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`ip` was killed between making a link and naming it: it is left alone for a while, then removed."""
    pods = Pods(state_tag(tmp_path), POOL, LabLimits(512, 512, 64))
    number = management.free_numbers(POOL)[-1]
    ip("link", "add", f"rlab{number}", "type", "veth", "peer", "name", f"rlab{number}p")
    try:
        pods.look_after_host()
        pods.look_after_host()
        assert f"rlab{number}" in links()
        began = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: began + pod.NAMELESS_SECONDS + 1)
        pods.look_after_host()
        assert f"rlab{number}" not in links()
    finally:
        monkeypatch.undo()
        subprocess.run(["ip", "link", "delete", f"rlab{number}"], capture_output=True, check=False)
