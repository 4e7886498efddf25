"""The sample for nginx, in a real nginx in front of a real server."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from harness import CALL_SECONDS, ROOT, STANDIN, Server, free_port, running, wait_until

from remote_lab.client import RemoteLabClient
from remote_lab.config import Config

SAMPLE = ROOT / "deploy" / "nginx" / "remote-lab.conf"
MIB = 1024 * 1024
AUTH = ("ci", "secret")
SLOW = "standin: { up_seconds: 2.5 }\nnodes: [ r1, r2 ]\n"

# What a site could have set for everybody: too little for labs, so that whatever works, works by what the sample says.
MAIN = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_read_timeout 1s;
    client_max_body_size 1m;
    include {folder}/site.conf;
}}
"""


def find_nginx() -> str:
    """nginx of this machine, or the one that `make test` unpacked."""
    places = [os.environ["PATH"], "/usr/sbin", str(ROOT / ".venv/nginx/usr/sbin")]
    found = shutil.which("nginx", path=":".join(places))
    assert found, "there is no nginx: `make lint` gets one, or install Debian's package nginx"
    return found


class Proxy:
    """The sample with addresses and files of a test, and nothing else of it changed."""

    def __init__(self, folder: Path, upstream: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.certificate = folder / "certificate.pem"
        key, passwords = folder / "key.pem", folder / "htpasswd"
        name = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
        new = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *name)
        subprocess.run([*new, "-keyout", key, "-out", self.certificate], check=True, capture_output=True)
        crypted = subprocess.check_output(["openssl", "passwd", "-apr1", AUTH[1]], text=True)
        passwords.write_text(f"{AUTH[0]}:{crypted}")
        site = SAMPLE.read_text()
        for sample, here in {
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "http://127.0.0.1:8000": upstream,
            "/etc/ssl/certs/remote-lab.pem": str(self.certificate),
            "/etc/ssl/private/remote-lab.key": str(key),
            "auth_basic_user_file /etc/nginx/remote-lab.htpasswd": f"auth_basic_user_file {passwords}",
        }.items():
            assert sample in site
            site = site.replace(sample, here)
        (folder / "site.conf").write_text(site)
        # Started by root, nginx would go on as a user who cannot read this folder.
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user))
        self.command = [find_nginx(), "-e", folder / "error.log", "-c", folder / "nginx.conf", "-p", folder]

    def call(
        self, method: str, path: str, auth: tuple[str, str] | None = AUTH, **arguments: object
    ) -> requests.Response:
        settings = {"verify": str(self.certificate), "timeout": CALL_SECONDS, **arguments}
        return requests.request(method, f"{self.url}{path}", auth=auth, **settings)  # type: ignore[arg-type]

    @contextmanager
    def serving(self) -> Iterator[Proxy]:
        nginx = subprocess.Popen(self.command, cwd=self.folder, stdin=subprocess.DEVNULL)
        try:

            def answers() -> bool:
                assert nginx.poll() is None, (self.folder / "error.log").read_text()
                try:
                    return self.call("GET", "/healthz").status_code > 0
                except requests.ConnectionError:
                    return False

            wait_until(answers, "nginx answers")
            yield self
        finally:
            nginx.terminate()
            nginx.wait(CALL_SECONDS)


@pytest.fixture(scope="module")
def behind() -> Iterator[Callable[[Path, str], Proxy]]:
    """Put nginx in front of an address, until the tests of this module are over."""
    with ExitStack() as stack:
        yield lambda folder, upstream: stack.enter_context(Proxy(folder, upstream).serving())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with running(Server(folder / "state", PROVIDER="clab", NETLAB=STANDIN)) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(server: Server, behind: Callable[[Path, str], Proxy], tmp_path_factory: pytest.TempPathFactory) -> Proxy:
    return behind(tmp_path_factory.mktemp("nginx"), server.url)


@pytest.fixture
def session(proxy: Proxy) -> Iterator[dict[str, str]]:
    """The headers of an active session."""
    answer = proxy.call("POST", "/session")
    assert answer.status_code == 201, answer.text
    session_id = answer.json()["session_id"]
    wait_until(lambda: proxy.call("GET", f"/session/{session_id}").json()["status"] == "active", "it is active")
    yield {"X-Session-ID": session_id}
    proxy.call("DELETE", f"/session/{session_id}")


