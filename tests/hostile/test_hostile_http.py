"""Uploads whose names, parts and sizes are weapons, whatever is in them; the labs are stand-ins."""

from __future__ import annotations

import gzip
import io
import os
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import STANDIN, Server, list_labs, running, wait_until

TOPOLOGY = b"nodes: [ r1 ]\n"
FORM = "multipart/form-data; boundary=b"
COMPOSED, DECOMPOSED = "caf\N{LATIN SMALL LETTER E WITH ACUTE}.j2", unicodedata.normalize("NFD", "caf\xe9.j2")
BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(12)
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its stand-in for netlab writes down how it was called."""
    state_dir = tmp_path_factory.mktemp("http") / "state"
    with running(Server(state_dir, PROVIDER="clab", NETLAB=STANDIN, MAX_UPLOAD_BYTES=2_000_000)) as server:
        yield server


@pytest.fixture
def session_id(server: Server) -> Iterator[str]:
    server.wait_quiet()
    session_id = server.open_session()
    server.wait_active(session_id)
    yield session_id
    server.end_session(session_id)


def everything(server: Server) -> list[str]:
    """All that lies around the state folder but the database's own files and the log."""
    root = server.state_dir.parent
    files = [str(path.relative_to(root)) for path in root.rglob("*") if "sqlite3" not in path.name]
    return sorted(path for path in files if path != "state/labs")


def part(field: str, name: str, content: bytes, more: bytes = b"") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'.encode()
    return head + more + b"\r\n" + content + b"\r\n"


def send(server: Server, session_id: str, *parts: bytes) -> Any:
    body = b"".join(parts) + b"--b--\r\n"
    return server.call("POST", "/lab", session_id, data=body, headers={"Content-Type": FORM})


def zip_bomb() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("topology.yml", b"\0" * 100_000_000)
    return packed.getvalue()


