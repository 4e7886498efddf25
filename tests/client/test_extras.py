"""What a client has beside sessions and labs: keys, logs, states of devices, and a foreign server without them."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from remote_lab.client import RemoteLabClient, RemoteLabHTTPError, SessionGoneError

from .fake_peer import DEVICE, FakePeer, Reply

Connect = Callable[..., RemoteLabClient]
OURS = Reply(200, {"status": "active", "position": 0, "eta_seconds": 0.0, "held_by": [], "waiting": 3})
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n"


def names_a_key(peer: FakePeer) -> None:
    """Let the lab's device have a key, as each has in namespaces."""
    device = {**DEVICE, "raw": {"ansible_ssh_private_key_file": "netns_files/id_ed25519"}}
    peer.says("POST", "/lab", Reply(200, {"reused": False, "devices": [device]}))
    peer.says("GET", "/lab/devices", Reply(200, [device]))


def test_the_key_of_a_lab(peer: FakePeer, connect: Connect, topology: Path) -> None:
    """Lies in a file for its owner alone, one for each lab, until the client is closed."""
    peer.says("GET", "/session/s-1", OURS)
    names_a_key(peer)
    peer.says("GET", "/lab/ssh-key", Reply(200, KEY), Reply(200, KEY), Reply(200, KEY + "2"))
    client = connect()
    (device,) = client.acquire(topology, True)
    assert device.key_file is not None
    assert (device.key_file.read_text(), stat.S_IMODE(device.key_file.stat().st_mode)) == (KEY, 0o600)
    assert stat.S_IMODE(device.key_file.parent.stat().st_mode) == 0o700
    assert client.devices()[0].key_file == device.key_file
    assert client.devices()[0].key_file != device.key_file
    client.close()
    assert not device.key_file.parent.exists()


@pytest.mark.parametrize("reply", [Reply(404, {"detail": "No key.", "code": "ssh_key_not_found"}), Reply(500)])
def test_a_lab_without_a_key(peer: FakePeer, connect: Connect, topology: Path, reply: Reply) -> None:
    """Is a lab all the same."""
    peer.says("GET", "/session/s-1", OURS)
    names_a_key(peer)
    peer.says("GET", "/lab/ssh-key", reply)
    assert [device.key_file for device in connect().acquire(topology, True)] == [None]
    assert peer.count("GET", "/lab/ssh-key") >= 1, "a server in trouble is asked again"


def test_a_lab_that_names_no_key(peer: FakePeer, connect: Connect, topology: Path) -> None:
    """Is not asked for one."""
    peer.says("GET", "/session/s-1", OURS)
    assert [device.key_file for device in connect().acquire(topology, True)] == [None]
    assert peer.count("GET", "/lab/ssh-key") == 0


def test_an_inventory_lies_in_the_private_folder(peer: FakePeer, connect: Connect, tmp_path: Path) -> None:
    """Unless a path is given."""
    client = connect()
    private = client.inventory("ansible")
    assert "192.0.2.1" in private.read_text()
    assert client.inventory("ansible", tmp_path / "hosts.json").read_text() == private.read_text()
    client.close()
    assert (private.exists(), (tmp_path / "hosts.json").exists()) == (False, True)


def test_log_and_state(peer: FakePeer, connect: Connect) -> None:
    """As the server has them; text is UTF-8, also where the server does not say so."""
    state = [{"name": "r1", "device": "frr", "outputs": [{"command": "show", "output": "x", "ok": True}]}]
    peer.says("GET", "/lab/log", Reply(200, "[OK] \N{CHECK MARK}\n", {"Content-Type": "text/plain"}))
    peer.says("GET", "/lab/state", Reply(200, {"devices": state}))
    peer.says("GET", "/session/s-1", OURS)
    client = connect()
    assert (client.log(), client.device_state(), client.waiting()) == ("[OK] \N{CHECK MARK}\n", state, 3)


def test_a_foreign_server(peer: FakePeer, connect: Connect, topology: Path) -> None:
    """neops-remote-lab 1.4.0: what it lacks is an error with its status, or None; nothing else is asked of it."""
    names_a_key(peer)
    client = connect()
    assert client.waiting() is None
    assert [device.key_file for device in client.acquire(topology, True)] == [None]
    assert peer.count("GET", "/lab/ssh-key") == 0
    with pytest.raises(RemoteLabHTTPError, match="404"):
        client.log()
    client.release()
    assert client.session_id == "s-1"


def test_a_foreign_server_whose_answer_got_lost(peer: FakePeer, connect: Connect, topology: Path) -> None:
    """Its lab tells whether the acquire was executed: a reference more than before."""
    up = {"running": True, "topology": "/tmp/x/demo.yml", "ref_count": 1, "devices": [DEVICE], "netlab_status": None}
    peer.says("POST", "/lab", Reply(0, hangs_up=True))
    peer.says("GET", "/lab", Reply(200, up))
    client = connect()
    assert [device.name for device in client.acquire(topology, True)] == ["r1"]
    with pytest.raises(requests.ConnectionError):
        client.acquire(topology, True)
    assert peer.count("POST", "/lab") == 2


def test_a_foreign_server_that_forgot_the_session(peer: FakePeer, connect: Connect) -> None:
    """Is understood without a code."""
    peer.says("GET", "/lab", Reply(404, {"detail": "Session not found"}))
    client = connect()
    with pytest.raises(SessionGoneError, match="Session not found"):
        client.status()


def test_calls_after_the_heartbeat_found_the_session_gone(
    peer: FakePeer, connect: Connect, topology: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Say why, without asking; the log has it once."""
    peer.says("POST", "/session/heartbeat", Reply(404, {"detail": "Lease over.", "code": "session_not_found"}))
    client = connect(heartbeat=0.01)
    client._held.heartbeat._thread.join(10)
    for call in (client.devices, client.status, lambda: client.acquire(topology, True)):
        with pytest.raises(SessionGoneError, match="Lease over"):
            call()
    assert (peer.count("GET", "/lab"), peer.count("POST", "/lab")) == (0, 0)
    assert caplog.text.count("is gone") == 1
