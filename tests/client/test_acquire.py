"""Acquiring from a real server: long polls, labs that have to go first, connections that break, ends in the middle."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import Server, list_labs, wait_until

from remote_lab.client import DeviceInfoDto, LabAcquisitionTimeout, LabBootError, RemoteLabClient, SessionGoneError

from .breaker import Breaker

Join = Callable[..., RemoteLabClient]
SLOW = "nodes: [ r1, r2 ]\nstandin: { up_seconds: 0.6 }\n"
ENDLESS = "nodes: [ r1 ]\nstandin: { up_hangs: true }\n"
FAILING = "nodes: [ r1 ]\nstandin: { up_fails: true }\n"
LONG = "nodes: [ r1, r2 ]\nstandin: { up_seconds: 1.4 }\n"
"""Longer than a client lets the server hold its `POST /lab`."""
SLOW_DOWN = "nodes: [ r9 ]\nstandin: { down_seconds: 0.6 }\n"


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def breaker(server: Server) -> Iterator[Breaker]:
    breaker = Breaker(server.port)
    yield breaker
    breaker.stop()


def write(folder: Path, text: str, name: str = "demo.yml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def names(devices: list[DeviceInfoDto]) -> list[str]:
    return [device.name for device in devices]


def acquire_behind(
    pool: ThreadPoolExecutor, client: RemoteLabClient, server: Server, topology: Path, state: str = "starting"
) -> Future[list[DeviceInfoDto]]:
    """Begin an acquire on another thread; returns when the server is at work."""
    acquiring = pool.submit(client.acquire, topology, True)
    path = client.session_id
    wait_until(lambda: server.call("GET", "/lab", path).json()["state"] == state, f"the lab is {state}")
    return acquiring


def test_a_boot_is_followed(join_server: Join, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What the boot does is told in words; one reference is held; the end says who is up."""
    client = join_server()
    with caplog.at_level(logging.INFO, "remote_lab.client"):
        assert names(client.acquire(write(tmp_path, LONG), False)) == ["r1", "r2"]
    assert client.status().ref_count == 1
    said = [record.message for record in caplog.records]
    assert said[0] == "acquiring demo.yml (reuse=False)"
    assert any(line.startswith("booting demo.yml: configuring devices, ") for line in said)
    assert said[-1].startswith("lab demo.yml is up after ")
    assert said[-1].endswith(" s: r1, r2")


def test_a_boot_outlasts_a_request(join_server: Join, tmp_path: Path) -> None:
    """No connection is held for longer than `request_timeout` says after the server's own time."""
    client = join_server(request_timeout=0.4)
    assert names(client.acquire(write(tmp_path, SLOW), True)) == ["r1", "r2"]


@pytest.mark.parametrize("reuse", [True, False])
def test_the_lab_before_is_not_taken_for_the_own(join_server: Join, tmp_path: Path, reuse: bool) -> None:
    """An idle lab of other files, or of the same ones, goes down first, and the devices are those of the new one."""
    client = join_server()
    before = write(tmp_path, SLOW_DOWN)
    client.acquire(before, True)
    client.release()
    after = write(tmp_path, SLOW) if reuse else before
    assert names(client.acquire(after, reuse)) == (["r1", "r2"] if reuse else ["r9"])
    assert client.status().ref_count == 1


def test_release_gives_back_what_was_acquired(join_server: Join, tmp_path: Path) -> None:
    """As often as it was."""
    client = join_server()
    topology = write(tmp_path, SLOW)
    client.acquire(topology, True)
    client.acquire(topology, True)
    assert client.status().ref_count == 2
    client.release()
    client.release()
    client.release()
    assert client.status().ref_count == 0


def test_a_failed_boot(join_server: Join, tmp_path: Path) -> None:
    """Phase, reason and the end of the log are in the error, all of the log can be had, the next acquire works."""
    client = join_server()
    with pytest.raises(LabBootError, match=r"lab_boot_failed: The lab did not boot .*status 1") as caught:
        client.acquire(write(tmp_path, FAILING), True)
    error = caught.value
    assert (error.code, error.phase) == ("lab_boot_failed", "config")
    assert "told to fail in up" in error.log_tail
    assert error.log_tail in str(error)
    assert "Creating configuration files" in client.log()
    assert names(client.acquire(write(tmp_path, SLOW), True)) == ["r1", "r2"]


