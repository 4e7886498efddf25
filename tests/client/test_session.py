"""Opening, waiting for, keeping and ending a session."""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable

import pytest
import requests

from remote_lab.client import RemoteLabClient, RemoteLabHTTPError, SessionGoneError

from .fake_peer import FakePeer, Reply

Connect = Callable[..., RemoteLabClient]
WAITING = Reply(200, {"status": "waiting", "position": 2})
ACTIVE = Reply(200, {"status": "active", "position": 0})


def test_constructor_has_the_documented_arguments() -> None:
    """Names and order of the arguments are what scripts rely on; only the first four go by position."""
    parameters = inspect.signature(RemoteLabClient).parameters.values()
    assert [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY] == [
        "base_url",
        "request_timeout",
        "session_timeout",
        "lab_acquisition_timeout",
    ]


def test_constructor_returns_when_active(peer: FakePeer, connect: Connect) -> None:
    """The constructor polls until it is this session's turn."""
    peer.says("GET", "/session/s-1", WAITING, WAITING, ACTIVE)
    client = connect()
    assert (client.session_id, peer.count("GET", "/session/s-1")) == ("s-1", 3)


def test_default_timeouts(connect: Connect) -> None:
    """A request has 30 s, the queue and an acquire 600 s each."""
    client = connect()
    assert (client.request_timeout, client.session_timeout, client.lab_acquisition_timeout) == (30, 600, 600)