REFUSED = {
    "a zip for a topology": ([("topology", "x.yml", zip_bomb())], 400),
    "gzip for a topology": ([("topology", "x.yml", gzip.compress(b" " * 50_000_000))], 400),
    "billions of aliases": ([("topology", "x.yml", BOMB)], 400),
    "a 300 deep folder": ([("topology", "x.yml", TOPOLOGY), ("extra_files", "d/" * 600 + "x", b"x")], 400),
    "a name of 5000 bytes": ([("topology", "x.yml", TOPOLOGY), ("extra_files", "x" * 5000, b"x")], 400),
    "a zero in a name": ([("topology", "x.yml\0.txt", TOPOLOGY)], 400),
    "a line end in a name": ([("topology", "x.yml", TOPOLOGY), ("extra_files", "a\r\nX-Session-ID: b", b"x")], 422),
    "a right-to-left name": ([("topology", "x.yml", TOPOLOGY), ("extra_files", "\u202elmy.x", b"x")], 400),
    "a name of spaces only visible as one": (
        [("topology", "x.yml", TOPOLOGY), ("extra_files", "\u2028", b"x")], 400
    ),
    "an option for a topology": ([("topology", "-x.yml", TOPOLOGY)], 400),
    "a URL for a topology": ([("topology", "http://127.0.0.1/x.yml", TOPOLOGY)], 400),
    "a package of netlab for a topology": ([("topology", "package:x/y.yml", TOPOLOGY)], 400),
    "the folder above in full width": (
        [("topology", "x.yml", TOPOLOGY), ("extra_files", "../\uff0e\uff0e/x", b"x")], 400
    ),
    "the same folder and file": (
        [("topology", "x.yml", TOPOLOGY), ("extra_files", "a/b", b"x"), ("extra_files", "a", b"x")], 400
    ),
}  # fmt: skip
ACCEPTED = {
    "names that are one for some file systems": ["A.j2", "a.j2", COMPOSED, DECOMPOSED],
    "look-alikes of the topology": ["\N{CYRILLIC SMALL LETTER HA}.yml", "X.yml", "x.yaml"],
    "names of ours": ["boot.log", "lab", "remote-lab.sqlite3", "server.lock", ".env", "wsgi.py", "labs/x/lab/y"],
    "200 folders": ["/".join(["d"] * 200)],
    "commands": ["$(touch x)", ";id;", "`id`", "|id", "&& id", "--help", "-rf", "a b", "'", "%s%n", "{{ 7*7 }}", "~"],
    "dots in full width": ["\uff0e\uff0e/x"],
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_leaves_nothing(server: Server, session_id: str, what: str) -> None:
    """With a sentence; the server is well, and as large as before."""
    parts, status = REFUSED[what]
    before, memory = everything(server), resident_bytes(server)
    answer = send(server, session_id, *(part(*one) for one in parts))
    assert (answer.status_code, bool(answer.json()["detail"])) == (status, True), answer.text
    assert everything(server) == before
    assert resident_bytes(server) - memory < 60_000_000


@pytest.mark.parametrize("what", ACCEPTED)
def test_strange_names_are_names_and_nothing_else(server: Server, session_id: str, what: str) -> None:
    """Each file lies in the lab's folder under exactly its name, or the upload is refused as a whole."""
    before = everything(server)
    names = ACCEPTED[what]
    parts = [part("extra_files", name, name.encode()) for name in names]
    answer = send(server, session_id, part("topology", "x.yml", TOPOLOGY), *parts)
    assert answer.status_code == 200, answer.text
    [lab_id] = list_labs(server.state_dir)
    folder = server.state_dir / "labs" / lab_id / "lab"
    for name in names:
        assert (folder / name).read_text() == name
    assert (folder / "x.yml").read_bytes() == TOPOLOGY
    server.end_session(session_id)
    server.wait_quiet()
    wait_until(lambda: [path for path in everything(server) if lab_id not in path] == before, "nothing else is there")


@pytest.mark.parametrize("name", [";id;.yml", "$(id).yml", "`id`.yml", "a b.yml", "x'.yml", "%n.yml"])
def test_a_topology_named_like_a_command_is_one_argument(server: Server, session_id: str, name: str) -> None:
    """netlab gets its name as one word that cannot be an option."""
    assert send(server, session_id, part("topology", name, TOPOLOGY)).status_code == 200
    calls = [path.read_text() for path in server.state_dir.rglob("standin-calls.jsonl")]
    assert any(f'"./{name}"' in text for text in calls), calls
    assert server.call("GET", "/lab", session_id).json()["topology"] == name


def test_headers_of_megabytes_are_refused(server: Server, session_id: str) -> None:
    """A part whose header is larger than what a part may say is no part, and costs no memory."""
    memory = resident_bytes(server)
    answer = send(server, session_id, part("topology", "x.yml", TOPOLOGY, b"X-Pad: " + b"x" * 1_500_000 + b"\r\n"))
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
    answer = send(server, session_id, *[part("extra_files", "", b"", b"X: x\r\n" * 2000) for _ in range(50)])
    assert 400 <= answer.status_code < 500
    assert resident_bytes(server) - memory < 60_000_000


def test_a_packed_body_is_not_unpacked(server: Server, session_id: str) -> None:
    """`Content-Encoding: gzip` on an upload is not understood, so that 50 kB cannot become 50 MB."""
    body = gzip.compress(part("topology", "x.yml", b"#" * 50_000_000 + TOPOLOGY) + b"--b--\r\n")
    headers = {"Content-Type": FORM, "Content-Encoding": "gzip"}
    answer = server.call("POST", "/lab", session_id, data=body, headers=headers)
    assert 400 <= answer.status_code < 500
    assert list_labs(server.state_dir) == []


def resident_bytes(server: Server) -> int:
    """What the server's processes hold in memory."""
    assert server.process is not None
    found = 0
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getpgid(int(entry.name)) == server.process.pid:
                pages = (entry / "statm").read_text().split()[1]
                found += int(pages) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
    return found
