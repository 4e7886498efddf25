"""Acquiring, looking at and giving back a lab."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from remote_lab.client import (
    DeviceInfoDto,
    LabAcquisitionTimeout,
    LabBootError,
    LabStatusDto,
    RemoteLabClient,
    RemoteLabHTTPError,
)
from remote_lab.client.address import Address

from .fake_peer import DEVICE, FakePeer, Reply

Connect = Callable[..., RemoteLabClient]
R1 = DeviceInfoDto(name="r1", raw=DEVICE["raw"])
BUSY = Reply(423, {"detail": "Lab 'other.yml' is in use.", "code": "lab_busy"})


@pytest.mark.parametrize(("reuse", "sent"), [(True, b"true"), (False, b"false")])
def test_acquire(peer: FakePeer, connect: Connect, topology: Path, reuse: bool, sent: bytes) -> None:
    """The topology goes up in its session's name, and its devices come back."""
    assert connect().acquire(topology, reuse) == [R1]
    (asked,) = peer.requests("POST", "/lab")
    assert asked.headers["x-session-id"] == "s-1"
    assert sorted(asked.parts) == [("reuse", None, sent), ("topology", "demo.yml", b"nodes: [r1]\n")]


def test_extra_files(peer: FakePeer, connect: Connect, topology: Path, tmp_path: Path) -> None:
    """Files below the topology's folder keep their folders, others come with their bare name."""
    (topology.parent / "configs").mkdir()
    inside, outside = topology.parent / "configs" / "r1.j2", tmp_path / "hosts.yml"
    inside.write_bytes(b"inside")
    outside.write_bytes(b"out\x00\xffside")
    connect().acquire(topology, True, extra_files=[inside, str(outside)])
    (asked,) = peer.requests("POST", "/lab")
    assert [part for part in asked.parts if part[0] == "extra_files"] == [
        ("extra_files", "configs/r1.j2", b"inside"),
        ("extra_files", "hosts.yml", b"out\x00\xffside"),
    ]


def test_extra_files_keep_the_name_of_a_link(
    peer: FakePeer, connect: Connect, topology: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is understood like its absolute one, and a symbolic link goes by its own name."""
    (tmp_path / "shared.j2").write_bytes(b"shared")
    (topology.parent / "r1.j2").symlink_to(tmp_path / "shared.j2")
    monkeypatch.chdir(tmp_path)
    connect().acquire(topology, True, extra_files=[Path("topologies/../topologies/r1.j2")])
    assert ("extra_files", "r1.j2", b"shared") in peer.requests("POST", "/lab")[0].parts


def test_busy_lab_is_tried_again_with_the_whole_upload(peer: FakePeer, connect: Connect, topology: Path) -> None:
    """423 is tried again, and each try sends every byte of every file."""
    peer.says("POST", "/lab", BUSY, BUSY, Reply(200, {"reused": True, "devices": [DEVICE]}))
    assert connect().acquire(topology, True, [topology]) == [R1]
    uploads = [sorted(asked.parts) for asked in peer.requests("POST", "/lab")]
    assert len(uploads) == 3
    assert uploads[0] == uploads[1] == uploads[2]
    assert ("topology", "demo.yml", b"nodes: [r1]\n") in uploads[2]


def test_busy_lab_has_one_deadline(peer: FakePeer, connect: Connect, topology: Path) -> None:
    """All tries together have `lab_acquisition_timeout`; the error has the server's last reason."""
    peer.says("POST", "/lab", BUSY)
    client = connect(lab_acquisition_timeout=0.2)
    with pytest.raises(LabAcquisitionTimeout, match=r"within 0\.2 s: Lab 'other.yml' is in use") as caught:
        client.acquire(topology, True)
    assert peer.count("POST", "/lab") > 1
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.__cause__.code == "lab_busy"


def test_boot_has_the_same_deadline(peer: FakePeer, connect: Connect, topology: Path) -> None:
    """A boot that outlasts `lab_acquisition_timeout` ends in the same error, though no request may take that long."""
    hold = threading.Event()
    peer.says("POST", "/lab", Reply(200, {"reused": False, "devices": []}, hold=hold))
    client = connect(lab_acquisition_timeout=0.1, request_timeout=30)
    with pytest.raises(LabAcquisitionTimeout, match="still booting"):
        client.acquire(topology, True)
    hold.set()
    assert peer.count("POST", "/lab") == 1


def test_boot_may_take_longer_than_a_request(peer: FakePeer, connect: Connect, topology: Path) -> None:
    """`request_timeout` is for short requests; a boot goes on beside it."""
    client = connect(request_timeout=0.05, heartbeat=0.05)
    hold = threading.Event()
    peer.says("POST", "/lab", Reply(200, {"reused": False, "devices": [DEVICE]}, hold=hold))
    helper = threading.Thread(target=lambda: (peer.wait_for("POST", "/session/heartbeat", 4), hold.set()))
    helper.start()
    assert client.acquire(topology, True) == [R1]
    helper.join()


def test_retry_after_of_a_busy_lab(peer: FakePeer, connect: Connect, topology: Path) -> None:
    """The server says when to try again; a pause of an hour would end this test."""
    soon = Reply(423, BUSY.body, {"Retry-After": "0"})
    peer.says("POST", "/lab", soon, Reply(200, {"reused": False, "devices": [DEVICE]}))
    assert connect(poll_seconds=3600).acquire(topology, True) == [R1]


def test_failed_boot(peer: FakePeer, connect: Connect, topology: Path) -> None:
    """A failed boot is an HTTPError with code, sentence, phase and the end of the log, not tried again."""
    failed = {
        "detail": "The lab did not boot (create): unknown module ospff",
        "code": "lab_boot_failed",
        "phase": "create",
        "log_tail": "[INCORRECT] unknown module ospff",
    }
    peer.says("POST", "/lab", Reply(500, failed))
    with pytest.raises(LabBootError) as caught:
        connect().acquire(topology, True)
    error = caught.value
    assert isinstance(error, requests.HTTPError)
    assert {"detail": error.detail, "code": error.code, "phase": error.phase, "log_tail": error.log_tail} == failed
    assert str(error) == (
        f"POST {peer.url}/lab: 500 lab_boot_failed: {failed['detail']}\n"
        f"--- end of the boot log ---\n{failed['log_tail']}"
    )
    assert (error.response.status_code, peer.count("POST", "/lab")) == (500, 1)


def test_validation_error(peer: FakePeer, connect: Connect, topology: Path) -> None:
    """The list of a 422 is kept as it is, and said in one line."""
    detail = [
        {"loc": ["body", "topology"], "msg": "Field required", "type": "missing"},
        {"loc": ["body", "reuse"], "msg": "Not a bool", "type": "bool"},
    ]
    peer.says("POST", "/lab", Reply(422, {"detail": detail, "code": "validation_failed"}))
    with pytest.raises(RemoteLabHTTPError, match=r"body\.topology: Field required; body\.reuse: Not a bool") as caught:
        connect().acquire(topology, True)
    assert caught.value.detail == detail


@pytest.mark.parametrize("body", ["<html>Bad Gateway</html>", "[]", '"x"', '{"detail": [1, {}], "code": []}', ""])
def test_error_without_envelope(peer: FakePeer, connect: Connect, topology: Path, body: str) -> None:
    """A proxy's error page still makes an HTTPError that names request and status."""
    peer.says("POST", "/lab", Reply(502, body))
    with pytest.raises(RemoteLabHTTPError, match=r"POST http://127\.0\.0\.1:\d+/lab: 502: ") as caught:
        connect().acquire(topology, True)
    assert (caught.value.code, caught.value.log_tail) == (None, "")


def test_missing_topology(peer: FakePeer, connect: Connect, tmp_path: Path) -> None:
    """A file that is not there is said before anything is sent."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        connect().acquire(tmp_path / "nowhere.yml", True)
    assert peer.count("POST", "/lab") == 0


def test_devices(connect: Connect) -> None:
    """The devices of the running lab can be had again."""
    assert connect().devices() == [R1]


def test_devices_without_lab(peer: FakePeer, connect: Connect) -> None:
    """Without a lab there is an error with the server's code."""
    peer.says("GET", "/lab/devices", Reply(404, {"detail": "No lab.", "code": "lab_not_found"}))
    with pytest.raises(RemoteLabHTTPError) as caught:
        connect().devices()
    assert caught.value.code == "lab_not_found"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {
                "running": True,
                "topology": "demo.yml",
                "ref_count": 2,
                "devices": [DEVICE],
                "netlab_status": "up",
                "x": 1,
            },
            LabStatusDto(running=True, topology="demo.yml", ref_count=2, devices=[R1], netlab_status="up"),
        ),
        (
            {"running": False, "topology": None, "ref_count": 0, "devices": [], "netlab_status": None},
            LabStatusDto(running=False, topology=None, ref_count=0, devices=[], netlab_status=None),
        ),
    ],
)
def test_status(peer: FakePeer, connect: Connect, body: dict[str, object], expected: LabStatusDto) -> None:
    """Status is an answer with and without a lab; what a newer server adds to it does no harm."""
    peer.says("GET", "/lab", Reply(200, body))
    assert connect().status() == expected


