"""Tokens and passwords: they reach the server they are for, and nobody else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_lab.client import RemoteLabClient, RemoteLabHTTPError

from .fake_peer import FakePeer, Reply

Connect = Callable[..., RemoteLabClient]


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ~/.netrc that has something for the server's host."""
    path = tmp_path / "netrc"
    path.write_text("machine 127.0.0.1 login mallory password other\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))


def sent(peer: FakePeer) -> set[str | None]:
    return {asked.headers.get("authorization") for asked in peer.asked}


@pytest.mark.usefixtures("netrc")
def test_a_token_is_sent_with_every_request(peer: FakePeer, connect: Connect, topology: Path) -> None:
    """Also by the heartbeat, and ~/.netrc does not replace it."""
    client = connect(token="s3cret", heartbeat=0.01)
    peer.wait_for("POST", "/session/heartbeat", 1)
    client.acquire(topology, True)
    client.close()
    assert sent(peer) == {"Bearer s3cret"}


@pytest.mark.usefixtures("netrc")
def test_a_token_of_the_environment(peer: FakePeer, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """REMOTE_LAB_TOKEN counts when no argument does."""
    monkeypatch.setenv("REMOTE_LAB_TOKEN", " from-env\n")
    connect().close()
    connect(token="argument").close()
    assert sent(peer) == {"Bearer from-env", "Bearer argument"}


@pytest.mark.usefixtures("netrc")
def test_a_user_in_the_url(peer: FakePeer, connect: Connect) -> None:
    """Goes as Basic credentials, unquoted, and stays out of `base_url`."""
    client = connect(base_url=peer.url.replace("//", "//al%40ce:s%2Fecret@"))
    assert client.base_url == peer.url
    assert sent(peer) == {"Basic YWxAY2U6cy9lY3JldA=="}


@pytest.mark.usefixtures("netrc")
def test_without_credentials_those_of_netrc(
    peer: FakePeer, connect: Connect, topology: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read once, like the rest of the environment, for all that the client does: also on threads of its own."""
    client = connect(heartbeat=0.01)
    monkeypatch.delenv("NETRC")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    beats = peer.count("POST", "/session/heartbeat")
    peer.wait_for("POST", "/session/heartbeat", beats + 1)
    client.acquire(topology, True)
    client.close()
    assert sent(peer) == {"Basic bWFsbG9yeTpvdGhlcg=="}


@pytest.mark.parametrize("how", ["token", "url"])
def test_nothing_secret_is_shown(
    peer: FakePeer, connect: Connect, caplog: pytest.LogCaptureFixture, topology: Path, how: str
) -> None:
    """Neither in a log line, nor in an exception with all its causes, nor in a repr."""
    secret = {"token": "s3cret"} if how == "token" else {"base_url": peer.url.replace("//", "//alice:s3cret@")}
    with caplog.at_level(logging.DEBUG):
        client = connect(**secret, request_timeout=1)
        peer.says("POST", "/lab", Reply(500, {"detail": "Ouch."}))
        with pytest.raises(RemoteLabHTTPError) as refused:
            client.acquire(topology, True)
        peer.says("GET", "/lab/devices", Reply(0, hangs_up=True))
        with pytest.raises(OSError, match="127") as lost:
            client.devices()
    shown = f"{client!r} {vars(client)} {client._held.wire.address!r} {refused.value!r} {lost.value!r} {caplog.text}"
    assert "s3cret" not in shown
    assert "YWxpY2U6czNjcmV0" not in shown


def test_redirects_are_not_followed(peer: FakePeer, connect: Connect) -> None:
    """A token and a session id go where they were meant to, and the message says where the server sends people."""
    other = FakePeer()
    try:
        peer.says("POST", "/session", Reply(308, "", {"Location": f"{other.url}/session"}))
        with pytest.raises(RemoteLabHTTPError, match=f"308: the server says that this is at {other.url}/session"):
            connect(token="s3cret")
        assert other.asked == []
    finally:
        other.stop()


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "\N{SNOWMAN}"])
def test_a_token_that_no_header_can_carry(peer: FakePeer, connect: Connect, token: str) -> None:
    """Is refused without being shown."""
    with pytest.raises(ValueError, match="token cannot be sent") as caught:
        connect(token=token)
    assert token not in str(caught.value)


def test_two_kinds_of_credentials(peer: FakePeer, connect: Connect) -> None:
    """One header cannot carry both, and which one counts is not for us to guess."""
    with pytest.raises(ValueError, match="both a token and a user") as caught:
        connect(base_url=peer.url.replace("//", "//alice:s3cret@"), token="t0ken")
    assert not {"s3cret", "t0ken"} & set(str(caught.value).replace(":", " ").split())


@pytest.mark.parametrize("url", ["lab-host:8000", "ftp://lab-host", "http://", "http://al:s3cret@lab:port", "/tmp/x"])
def test_no_address(connect: Connect, url: str) -> None:
    """What is no URL of a server is said, without a password that stands in it."""
    with pytest.raises(ValueError, match="is no address of a server") as caught:
        connect(base_url=url)
    assert "s3cret" not in str(caught.value)
