"""A host that runs out: of threads, of open files, of places for connections."""

from __future__ import annotations

import http.client
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from footprint import wait_for_nothing, worker_of
from harness import STANDIN, Server, running, wait_until
from started import ServerStarted

PLAIN = "nodes: [ r1 ]\n"
NO_THREADS_FILE = "no-threads"
# Threads that were started before go on, as when a limit of the host is reached.
NO_THREADS = f"""
import os, threading
start = threading.Thread.start
def refuse(self):
    if os.path.exists(os.path.join(os.environ["REMOTE_LAB_STATE_DIR"], "{NO_THREADS_FILE}")):
        raise RuntimeError("can't start new thread")
    start(self)
threading.Thread.start = refuse
"""


@contextmanager
def without_threads(server: Server) -> Iterator[None]:
    """The host lets the server start no more threads meanwhile."""
    file = server.state_dir / NO_THREADS_FILE
    file.touch()
    try:
        yield
    finally:
        file.unlink()


@pytest.fixture
def threadless(tmp_path: Path) -> Iterator[Server]:
    server = ServerStarted(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN, TEARDOWN_SECONDS=2, SLOTS=2)
    server.statements = NO_THREADS
    with running(server):
        yield server


def test_no_thread_for_a_boot(threadless: Server) -> None:
    """503 with what to do; the slot is free at once, and the same request succeeds when there are threads again."""
    session_id = threadless.open_session()
    with without_threads(threadless):
        for headers in ({}, {"Prefer": "respond-async"}):
            files = {"topology": ("demo.yml", PLAIN)}
            answer = threadless.call("POST", "/lab", session_id, files=files, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (503, "server_unhealthy"), answer.text
            assert "can start no more threads" not in answer.text
            assert "start no more threads" in answer.json()["detail"]
            assert "Retry-After" in answer.headers
            assert threadless.call("GET", "/lab", session_id).json()["running"] is False
        assert threadless.call("GET", "/healthz").status_code == 204
    assert "No thread for the boot of lab" in threadless.log.read_text()
    wait_for_nothing(threadless)
    assert threadless.acquire(session_id, PLAIN).json()["reused"] is False


def test_no_thread_for_a_teardown(threadless: Server) -> None:
    """The end of the session is answered and on disk, the next is active; the reaper takes the lab down when it can."""
    ids = [threadless.open_session() for _ in range(4)]
    threadless.acquire(ids[0], PLAIN)
    threadless.acquire(ids[1], PLAIN)
    with without_threads(threadless):
        assert threadless.call("DELETE", f"/session/{ids[0]}").status_code == 204
        answer = threadless.acquire(ids[1], "nodes: [ r2 ]\n", reuse=False)
        assert answer.json()["code"] == "lab_busy"
        threadless.call("POST", "/lab/release", ids[1])
        answer = threadless.acquire(ids[1], "nodes: [ r2 ]\n")
        assert (answer.status_code, answer.json()["code"]) == (503, "server_unhealthy")
        assert [threadless.status(one) for one in ids[2:]] == [("active", 1), ("waiting", 2)]
    assert "No thread for the teardown of lab" in threadless.log.read_text()
    assert threadless.acquire(ids[2], PLAIN).status_code == 200
    assert threadless.status(ids[3]) == ("waiting", 2)
    assert threadless.acquire(ids[1], "nodes: [ r2 ]\n").status_code == 200


@contextmanager
def open_files_of(pid: int, count: int) -> Iterator[None]:
    """A process may have so many open files meanwhile; those it has stay open."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spins(pid: int) -> bool:
    """Whether a process uses most of a processor, in the two seconds after this call."""
    before, began = cpu_seconds(pid), time.monotonic()
    threading.Event().wait(2.0)
    return cpu_seconds(pid) - before > 0.6 * (time.monotonic() - began)


def test_no_open_file_left(standin: Server) -> None:
    """New clients wait, nobody spins, nothing is lost; a request that cannot be served is told to come again."""
    session_id = standin.open_session()
    standin.acquire(session_id, PLAIN)
    worker = worker_of(standin)
    known = http.client.HTTPConnection("127.0.0.1", standin.port, timeout=30)
    known.connect()
    known.request("GET", f"/session/{session_id}")
    known.getresponse().read()
    with open_files_of(worker, 3):
        known.request("POST", "/lab", f"{'x' * 100}", {"X-Session-ID": session_id, "Content-Type": "text/plain"})
        assert known.getresponse().status in (422, 503)
        waits = socket.create_connection(("127.0.0.1", standin.port))
        waits.sendall(b"GET /healthz HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
        wait_until(lambda: "no connection can be taken, Too many open files" in standin.log.read_text(), "it is said")
        assert not spins(worker)
    with waits:
        waits.settimeout(30)
        assert b" 204 " in waits.recv(100)
    known.close()
    assert worker_of(standin) == worker
    assert standin.status(session_id) == ("active", 0)
    assert standin.acquire(session_id, PLAIN).json()["reused"] is True


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Server]:
    """One that may have 256 open files, and so takes 128 connections with 8 threads."""
    server = ServerStarted(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN, THREADS=8)
    server.prefix = ("prlimit", "--nofile=256:256")
    with running(server):
        yield server


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTTP/1.1\r\n"], ids=["silent", "half a request"])
def test_more_connections_than_places(small: Server, said: bytes) -> None:
    """Others are answered all the same, and files are left for what they ask."""
    session_id = small.open_session()
    worker = worker_of(small)
    with ExitStack() as stack:
        for _ in range(300):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", small.port)))
            connection.sendall(said)
        assert small.call("GET", "/healthz").status_code == 204
        assert small.acquire(session_id, PLAIN).status_code == 200
        assert "Crowded: all 128 places for connections are taken" in small.log.read_text()
        assert len(os.listdir(f"/proc/{worker}/fd")) < 200
        assert not spins(worker)
    assert worker_of(small) == worker
    assert small.acquire(session_id, PLAIN).json()["reused"] is True


def test_too_few_open_files_stop_the_start(tmp_path: Path) -> None:
    """One sentence with the setting, the limit and what is needed."""
    server = ServerStarted(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN, THREADS=32)
    server.prefix = ("prlimit", "--nofile=256:256")
    assert server.spawn().wait(60) == 1
    said = server.log.read_text()
    assert "REMOTE_LAB_THREADS='32' cannot be used: expected fewer threads, or more open files than 256: 384" in said
    assert not (server.state_dir / "remote-lab.sqlite3").exists()
