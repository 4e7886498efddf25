"""Everything that can be wrong with a request, sent to a real server, byte for byte where it has to be."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness import Server, wait_until

TOPOLOGY = b"nodes: [ r1 ]\n"
FORM = "multipart/form-data; boundary=b"
BOMB = b"\n".join(
    [b"a0: &a0 [x, x]", *[b"a%d: &a%d [%s]" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 40)]]
)
SLOW_CONNECTIONS = 40
"""More than the server has threads."""


def part(disposition: bytes, content: bytes = TOPOLOGY) -> bytes:
    """One part of a form, its header as it stands."""
    return b"--b\r\n" + disposition + b"\r\n\r\n" + content + b"\r\n"


def file(name: bytes, content: bytes = TOPOLOGY, field: bytes = b"topology") -> bytes:
    """A part that is a file."""
    return part(b'Content-Disposition: form-data; name="' + field + b'"; filename="' + name + b'"', content)


def value(name: bytes, content: bytes) -> bytes:
    """A part that is no file."""
    return part(b'Content-Disposition: form-data; name="' + name + b'"', content)


END = b"--b--\r\n"
GOOD = file(b"demo.yml")


@dataclass(frozen=True)
class Bad:
    """A request, and what is to be said of it."""

    what: str
    status: int
    code: str
    body: bytes = b""
    method: str = "POST"
    path: str = "/lab"
    content_type: str | None = FORM
    headers: dict[str, str] = field(default_factory=dict)
    says: str = ""


def upload(what: str, body: bytes, code: str, says: str = "", status: int = 400, content_type: str = FORM) -> Bad:
    """A form that is refused."""
    return Bad(what, status, code, body, content_type=content_type, says=says)


def tricks() -> Iterator[Bad]:
    """File names that want to be elsewhere, or cannot be. Links cannot be sent: a form has files, no kinds of them."""
    names = [
        b"../x.yml", b"..", b"a/../../x.yml", b"/etc/x.yml", b"//x.yml", b"./x.yml", b"a//x.yml", b"a/./x.yml", b"x/",
        b"C:x.yml", b"C:/x.yml", b"a%5Cx.yml", b"..%5C..%5Cx.yml", b"x%00.yml", b"a%0Bb.yml", b"\x01.yml", b"x\x7f.yml",
        "\N{RIGHT-TO-LEFT OVERRIDE}x.yml".encode(), b"x" * 300 + b".yml", b"a/" * 600 + b"x.yml", b"~/../x.yml",
    ]  # fmt: skip
    for name in names:
        as_sent = name.replace(b"%5C", b"\\\\").replace(b"%00", b"\0").replace(b"%0B", b"\x0b")
        yield upload(f"topology {name[:30]!r}", file(as_sent) + END, "upload_name_unsafe")
        extra = file(as_sent, field=b"extra_files")
        yield upload(f"extra file {name[:30]!r}", GOOD + extra + END, "upload_name_unsafe")
    yield upload("topology in a folder", file(b"a/x.yml") + END, "upload_name_unsafe", "plain file name")
    yield upload("topology like an option", file(b"-x.yml") + END, "upload_name_unsafe", "does not begin with '-'")
    yield upload("topology without a name", file(b"") + END, "upload_name_unsafe", "it is empty")
    yield upload("extra file without a name", GOOD + file(b"", field=b"extra_files") + END, "upload_name_unsafe")
    encoded = b"Content-Disposition: form-data; name=\"topology\"; filename*=utf-8''%2e%2e%2fx.yml"
    yield upload("an encoded name", part(encoded) + END, "upload_name_unsafe")
    latin = b"Content-Disposition: form-data; name=\"topology\"; filename*=utf-8''%ff.yml"
    yield upload("an encoded name that is not UTF-8", part(latin) + END, "upload_name_unsafe", "it is not UTF-8")
    for first, second in ((b"x", b"x"), (b"x", b"x/y"), (b"x/y", b"x"), (b"demo.yml", b"y"), (b"demo.yml/x", b"y")):
        both = file(first, field=b"extra_files") + file(second, field=b"extra_files")
        yield upload(f"{first!r} beside {second!r}", GOOD + both + END, "upload_name_clash")


def topologies() -> Iterator[Bad]:
    """Files that are no topologies."""
    contents = {
        "a list": (b"- r1\n", "must be a mapping"),
        "a scalar": (b"r1\n", "must be a mapping"),
        "an open bracket": (b"nodes: [ r1\n", "(line 2, column 1)"),
        "two documents": (b"a: 1\n---\nb: 1\n", "second YAML document"),
        "comments": (b"# nothing\n", "nothing but comments"),
        "bytes": (b"a: \xff\xfe\n", "is not YAML"),
        "zeros": (b"\0" * 1000, "is not YAML"),
        "a bomb of aliases": (BOMB, "each alias counted in full"),
        "an alias of itself": (b"a: &a [ *a ]\n", "no complete value named 'a'"),
        "a deep list": (b"a: " + b"[" * 50_000, "nested deeper than 100 levels"),
        "a deep mapping": (b"a: " + b"{a: " * 20_000, "nested deeper than 100 levels"),
    }
    for what, (content, says) in contents.items():
        yield upload(what, file(b"demo.yml", content) + END, "topology_malformed", says)
    yield upload("nothing", file(b"demo.yml", b"") + END, "upload_empty")
    for name in (b"demo.txt", b"demo", b"yml", b".yml.txt", b"demo.yml "):
        yield upload(f"the name {name!r}", file(name) + END, "topology_name_invalid")


def forms() -> Iterator[Bad]:
    """Forms that cannot be read, or have too much or too little in them."""
    malformed = {
        "no boundary": (GOOD + END, "missing boundary", "multipart/form-data"),
        "another boundary": (GOOD + END, "closing boundary is missing", "multipart/form-data; boundary=c"),
        "a huge boundary": (GOOD + END, "closing boundary is missing", f"multipart/form-data; boundary={'c' * 5000}"),
        "an empty body": (b"", "closing boundary is missing", FORM),
        "no end": (GOOD, "closing boundary is missing", FORM),
        "an end in the middle": (GOOD[:-20], "closing boundary is missing", FORM),
        "no parts": (b"hello", "closing boundary is missing", FORM),
        "a part without a header": (b"--b\r\n\r\nx\r\n" + END, "", FORM),
        "a part with a strange header": (part(b"Hello") + END, "missing Content-Disposition", FORM),
        "a name that is not UTF-8": (file(b"\xff.yml") + END, "not UTF-8", FORM),
        "two topologies": (GOOD + GOOD + END, "2 parts named 'topology'", FORM),
        "a topology and a field of its name": (GOOD + value(b"topology", b"x") + END, "2 parts named 'topology'", FORM),
        "two answers to reuse": (GOOD + value(b"reuse", b"1") * 2 + END, "2 parts named 'reuse'", FORM),
    }
    for what, (body, says, content_type) in malformed.items():
        yield upload(what, body, "upload_malformed", says, content_type=content_type)
    invalid = {
        "an empty form": (END, "Field required", FORM),
        "JSON": (b'{"topology": "nodes: [ r1 ]"}', "Field required", "application/json"),
        "bare YAML": (TOPOLOGY, "Field required", "application/yaml"),
        "text": (TOPOLOGY, "Field required", "text/plain"),
        "a form of a web page": (b"topology=nodes", "expected a file", "application/x-www-form-urlencoded"),
        "a topology that is a field": (value(b"topology", TOPOLOGY) + END, "expected a file", FORM),
        "an extra file that is a field": (GOOD + value(b"extra_files", b"x") + END, "expected a file", FORM),
        "a reuse that is neither": (GOOD + value(b"reuse", b"perhaps") + END, "'perhaps' is not a boolean", FORM),
        "a reuse that is a file": (GOOD + file(b"x", b"true", b"reuse") + END, "is not a boolean", FORM),
        "a misspelt field": (GOOD + file(b"x", b"x", b"extra_file") + END, "Unknown field", FORM),
        "another content type": (GOOD + END, "Field required", "multipart/mixed; boundary=b"),
    }
    for what, (body, says, content_type) in invalid.items():
        yield upload(what, body, "validation_failed", says, 422, content_type)
    extra = [file(b"%d" % n, b"x", b"extra_files") for n in range(500)]
    yield upload("21 files", GOOD + b"".join(extra[:21]) + END, "upload_too_many_files", "more than 20 files", 413)
    yield upload("500 parts", GOOD + b"".join(extra) + END, "upload_too_large", "parts", 413)
    yield upload("500 fields", value(b"x", b"") * 500 + END, "upload_too_large", "parts", 413)
    yield upload("a large topology", file(b"x.yml", b"a: " + b"x" * 100_000) + END, "upload_too_large", "", 413)
    yield upload("a huge topology", file(b"x.yml", b"a: " + b"x" * 3_000_000) + END, "upload_too_large", "", 413)
    yield upload("a large header of a part", part(b"X: " + b"x" * 120_000) + END, "upload_malformed")


def calls() -> Iterator[Bad]:
    """Methods, paths, queries and bodies that nothing is there for."""
    for method in ("PUT", "PATCH", "TRACE", "PROPFIND"):
        yield Bad(method, 405, "method_not_allowed", method=method, content_type=None)
    for path in ("/labs", "/lab/nowhere", "/..%2f..%2fetc/passwd", "/docs/../../setup.cfg", "/%00", "/%ff", "/lab%00"):
        yield Bad(path, 404, "not_found", method="GET", path=path, content_type=None)
    for path in ("/lab?wait=soon", "/lab?wait=-1", "/lab?wait=nan", "/lab?wait=inf", "/lab?wait=", "/lab?wiat=1"):
        yield Bad(path, 422, "validation_failed", method="GET", path=path, content_type=None)
    for path in ("/lab?force=perhaps", "/lab?forse=false", "/lab?force=", "/lab?force=1&x=1"):
        yield Bad(path, 422, "validation_failed", method="DELETE", path=path, content_type=None)
    for path in ("/lab?wait=1&wait=2", "/lab/state?device=r1", "/lab/ssh-key?x=1"):
        yield Bad(path, 422, "validation_failed", method="GET", path=path, content_type=None)
    yield Bad("a follow that is neither", 422, "validation_failed", method="GET", path="/lab/log?follow=x")
    yield from ends()
    json_type = "application/json"
    for body in (b"{", b"nonsense", b"\xff", b"[" * 60_000):
        yield Bad(f"JSON {body[:9]!r}", 422, "validation_failed", body, path="/session", content_type=json_type)
    for body in (
        b"[]",
        b"1",
        b'"x"',
        b'{"purpose": 1}',
        b'{"lease_seconds": "long"}',
        b'{"lease_seconds": -1}',
        b'{"x": 1}',
        b'{"ci_job_id": 4711}',
        b'{"ci_job_id": ""}',
        b'{"ci_job_id": "a\\u0000b"}',
        b'{"ci_job_id": "%s"}' % (b"x" * 201),
        b'{"ci_job": "4711"}',
    ):
        yield Bad(f"JSON {body!r}", 422, "validation_failed", body, path="/session", content_type=json_type)
    for session_id in ("", "nobody", "' OR 1=1 --", "x" * 5000, "../../etc", "%00"):
        yield Bad(
            f"session {session_id[:12]!r}", 404, "session_not_found", method="GET", headers={"X-Session-ID": session_id}
        )


def ends() -> Iterator[Bad]:
    """Sessions that are to end, and it is not clear which or why."""
    queries = {
        "": "DELETE /session?ci_job=ID",
        "?ci_job=": "",
        "?ci_job=a%00b": "control characters",
        "?ci_job=a%0Ab": "control characters",
        "?ci_job=" + "x" * 501: "",
        "?ci_jobs=4711": "Unknown field",
        "?ci_job=4711&force=1": "Unknown field",
        "?ci_job=4711&ci_job=4712": "more than once",
    }
    for query, says in queries.items():
        for path in (f"/session{query}", f"/session/{query}"):
            yield Bad(
                f"end of {path}", 422, "validation_failed", method="DELETE", path=path, content_type=None, says=says
            )
    for query in ("?reason=", "?reason=a%00b", "?reason=" + "x" * 201, "?why=bored", "?reason=a&reason=b"):
        path = f"/session/nobody{query}"
        yield Bad(f"end of {path}", 422, "validation_failed", method="DELETE", path=path, content_type=None)


def raw_calls() -> Iterator[tuple[str, bytes, int]]:
    """Bytes that are hardly HTTP, and the status of the answer."""
    yield "no HTTP", b"hello\r\n\r\n", 400
    yield "a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400
    yield "another version", b"GET /healthz HTTP/9.9\r\n\r\n", 505
    yield "a line without end", b"GET /" + b"x" * 100_000, 414
    yield "a header of 1 MB", b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n", 431
    yield "1000 headers", b"GET /healthz HTTP/1.1\r\n" + b"X: x\r\n" * 1000 + b"\r\n", 431
    yield "a header without a colon", b"GET /healthz HTTP/1.1\r\nhello\r\n\r\n", 400
    yield "a strange header name", b"GET /healthz HTTP/1.1\r\nX X: x\r\n\r\n", 400
    yield "a zero in a header", b"GET /healthz HTTP/1.1\r\nX: \0\r\n\r\n", 400
    yield "a length that is none", b"POST /session HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400
    yield "a negative length", b"POST /session HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400
    yield "two lengths", b"POST /session HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n", 400
    yield "another coding", b"POST /session HTTP/1.1\r\nTransfer-Encoding: hello\r\n\r\n", 501


def gate(session_id: str) -> bytes:
    """The head of an upload of that session, up to its length."""
    return (
        b"POST /lab HTTP/1.1\r\nHost: lab\r\nX-Session-ID: "
        + session_id.encode()
        + b"\r\nContent-Type: "
        + FORM.encode()
    )


def connect(server: Server) -> socket.socket:
    """A bare connection."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def receive(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the one answer on a connection."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        headers = dict(line.decode().strip().lower().split(": ", 1) for line in iter(stream.readline, b"\r\n"))
        return status, headers, stream.read(int(headers["content-length"]))