def test_a_busy_lab_is_waited_for(join_server: Join, tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """Until whoever holds it lets go."""
    client = join_server()
    client.acquire(write(tmp_path, SLOW_DOWN), True)
    acquiring = pool.submit(client.acquire, write(tmp_path, SLOW), True)
    with join_server(session_id=client.session_id) as other:
        other.release()
    assert names(acquiring.result()) == ["r1", "r2"]


def test_a_timeout_ends_the_boot(server: Server, join_server: Join, tmp_path: Path) -> None:
    """Nobody waits for it any more."""
    client = join_server(lab_acquisition_timeout=0.8)
    with pytest.raises(LabAcquisitionTimeout, match=r"within 0\.8 s: it is still booting"):
        client.acquire(write(tmp_path, ENDLESS), True)
    wait_until(lambda: list_labs(server.state_dir) == [], "the boot has ended")
    assert client.status().ref_count == 0


def test_a_timeout_leaves_the_boot_to_others(server: Server, join_server: Join, tmp_path: Path) -> None:
    """Who joined the boot still gets it, with one reference."""
    client = join_server(lab_acquisition_timeout=0.4)
    topology = write(tmp_path, SLOW)
    with ThreadPoolExecutor(1) as pool:
        patient = join_server(session_id=client.session_id)
        acquiring = acquire_behind(pool, patient, server, topology)
        with pytest.raises(LabAcquisitionTimeout):
            client.acquire(topology, True)
        assert names(acquiring.result()) == ["r1", "r2"]
    assert client.status().ref_count == 1


def test_a_timeout_before_the_boot_boots_nothing(server: Server, join_server: Join, tmp_path: Path) -> None:
    """The lab before is still on its way down, and what would follow is called off."""
    client = join_server()
    client.acquire(write(tmp_path, SLOW_DOWN), True)
    client.release()
    client.lab_acquisition_timeout = 0.3
    with pytest.raises(LabAcquisitionTimeout, match=r"demo.yml is still on its way down"):
        client.acquire(write(tmp_path, ENDLESS), True)
    wait_until(lambda: "gave it up" in server.log.read_text(), "the acquire was decided")
    assert (client.status().state, list_labs(server.state_dir)) == (None, [])


def test_an_interrupt_gives_the_reference_back(
    server: Server, join_server: Join, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the session is somebody else's and goes on."""
    owner = join_server()
    client = join_server(session_id=owner.session_id)
    call = client._held.call

    def interrupted(method: str, path: str, *arguments: object, **more: object) -> object:
        if (method, path) == ("GET", "/lab"):
            monkeypatch.undo()
            raise KeyboardInterrupt
        return call(method, path, *arguments, **more)

    monkeypatch.setattr(client._held, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.acquire(write(tmp_path, ENDLESS), True)
    assert owner.status().ref_count == 0
    wait_until(lambda: list_labs(server.state_dir) == [], "the boot has ended")


def test_a_session_that_ends_while_its_lab_boots(
    server: Server, join_server: Join, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    """The acquire ends at once, with the reason, and so does every later call."""
    client = join_server()
    acquiring = acquire_behind(pool, client, server, write(tmp_path, ENDLESS))
    server.call("DELETE", f"/session/{client.session_id}", params={"reason": "the host is needed"})
    with pytest.raises(SessionGoneError, match="the host is needed"):
        acquiring.result()
    with pytest.raises(SessionGoneError, match="the host is needed"):
        client.devices()


def test_a_lab_that_is_destroyed_while_it_boots(
    server: Server, join_server: Join, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    """It is not booted again behind the back of who destroyed it."""
    client = join_server()
    acquiring = acquire_behind(pool, client, server, write(tmp_path, ENDLESS))
    server.call("DELETE", "/lab", client.session_id)
    with pytest.raises(LabBootError, match="destroyed") as caught:
        acquiring.result()
    assert caught.value.code == "lab_boot_cancelled"
    wait_until(lambda: list_labs(server.state_dir) == [], "the boot has ended")


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_is_restarted_during_the_boot(
    server: Server, join_server: Join, tmp_path: Path, pool: ThreadPoolExecutor, sig: signal.Signals
) -> None:
    """The lab is booted again, and there is one reference to it."""
    client = join_server()
    acquiring = acquire_behind(pool, client, server, write(tmp_path, SLOW))
    server.kill() if sig == signal.SIGKILL else server.terminate()
    server.start()
    assert names(acquiring.result()) == ["r1", "r2"]
    assert client.status().ref_count == 1


def test_a_server_that_is_restarted_during_the_teardown_before(
    server: Server, join_server: Join, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    """What the server meant to boot next is forgotten there, and asked for again."""
    client = join_server()
    client.acquire(write(tmp_path, SLOW_DOWN), True)
    client.release()
    acquiring = acquire_behind(pool, client, server, write(tmp_path, SLOW), "stopping")
    server.kill()
    server.start()
    assert names(acquiring.result()) == ["r1", "r2"]
    assert client.status().ref_count == 1


@pytest.mark.parametrize("lost", [["POST /lab "], ["GET /lab?wait"], ["POST /lab ", "POST /lab ", "GET /lab?wait"]])
def test_lost_answers_cost_nothing(
    join_server: Join, breaker: Breaker, tmp_path: Path, lost: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the network loses, there is one boot, one reference, and the devices."""
    client = join_server(base_url=breaker.url)
    for beginning in lost:
        breaker.lose_answer(beginning)
    assert names(client.acquire(write(tmp_path, LONG), False)) == ["r1", "r2"]
    assert breaker.all_lost
    assert client.status().ref_count == 1
    assert "Lost contact about demo.yml" in caplog.text
    client.release()
    assert client.status().ref_count == 0


def test_the_last_answer_is_lost(join_server: Join, breaker: Breaker, tmp_path: Path) -> None:
    """The one with the devices; asked for again, it is the same reference."""
    client = join_server(base_url=breaker.url)
    client.acquire(write(tmp_path, SLOW), True)
    breaker.lose_answer("POST /lab ")
    client.acquire(write(tmp_path, SLOW), True)
    assert breaker.all_lost
    assert client.status().ref_count == 2


def test_two_clients_of_one_session_share_a_boot(server: Server, join_server: Join, tmp_path: Path) -> None:
    """One boot, a reference each."""
    first = join_server()
    second = join_server(session_id=first.session_id)
    topology = write(tmp_path, SLOW)
    barrier = threading.Barrier(2)

    def acquire(client: RemoteLabClient) -> list[str]:
        barrier.wait()
        return names(client.acquire(topology, True))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(acquire, [first, second])) == [["r1", "r2"]] * 2
    assert (first.status().ref_count, len(list_labs(server.state_dir))) == (2, 1)
    second.release()
    assert first.status().ref_count == 1
