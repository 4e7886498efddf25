"""A session that brings the lab it will want, and servers that do not take it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_lab.client import RemoteLabClient, RemoteLabHTTPError

from .fake_peer import FakePeer, Reply

Connect = Callable[..., RemoteLabClient]


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A topology with an extra file beside it."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "r1.j2").write_text("hostname r1\n")
    topology = tmp_path / "demo.yml"
    topology.write_text("nodes: [ r1 ]\n")
    return topology


def test_the_lab_comes_with_what_the_session_says_of_itself(peer: FakePeer, connect: Connect, lab: Path) -> None:
    """In one request, with extra files as an acquire sends them."""
    connect(purpose="nightly", topology=lab, extra_files=[lab.parent / "configs" / "r1.j2"])
    [asked] = peer.requests("POST", "/session")
    assert sorted(asked.parts, key=str) == [
        ("extra_files", "configs/r1.j2", b"hostname r1\n"),
        ("purpose", None, b"nightly"),
        ("topology", "demo.yml", b"nodes: [ r1 ]\n"),
    ]


@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 422, 429, 503])
def test_a_server_that_does_not_take_it_gets_a_session_without(
    peer: FakePeer, connect: Connect, lab: Path, status: int
) -> None:
    """What it has against the lab it says when that is acquired."""
    refused = Reply(status, {"detail": "no", "code": "storage_full"})
    peer.says("POST", "/session", refused, Reply(201, {"session_id": "s-1", "position": 7}))
    assert connect(purpose="nightly", topology=lab).session_id == "s-1"
    assert json.loads(peer.requests("POST", "/session")[-1].body) == {"purpose": "nightly"}


@pytest.mark.parametrize("status", [401, 500, 503])
def test_other_refusals_are_not_asked_for_twice(peer: FakePeer, connect: Connect, lab: Path, status: int) -> None:
    """Without the lab it would be the same, or nobody knows whether a session was opened."""
    peer.says("POST", "/session", Reply(status, {"detail": "no"}))
    with pytest.raises(RemoteLabHTTPError):
        connect(topology=lab)
    assert peer.count("POST", "/session") == 1


def test_a_file_that_cannot_be_read_opens_no_session(peer: FakePeer, connect: Connect, tmp_path: Path) -> None:
    """OSError, as of an acquire."""
    with pytest.raises(FileNotFoundError):
        connect(topology=tmp_path / "nowhere.yml")
    assert peer.asked == []
