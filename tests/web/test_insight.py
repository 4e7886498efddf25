"""What a session sees of its lab beside the devices: how far a boot is, the key, the state of the devices."""

from __future__ import annotations

from harness import Server, wait_until

FRR = "nodes: [ r1, r2 ]\nstandin: { device: frr }\n"
PLAIN = "nodes: [ r1, r2 ]\n"
SLOW = "nodes: [ r1, r2 ]\nstandin: { up_seconds: 2 }\n"


def test_a_lab_that_starts_says_for_how_long(server: Server, session_id: str) -> None:
    """Seconds go up; which devices are up is not known of containers, until all are."""
    files = [("topology", ("demo.yml", SLOW))]
    server.call("POST", "/lab", session_id, files=files, headers={"Prefer": "respond-async"})
    first = server.call("GET", "/lab", session_id).json()
    assert (first["state"], first["ready"]) == ("starting", [])
    wait_until(
        lambda: (server.call("GET", "/lab", session_id).json()["seconds"] or 0) > first["seconds"], "time goes by"
    )
    wait_until(lambda: server.call("GET", "/lab", session_id).json()["running"], "the lab runs")
    running = server.call("GET", "/lab", session_id).json()
    assert (running["seconds"], running["ready"]) == (None, ["r1", "r2"])


def test_without_a_lab_nothing_can_be_asked(server: Server, session_id: str, waiting_id: str) -> None:
    """Neither of a lab that is not there, nor by somebody whose turn has not come."""
    for path in ("/lab/ssh-key", "/lab/state"):
        refused = server.call("GET", path, session_id)
        assert (refused.status_code, refused.json()["code"]) == (404, "lab_not_found")
        assert server.call("GET", path, waiting_id).status_code == 423
        assert server.call("GET", path).status_code == 422
    status = server.call("GET", "/lab", session_id).json()
    assert (status["seconds"], status["ready"]) == (None, [])


def test_a_lab_of_containers_has_no_key(server: Server, session_id: str) -> None:
    """And says what to log in with instead."""
    assert server.acquire(session_id, PLAIN).status_code == 200
    refused = server.call("GET", "/lab/ssh-key", session_id)
    assert (refused.status_code, refused.json()["code"]) == (404, "ssh_key_not_found")
    assert "user and password" in refused.json()["detail"]


def test_every_device_is_asked_what_its_type_knows(server: Server, session_id: str) -> None:
    """The configuration first, each answer with its own command."""
    assert server.acquire(session_id, FRR).status_code == 200
    devices = server.call("GET", "/lab/state", session_id).json()["devices"]
    assert [(one["name"], one["device"]) for one in devices] == [("r1", "frr"), ("r2", "frr")]
    for device in devices:
        first = device["outputs"][0]
        assert first["command"] == "vtysh -c 'show running-config'"
        assert (first["output"], first["ok"]) == (f"{device['name']} says show running-config\n", True)


def test_a_device_of_an_unknown_type_is_asked_nothing(server: Server, session_id: str) -> None:
    """It is in the answer all the same."""
    assert server.acquire(session_id, PLAIN).status_code == 200
    devices = server.call("GET", "/lab/state", session_id).json()["devices"]
    assert devices == [{"name": name, "device": None, "outputs": []} for name in ("r1", "r2")]