def everything_in(state_dir: Path) -> list[str]:
    """All that lies in and beside the state folder but the database's own files, and the folder of labs itself."""
    found = []
    for folder, folders, files in os.walk(state_dir.parent):
        found += [str(Path(folder, name).relative_to(state_dir.parent)) for name in [*folders, *files]]
    return sorted(path for path in found if "sqlite3" not in path and path != f"{state_dir.name}/labs")


@pytest.fixture
def nothing_happens(server: Server, session_id: str) -> Iterator[None]:
    """Whatever is sent: no file, no lab, no session more than before, and the server is well."""

    def state() -> tuple[list[str], object, object]:
        health = server.call("GET", "/debug/health").json()
        return everything_in(server.state_dir), health["labs"], health["sessions"]

    before = state()
    yield
    assert server.call("GET", "/healthz").status_code == 204
    wait_until(lambda: state() == before, "everything is as before")
    assert server.call("GET", "/lab", session_id).json()["running"] is False


def check_error(status: int, body: bytes, code: str | None = None) -> str:
    """Every error is a sentence and a code, and knows nothing of this machine; returns the detail as text."""
    answer = json.loads(body)
    assert code in (None, answer["code"]), answer
    text = answer["detail"] if isinstance(answer["detail"], str) else json.dumps(answer["detail"])
    assert text
    assert not [word for word in ("Traceback", "/work", "/tmp", "site-packages", "<html") if word in text]
    assert status >= 400
    return text