def test_nginx_has_nothing_to_say_about_the_sample(tmp_path: Path) -> None:
    """`nginx -t` passes without a warning."""
    result = subprocess.run(
        [*Proxy(tmp_path, "http://127.0.0.1:8000").command, "-t"],
        capture_output=True,
        text=True,
        timeout=CALL_SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert [line for line in result.stderr.splitlines() if "[" in line] == []


def test_the_client_gets_a_lab_that_boots_slowly(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With user and password in its URL, by a boot that takes longer than this nginx waits by default."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(proxy.certificate))
    topology = tmp_path / "slow.yml"
    topology.write_text(SLOW)
    client = RemoteLabClient(proxy.url.replace("//", f"//{AUTH[0]}:{AUTH[1]}@"), session_timeout=60)
    try:
        assert [device.name for device in client.acquire(topology, reuse=True)] == ["r1", "r2"]
        client.release()
        client.destroy()
    finally:
        client.close()


def test_uploads_as_large_as_the_server_takes_come_through(proxy: Proxy, session: dict[str, str]) -> None:
    """And one that is too large is refused by the server, which says what its limit is."""

    def upload(size_bytes: int) -> requests.Response:
        files = [("topology", ("demo.yml", "nodes: [ r1 ]\n")), ("extra_files", ("big.bin", b"x" * size_bytes))]
        return proxy.call("POST", "/lab", headers=session, files=files)

    assert upload(10 * MIB - 1000).status_code == 200
    refused = upload(10 * MIB + 200_000)
    assert (refused.status_code, refused.json()["code"]) == (413, "upload_too_large")
    assert "proxy" not in refused.json()["detail"]


def test_what_even_nginx_refuses_is_an_error_like_the_servers(proxy: Proxy, session: dict[str, str]) -> None:
    """JSON with a detail and a code, never a page."""
    answer = proxy.call("POST", "/lab", headers=session, files={"topology": ("demo.yml", b"x" * 12 * MIB)})
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
    assert "proxy" in answer.json()["detail"]


def test_only_monitoring_needs_no_password(proxy: Proxy) -> None:
    """Everybody else is told how to say it."""
    assert proxy.call("GET", "/healthz", auth=None).status_code == 204
    refused = proxy.call("POST", "/session", auth=None)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    assert refused.headers["WWW-Authenticate"] == 'Basic realm="Remote Lab"'
    assert refused.headers["Content-Type"] == "application/json"


def test_while_the_server_is_down_clients_hear_that_it_comes_back(
    behind: Callable[[Path, str], Proxy], tmp_path: Path
) -> None:
    """502 as JSON, with Retry-After."""
    answer = behind(tmp_path, f"http://127.0.0.1:{free_port()}").call("GET", "/active-session")
    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (502, "bad_gateway", "5")


def test_a_followed_log_arrives_line_by_line(behind: Callable[[Path, str], Proxy], tmp_path: Path) -> None:
    """The second event is sent when the client has read the first; nginx holds back neither."""
    first_was_read = threading.Event()

    class Upstream(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for event in ("first", "second"):
                data = f"data: {event}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()
                if not first_was_read.wait(5):
                    return
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    try:
        first_was_read.set()
        proxy = behind(tmp_path, f"http://127.0.0.1:{upstream.server_address[1]}")
        first_was_read.clear()
        with proxy.call("GET", "/lab/log?follow=1", stream=True, headers={"Accept-Encoding": "gzip"}) as answer:
            events = (line for line in answer.iter_lines() if line)
            assert next(events) == b"data: first"
            first_was_read.set()
            assert list(events) == [b"data: second"]
    finally:
        upstream.shutdown()
        upstream.server_close()


def test_nginx_waits_longer_than_any_call_takes_by_default() -> None:
    """The time and the size in the sample fit the settings that nobody changed."""
    config = Config()
    sample = SAMPLE.read_text()
    assert "\n    proxy_read_timeout 45m;\n" in sample
    assert config.boot_seconds + 2 * config.teardown_seconds < 45 * 60
    assert "\n    client_max_body_size 11m;\n" in sample
    assert config.max_upload_bytes + 64 * 1024 < 11 * MIB <= config.max_upload_bytes + MIB