def test_environment_stands_in_for_arguments(peer: FakePeer, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not given is read from the environment."""
    monkeypatch.setenv("REMOTE_LAB_URL", peer.url + "/")
    monkeypatch.setenv("REMOTE_LAB_REQUEST_TIMEOUT", "1.5")
    monkeypatch.setenv("REMOTE_LAB_SESSION_TIMEOUT", "2")
    monkeypatch.setenv("REMOTE_LAB_ACQUISITION_TIMEOUT", "3")
    client = connect(base_url=None)
    assert client.base_url == peer.url
    assert (client.request_timeout, client.session_timeout, client.lab_acquisition_timeout) == (1.5, 2, 3)


def test_arguments_win_over_the_environment(peer: FakePeer, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument wins, also when it equals the default."""
    monkeypatch.setenv("REMOTE_LAB_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("REMOTE_LAB_REQUEST_TIMEOUT", "1.5")
    client = connect(request_timeout=30)
    assert (client.base_url, client.request_timeout) == (peer.url, 30)


def test_no_url() -> None:
    """Without a URL the error names both ways to give one."""
    with pytest.raises(ValueError, match=r"base_url.*REMOTE_LAB_URL"):
        RemoteLabClient()


@pytest.mark.parametrize("value", ["soon", "0", "-3", "nan", "inf"])
def test_unusable_timeout_in_the_environment(peer: FakePeer, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A timeout that can't be used is named with its value before a session is opened."""
    monkeypatch.setenv("REMOTE_LAB_SESSION_TIMEOUT", value)
    with pytest.raises(ValueError, match=f"REMOTE_LAB_SESSION_TIMEOUT='{value}'"):
        RemoteLabClient(peer.url)
    assert peer.asked == []


def test_timeout_gives_the_queue_entry_back(peer: FakePeer, connect: Connect) -> None:
    """A session that is not active in time is deleted; the error says where it stood."""
    peer.says("GET", "/session/s-1", WAITING)
    with pytest.raises(TimeoutError, match=r"within 0\.05 s \(position 2\)"):
        connect(session_timeout=0.05)
    assert peer.count("DELETE", "/session/s-1") == 1


def test_interrupt_gives_the_queue_entry_back(
    peer: FakePeer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while waiting deletes the session before it goes on its way."""

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    peer.says("GET", "/session/s-1", WAITING)
    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        connect()
    assert peer.count("DELETE", "/session/s-1") == 1


def test_session_that_ended_while_waiting(peer: FakePeer, connect: Connect) -> None:
    """404 while waiting ends the waiting at once, with the server's reason."""
    gone = {"detail": "Session 's-1' ended at noon: silent for 600 s.", "code": "session_not_found"}
    peer.says("GET", "/session/s-1", WAITING, Reply(404, gone))
    with pytest.raises(SessionGoneError, match=r"404 session_not_found: .*silent for 600 s") as caught:
        connect()
    assert (caught.value.code, caught.value.detail) == ("session_not_found", gone["detail"])
    assert peer.count("GET", "/session/s-1") == 2


def test_peer_without_codes(peer: FakePeer, connect: Connect) -> None:
    """A server that gives no codes is understood by its status and sentence."""
    peer.says("GET", "/session/s-1", Reply(404, {"detail": "Session not found"}))
    with pytest.raises(RemoteLabHTTPError, match="404: Session not found") as caught:
        connect()
    assert caught.value.code is None


def test_troubled_server_is_waited_for(peer: FakePeer, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """A server that answers 503 for a while, as behind a proxy during a restart, costs nobody the place."""
    peer.says("GET", "/session/s-1", *[Reply(503, "<html>")] * 5, ACTIVE)
    with caplog.at_level(logging.WARNING):
        connect()
    assert "asking again" in caplog.text
    assert peer.count("POST", "/session") == 1


def test_vanished_server_is_waited_for_until_the_deadline(peer: FakePeer, connect: Connect) -> None:
    """A server that cannot be reached any more ends in TimeoutError, with the reason as its cause."""
    hold = threading.Event()
    peer.says("GET", "/session/s-1", Reply(200, WAITING.body, hold=hold))
    with pytest.raises(TimeoutError, match="has not answered GET /session/s-1") as caught:
        connect(session_timeout=0.01, request_timeout=0.05)
    hold.set()
    assert isinstance(caught.value.__cause__, requests.RequestException)


def test_refused_session(peer: FakePeer, connect: Connect) -> None:
    """A full queue is reported as the server words it; POST is not tried again."""
    peer.says("POST", "/session", Reply(503, {"detail": "The queue is full.", "code": "queue_full"}))
    with pytest.raises(RemoteLabHTTPError, match="The queue is full") as caught:
        connect()
    assert (caught.value.code, peer.count("POST", "/session")) == ("queue_full", 1)


@pytest.mark.parametrize("body", ["<html>Log in</html>", [], {"session_id": "s-1"}, {"position": None}])
def test_wrong_server(peer: FakePeer, connect: Connect, body: object) -> None:
    """A 200 that no Remote Lab Manager can have sent leads to the URL."""
    peer.says("POST", "/session", Reply(200, body))
    with pytest.raises(RemoteLabHTTPError, match="Check the URL"):
        connect()


def test_retry_after_shortens_the_pause(peer: FakePeer, connect: Connect) -> None:
    """The server says when asking again makes sense; a pause of an hour would end this test."""
    peer.says("GET", "/session/s-1", Reply(200, WAITING.body, {"Retry-After": "0"}), ACTIVE)
    connect(poll_seconds=3600)


def test_retry_after_prolongs_the_pause(peer: FakePeer, connect: Connect) -> None:
    """Between two looks lies at least what the server asked for."""
    peer.says("GET", "/session/s-1", Reply(200, WAITING.body, {"Retry-After": "0.2"}), ACTIVE)
    began = time.monotonic()
    connect(poll_seconds=0)
    assert time.monotonic() - began >= 0.2


def test_get_and_delete_are_tried_four_times(peer: FakePeer, connect: Connect) -> None:
    """What can be repeated without harm is tried three times more, and the last answer's reason is kept."""
    client = connect()
    peer.says("GET", "/lab/devices", Reply(503, {"detail": "Back in a moment.", "code": "server_busy"}))
    with pytest.raises(RemoteLabHTTPError, match="Back in a moment"):
        client.devices()
    assert peer.count("GET", "/lab/devices") == 4


def test_retries_pause_exponentially(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses double, by a factor of 1 s."""
    monkeypatch.undo()
    adapter = connect()._held.wire._http.get_adapter("http://127.0.0.1")
    assert (adapter.max_retries.total, adapter.max_retries.backoff_factor) == (3, 1)
    assert "POST" not in adapter.max_retries.allowed_methods


def test_post_is_sent_once(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """A server that refuses the connection is reported at once: a POST is not repeated, whatever became of it."""
    with pytest.raises(requests.ConnectionError):
        connect(base_url="http://127.0.0.1:1")
    assert "Retrying" not in caplog.text


def test_context_manager_ends_the_session(peer: FakePeer) -> None:
    """Leaving the block ends the session, also by an exception."""
    with pytest.raises(ZeroDivisionError), RemoteLabClient(peer.url) as client:
        1 / 0  # noqa: B018  any exception will do
    assert (client.session_id, peer.count("DELETE", "/session/s-1")) == ("", 1)


def test_close_is_idempotent(peer: FakePeer, connect: Connect) -> None:
    """The second close says nothing to the server."""
    client = connect()
    client.close()
    client.close()
    assert (client.session_id, peer.count("DELETE", "/session/s-1")) == ("", 1)


def test_close_of_a_session_that_is_gone(peer: FakePeer, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """404 on close is what close wanted."""
    client = connect()
    peer.says("DELETE", "/session/s-1", Reply(404, {"detail": "gone"}))
    client.close()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_close_without_server(peer: FakePeer, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """A server that fails at the end is a warning, not an exception."""
    client = connect(request_timeout=1)
    peer.says("DELETE", "/session/s-1", Reply(500, {"detail": "Ouch."}))
    client.close()
    assert [(r.levelname, r.message) for r in caplog.records if r.levelno >= logging.WARNING] == [
        (
            "WARNING",
            f"Failed to close session s-1, it ends when stale: DELETE {peer.url}/session/s-1: 500: Ouch.",
        )
    ]
    assert client.session_id == ""


def test_heartbeat_goes_on_by_itself(peer: FakePeer, connect: Connect) -> None:
    """While the test says nothing, the session is kept alive in its name."""
    connect(heartbeat=0.01)
    peer.wait_for("POST", "/session/heartbeat", 3)
    assert peer.requests("POST", "/session/heartbeat")[0].headers["x-session-id"] == "s-1"


def test_heartbeat_survives_a_troubled_server(
    peer: FakePeer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed heartbeat is a warning, and the next one follows."""
    peer.says("POST", "/session/heartbeat", Reply(502), Reply(204))
    connect(heartbeat=0.01)
    peer.wait_for("POST", "/session/heartbeat", 3)
    assert "Heartbeat of session s-1 failed" in caplog.text


def test_heartbeat_ends_with_its_session(peer: FakePeer, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """When the server says that the session is gone, that is logged as an error and no more are sent."""
    peer.says("POST", "/session/heartbeat", Reply(404, {"detail": "Lease over.", "code": "session_not_found"}))
    client = connect(heartbeat=0.01)
    client._held.heartbeat._thread.join(10)
    assert not client._held.heartbeat._thread.is_alive()
    assert peer.count("POST", "/session/heartbeat") == 1
    assert next(r.message for r in caplog.records if r.levelname == "ERROR").endswith("Lease over.")


def test_close_ends_the_heartbeat(connect: Connect) -> None:
    """No thread is left behind, and none could keep Python from ending."""
    client = connect(heartbeat=60)
    thread = client._held.heartbeat._thread
    assert thread.daemon
    client.close()
    thread.join(10)
    assert not thread.is_alive()


def test_heartbeat_can_be_off(connect: Connect) -> None:
    """`heartbeat=None` starts no thread."""
    connect(heartbeat=None)
    assert "remote-lab-heartbeat-s-1" not in [thread.name for thread in threading.enumerate()]


def test_user_info_is_sent_and_not_logged(peer: FakePeer, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """A password in the URL reaches the server, and neither log nor error shows it."""
    peer.says("GET", "/session/s-1", Reply(401, {"detail": "Who are you?"}))
    with caplog.at_level(logging.DEBUG, "remote_lab"), pytest.raises(RemoteLabHTTPError) as caught:
        connect(base_url=peer.url.replace("//", "//alice:secret@"))
    assert peer.asked[0].headers["authorization"].startswith("Basic ")
    assert "secret" not in caplog.text + str(caught.value)