@pytest.mark.parametrize("bad", [*tricks(), *topologies(), *forms(), *calls()], ids=lambda bad: bad.what[:60])
@pytest.mark.usefixtures("nothing_happens")
def test_what_is_wrong_is_said_and_leaves_nothing(server: Server, session_id: str, bad: Bad) -> None:
    """With its status, its code and a sentence."""
    headers = {
        "X-Session-ID": session_id,
        **({"Content-Type": bad.content_type} if bad.content_type else {}),
        **bad.headers,
    }
    response = server.call(bad.method, bad.path, data=bad.body, headers=headers)
    assert response.status_code == bad.status, response.text
    assert bad.says in check_error(response.status_code, response.content, bad.code)


@pytest.mark.parametrize(("what", "sent", "status"), list(raw_calls()), ids=lambda item: str(item)[:40])
@pytest.mark.usefixtures("nothing_happens")
def test_what_is_no_request_is_an_error_in_the_same_shape(server: Server, what: str, sent: bytes, status: int) -> None:
    """Also what the application never sees."""
    with connect(server) as connection:
        connection.sendall(sent)
        answered, headers, body = receive(connection)
    assert answered == status, (what, body)
    assert (headers["content-type"], bool(headers["x-request-id"])) == ("application/json", True)
    check_error(answered, body)


