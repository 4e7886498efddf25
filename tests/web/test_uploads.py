"""What POST /lab takes and refuses, over the wire."""

from __future__ import annotations

import select
import socket
from typing import Any

import pytest
from harness import Server, list_labs, wait_until

TOPOLOGY = ("demo.yml", "nodes: [ r1 ]\n")
MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("files", "status", "code"),
    [
        ([("topology", ("demo.txt", "nodes: [ r1 ]"))], 400, "topology_name_invalid"),
        ([("topology", ("demo.yml", ""))], 400, "upload_empty"),
        ([("topology", ("demo.yml", "nodes: [ r1"))], 400, "topology_malformed"),
        ([("topology", ("demo.yml", "- r1"))], 400, "topology_malformed"),
        ([("topology", ("../demo.yml", "nodes: [ r1 ]"))], 400, "upload_name_unsafe"),
        ([("topology", ("/tmp/demo.yml", "nodes: [ r1 ]"))], 400, "upload_name_unsafe"),
        ([("topology", ("C:\\demo.yml", "nodes: [ r1 ]"))], 400, "upload_name_unsafe"),
        ([("topology", TOPOLOGY), ("extra_files", ("../../x", "x"))], 400, "upload_name_unsafe"),
        ([("topology", TOPOLOGY), ("extra_files", ("/x", "x"))], 400, "upload_name_unsafe"),
        ([("topology", TOPOLOGY), ("extra_files", ("demo.yml", "x"))], 400, "upload_name_clash"),
        ([("topology", TOPOLOGY), ("extra_files", ("x" * 90_000, "x" * 100_000))], 413, "upload_too_large"),
        ([("topology", ("demo.yml", "a: " + "x" * 100_000))], 413, "upload_too_large"),
        ([("topology", ("demo.yml", "a: " + "x" * 1_000_000))], 413, "upload_too_large"),
        ([("topology", TOPOLOGY), *[("extra_files", (str(n), "x")) for n in range(21)]], 413, "upload_too_many_files"),
        ([("topology", TOPOLOGY), *[("extra_files", (str(n), "x")) for n in range(200)]], 413, "upload_too_large"),
        ([("topology", (None, "nodes: [ r1 ]"))], 422, "validation_failed"),
        ([("topology", TOPOLOGY), ("reuse", (None, "perhaps"))], 422, "validation_failed"),
    ],
)
def test_what_cannot_become_a_lab_is_refused_and_leaves_nothing(
    server: Server, session_id: str, files: list[Any], status: int, code: str
) -> None:
    """With a sentence and a code; the session goes on."""
    response = server.call("POST", "/lab", session_id, files=files)
    assert (status, code) == (response.status_code, response.json()["code"])
    assert response.json()["detail"]
    assert list_labs(server.state_dir) == []
    assert server.call("GET", "/lab", session_id).json()["running"] is False


def test_json_instead_of_a_form_is_422(server: Server, session_id: str) -> None:
    """It says which field is missing."""
    response = server.call("POST", "/lab", session_id, json={"topology": "nodes: [ r1 ]"})
    assert (response.status_code, response.json()["detail"][0]["loc"]) == (422, ["body", "topology"])


def test_a_chunked_upload_is_bounded_as_well(server: Server, session_id: str) -> None:
    """Without a Content-Length the bytes are counted as they come."""

    def body() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="topology"; filename="demo.yml"\r\n\r\n'
        for _ in range(100):
            yield b"x" * 10_000
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = server.call("POST", "/lab", session_id, data=body(), headers=headers)
    assert (response.status_code, response.json()["code"]) == (413, "upload_too_large")


def test_extra_files_lie_beside_the_topology(server: Server, session_id: str) -> None:
    """With their folders, and only as long as the lab is there."""
    assert server.acquire(session_id, TOPOLOGY[1], **{"templates/r1.j2": "hello"}).status_code == 200
    [lab_id] = list_labs(server.state_dir)
    workspace = server.state_dir / "labs" / lab_id / "lab"
    assert (workspace / "templates" / "r1.j2").read_text() == "hello"
    assert (workspace / "demo.yml").read_text() == TOPOLOGY[1]
    server.end_session(session_id)
    wait_until(lambda: not (server.state_dir / "labs" / lab_id).exists(), "nothing is left")


def test_who_is_still_sending_hears_why_it_is_refused(server: Server, session_id: str) -> None:
    """An answer that comes before the upload is not lost with the connection, as it was to proxies in front."""
    head = (
        f"POST /lab HTTP/1.1\r\nHost: lab\r\nX-Session-ID: {session_id}\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {20 * MIB}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head.encode())
        assert select.select([connection], [], [], 30)[0], "the answer is there"
        for _ in range(20):
            connection.sendall(b"x" * MIB)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"upload_too_large" in answer
