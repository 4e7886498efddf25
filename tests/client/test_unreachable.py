"""What people read when no Remote Lab Manager answers: one sentence, never what `requests` says to its developers."""

from __future__ import annotations

import logging
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import urllib3
from harness import CALL_SECONDS, Server, free_port

from remote_lab.client import RemoteLabClient, RemoteLabHTTPError, ServerSilentError, ServerUnreachableError
from remote_lab.client.unreachable import unreachable

from .fake_peer import FakePeer, Reply

Connect = Callable[..., RemoteLabClient]
LOOK = "Is REMOTE_LAB_URL right, does the server run?"


@contextmanager
def answering(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port whose connections are served so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    serve(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(CALL_SECONDS)


def test_nobody_listens() -> None:
    """The sentence has the address, the reason and where to look; the exception is that of `requests` as well."""
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ServerUnreachableError) as caught:
        RemoteLabClient(url)
    assert str(caught.value) == f"No Remote Lab Manager answers at {url}: connection refused. {LOOK}"
    assert isinstance(caught.value, requests.ConnectionError)
    assert not isinstance(caught.value, requests.Timeout)
    assert type(caught.value.__cause__) is requests.ConnectionError
    assert caught.value.request is not None


def test_a_name_that_is_not_known() -> None:
    """It is the name, not the server."""
    with pytest.raises(ServerUnreachableError, match=r"at http://lab\.invalid:8000: its name cannot be resolved \("):
        RemoteLabClient("http://lab.invalid:8000")


def test_a_password_is_not_shown() -> None:
    """Neither in the sentence."""
    with pytest.raises(ServerUnreachableError) as caught:
        RemoteLabClient(f"http://alice:secret@127.0.0.1:{free_port()}")
    assert "secret" not in str(caught.value)


def test_a_server_that_hangs_up() -> None:
    """Without an answer."""

    def read_request(connection: socket.socket) -> None:
        connection.recv(65536)

    with (
        answering(read_request) as port,
        pytest.raises(ServerUnreachableError, match=r"(hung up without an answer|connection reset by peer)\. Is "),
    ):
        RemoteLabClient(f"http://127.0.0.1:{port}")


def test_a_reset_connection(peer: FakePeer) -> None:
    """In the middle of a request."""
    peer.says("POST", "/session", Reply(201, hangs_up=True))
    with pytest.raises(ServerUnreachableError, match=r"(connection reset by peer|hung up without an answer)\. Is "):
        RemoteLabClient(peer.url)


def test_a_server_that_says_nothing(peer: FakePeer) -> None:
    """A timeout of `requests` as well, which names the request and the setting."""
    hold = threading.Event()
    peer.says("POST", "/session", Reply(201, hold=hold))
    with pytest.raises(ServerSilentError) as caught:
        RemoteLabClient(peer.url, request_timeout=0.05)
    hold.set()
    assert str(caught.value).startswith(f"{peer.url} has not answered POST /session within 0.05 s. ")
    assert "REMOTE_LAB_REQUEST_TIMEOUT" in str(caught.value)
    assert isinstance(caught.value, requests.Timeout)
    assert isinstance(caught.value, requests.ConnectionError)


def test_a_get_that_was_tried_again_says_the_same(peer: FakePeer, connect: Connect) -> None:
    """What `requests` calls "Max retries exceeded" is a silent server."""
    client = connect(request_timeout=0.05)
    hold = threading.Event()
    peer.says("GET", "/lab", Reply(200, hold=hold))
    with pytest.raises(ServerSilentError, match=r"has not answered GET /lab within 0\.05 s"):
        client.status()
    hold.set()


def test_no_connection_in_time() -> None:
    """A firewall that drops packets; `requests` calls it ConnectTimeout."""
    cause = requests.ConnectTimeout(urllib3.exceptions.ConnectTimeoutError(None, "timed out"))
    error = unreachable(cause, "http://lab:8000", "POST /session", (3.0, 30.0))
    assert str(error) == f"No Remote Lab Manager answers at http://lab:8000: no connection within 3 s. {LOOK}"
    assert isinstance(error, requests.Timeout)


def test_https_where_there_is_none(peer: FakePeer) -> None:
    """The URL has one s too many."""
    with pytest.raises(ServerUnreachableError, match=r"^No TLS with https://.*Is it http:// and not https://\?$"):
        RemoteLabClient(peer.url.replace("http:", "https:"))


def test_https_where_nobody_shakes_hands() -> None:
    """A server that speaks HTTP may wait for more of what it takes for a request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ServerSilentError) as caught:
            RemoteLabClient(url, request_timeout=0.05)
    assert str(caught.value) == f"No TLS with {url} within 0.05 s. Is it http:// and not https://?"


def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    """Why, and how to trust it."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=lab"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=CALL_SECONDS)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)

    def shake_hands(connection: socket.socket) -> None:
        with pytest.raises(ssl.SSLError):
            tls.wrap_socket(connection, server_side=True)

    with answering(shake_hands) as port, pytest.raises(ServerUnreachableError) as caught:
        RemoteLabClient(f"https://127.0.0.1:{port}")
    assert str(caught.value).startswith(f"The certificate of https://127.0.0.1:{port} is not trusted: self")
    assert "REQUESTS_CA_BUNDLE" in str(caught.value)


def test_a_proxy_that_is_not_there(peer: FakePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the proxy, not the server."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(ServerUnreachableError, match=r"^The proxy to .*: connection refused\. .*NO_PROXY\.$"):
        RemoteLabClient(peer.url)


def test_a_redirect_says_where_to(peer: FakePeer) -> None:
    """It is not followed, credentials go nowhere else."""
    peer.says("POST", "/session", Reply(302, "", {"Location": "https://sso.example.org/login"}))
    with pytest.raises(
        RemoteLabHTTPError, match=r"302: .*https://sso\.example\.org/login\. Redirects are not followed"
    ):
        RemoteLabClient(peer.url)


@pytest.mark.parametrize("status", [404, 502])
def test_a_page_of_somebody_else(peer: FakePeer, status: int) -> None:
    """No HTML is shown, and it is said that no Remote Lab Manager wrote it."""
    peer.says("POST", "/session", Reply(status, "<html><h1>nginx</h1></html>"))
    with pytest.raises(RemoteLabHTTPError) as caught:
        RemoteLabClient(peer.url)
    assert str(caught.value).endswith(f", and not from a Remote Lab Manager. {LOOK}")
    assert "<" not in str(caught.value)


def test_who_reads_a_log_cannot_use_the_session(
    server: Server, join_server: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors and log lines have the first 8 characters of its id, those of urllib3 as well; exceptions keep all."""
    client = join_server(request_timeout=5)
    session_id = client.session_id
    with caplog.at_level(logging.DEBUG):
        with pytest.raises(RemoteLabHTTPError) as refused:
            client.extend(1e9)
        assert f"/session/{session_id[:8]}/extend" in str(refused.value)
        assert session_id in refused.value.response.url
        server.end_session(session_id)
        with pytest.raises(RemoteLabHTTPError) as gone:
            client.waiting()
        with pytest.raises(RemoteLabHTTPError):
            client.status()
        nobody = f"http://127.0.0.1:{free_port()}"
        with pytest.raises(TimeoutError) as lost:
            join_server(base_url=nobody, session_id=session_id, session_timeout=0.1).close()
    said = [str(refused.value), str(gone.value), str(lost.value), caplog.text]
    assert [session_id[:8] in text for text in said] == [True] * 4
    assert [session_id in text for text in said] == [False] * 4