@pytest.mark.parametrize("body", [b"zz\r\nx\r\n", b"-1\r\nx\r\n", b"5\r\nabcdeXX\r\n0\r\n\r\n", b"5;x=\r\nab"])
@pytest.mark.usefixtures("nothing_happens")
def test_broken_chunks_are_400(server: Server, session_id: str, body: bytes) -> None:
    """The client's fault, not the server's."""
    with connect(server) as connection:
        connection.sendall(gate(session_id) + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        connection.shutdown(socket.SHUT_WR)
        status, _, answer = receive(connection)
    assert status == 400
    check_error(status, answer)


@pytest.mark.usefixtures("nothing_happens")
def test_a_client_that_stops_in_the_middle_is_told(server: Server, session_id: str) -> None:
    """If it still listens; if not, nothing happens either."""
    with connect(server) as connection:
        connection.sendall(gate(session_id) + b"\r\nContent-Length: 1000\r\n\r\n" + GOOD)
        connection.shutdown(socket.SHUT_WR)
        status, _, answer = receive(connection)
    assert (status, "cut off" in check_error(status, answer, "upload_malformed")) == (400, True)
    connections = [connect(server) for _ in range(5)]
    for connection in connections:
        connection.sendall(gate(session_id) + b"\r\nContent-Length: 1000\r\n\r\n" + GOOD)
        connection.close()


@pytest.mark.parametrize("head", [True, False], ids=["in the header", "in the body"])
@pytest.mark.usefixtures("nothing_happens")
def test_slow_clients_do_not_keep_others_waiting(server: Server, session_id: str, head: bool) -> None:
    """A request without its end costs no thread; of slow bodies a few may be, and most are sent away."""
    begun = gate(session_id) + (b"\r\nX" if head else b"\r\nContent-Length: 1000\r\n\r\n--b\r\nCont")
    connections = [connect(server) for _ in range(SLOW_CONNECTIONS)]
    try:
        for connection in connections:
            connection.sendall(begun)
        if not head:
            wait_until(lambda: told(connections) >= SLOW_CONNECTIONS - 4, "most are sent away")
        assert told(connections) == (0 if head else SLOW_CONNECTIONS - 4)
        assert server.call("GET", "/healthz", timeout=5).status_code == 204
        assert server.acquire(session_id, TOPOLOGY.decode()).status_code == 200
        server.call("DELETE", "/lab", session_id)
    finally:
        for connection in connections:
            connection.close()


def told(connections: list[socket.socket]) -> int:
    """How many of these connections were answered with 408."""
    count = 0
    for connection in connections:
        connection.setblocking(False)
        try:
            count += b" 408 " in connection.recv(1000, socket.MSG_PEEK)[:20]
        except BlockingIOError:
            continue
    return count


@pytest.mark.usefixtures("nothing_happens")
def test_an_upload_in_small_pieces_is_as_good_as_any(server: Server, session_id: str) -> None:
    """Slow is not wrong."""
    body = GOOD + END
    with connect(server) as connection:
        connection.sendall(gate(session_id) + b"\r\nContent-Length: %d\r\n\r\n" % len(body))
        for position in range(len(body)):
            connection.sendall(body[position : position + 1])
        status, _, answer = receive(connection)
    assert (status, json.loads(answer)["reused"]) == (200, False)
    server.call("DELETE", "/lab", session_id)