@pytest.mark.parametrize("status", [202, 204, 404])
def test_give_back(peer: FakePeer, connect: Connect, caplog: pytest.LogCaptureFixture, status: int) -> None:
    """202, 204 and 404 mean that the lab is given back; destroy says whether by force."""
    client = connect()
    peer.says("POST", "/lab/release", Reply(status, {"detail": "x"}))
    peer.says("DELETE", "/lab", Reply(status, {"detail": "x"}))
    client.release()
    client.destroy()
    client.destroy(force=False)
    assert peer.requests("POST", "/lab/release")[0].headers["x-session-id"] == "s-1"
    assert [asked.query["force"] for asked in peer.requests("DELETE", "/lab")] == [["true"], ["false"]]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_failed_give_back_is_logged(peer: FakePeer, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """Neither release nor destroy raises; what the server said is logged at ERROR."""
    client = connect()
    peer.says("POST", "/lab/release", Reply(500, {"detail": "Ouch."}))
    peer.says("DELETE", "/lab", Reply(409, {"detail": "Still in use.", "code": "lab_in_use"}))
    client.release()
    client.destroy(force=False)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        f"Failed to release lab: POST {peer.url}/lab/release: 500: Ouch.",
        f"Failed to destroy lab: DELETE {peer.url}/lab?force=false: 409 lab_in_use: Still in use.",
    ]


def test_give_back_without_server(connect: Connect, peer: FakePeer, caplog: pytest.LogCaptureFixture) -> None:
    """A server that is gone makes no exception either."""
    client = connect()
    client._held.wire.address = Address("http://127.0.0.1:1")
    client.release()
    client.destroy()
    client.close()
    assert [record.message.split(" lab: ")[0] for record in caplog.records if record.levelname == "ERROR"] == [
        "Failed to release",
        "Failed to destroy",
    ]


def test_closed_client(peer: FakePeer, connect: Connect, topology: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After close there is nothing to give back, and asking for a lab says what to do."""
    client = connect()
    client.close()
    client.release()
    client.destroy()
    with pytest.raises(requests.RequestException, match="Make a new RemoteLabClient"):
        client.acquire(topology, True)
    assert "Failed" not in caplog.text
    assert peer.count("POST", "/lab/release") + peer.count("DELETE", "/lab") == 0
