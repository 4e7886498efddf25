"""`remote-lab token`, and the other commands beside a server that asks for tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Server, running

from .conftest import Operator

TOKEN = re.compile(r"rlab_[0-9a-f]{64}\n")


@pytest.fixture
def own(tmp_path: Path) -> Operator:
    """An operator of a server that has never run."""
    return Operator(Server(tmp_path / "state", PROVIDER="clab", NETLAB="/bin/true"), tmp_path)


def test_a_token_is_printed_once_and_alone(own: Operator) -> None:
    """What a script takes is the token; what people read is beside it, and only its SHA-256 is kept."""
    made = own.run("token", "create", "ci", "--expires", "12h")
    assert TOKEN.fullmatch(made.stdout)
    assert "Token ci may use" in made.stderr
    token = made.stdout.strip()
    trusted = own.data("token", "create", "lab-team", "--right", "trusted", "--expires", "never")
    assert (trusted["rights"], trusted["expires_at"]) == (["use", "trusted"], None)
    listed = own.data("token", "list")
    assert [(one["name"], one["state"], one["last_used_at"]) for one in listed] == [
        ("ci", "usable", None),
        ("lab-team", "usable", None),
    ]
    own.says("token", "revoke", "ci")
    table = own.rows("token", "list")
    assert [row[:3] for row in table] == [
        ["TOKEN", "RIGHTS", "STATE"],
        ["ci", "use", "revoked"],
        ["lab-team", "use", "trusted"],
    ]
    kept = b"".join(path.read_bytes() for path in own.server.state_dir.iterdir() if path.is_file())
    assert token.removeprefix("rlab_").encode() not in kept


def test_what_cannot_be_a_token_is_refused_with_the_remedy(own: Operator) -> None:
    """Names are given once, times have units, and nobody unknown is revoked."""
    own.run("token", "create", "ci")
    assert "Choose another, such as ci-2" in own.complains("token", "create", "ci")
    assert "expected a time like" in own.complains("token", "create", "x", "--expires", "soon", status=2)
    assert "expected 1 to 64" in own.complains("token", "create", "two words", status=2)
    assert "'ghost'" in own.complains("token", "revoke", "ghost")


@pytest.fixture
def asking(own: Operator) -> Iterator[Operator]:
    """The same beside a server that asks for tokens, because one was made before its start."""
    own.server.token = own.says("token", "create", "test", "--right", "use", "--right", "admin").strip()
    with running(own.server):
        yield own


def test_operators_need_no_token_on_the_host(asking: Operator) -> None:
    """Who may read the state folder is the operator; a token made or revoked beside the server counts at once."""
    session_id = asking.server.open_session()
    assert "1 of 1 in use" in asking.says("status")
    token = asking.says("token", "create", "late").strip()
    assert asking.server.call("GET", "/queue", token=token).status_code == 200
    asking.says("token", "revoke", "late")
    assert asking.server.call("GET", "/queue", token=token).status_code == 401
    assert f"Session {session_id[:8]} ended." in asking.says("session", "end", session_id)
    secret = asking.server.state_dir / "operator.token"
    assert secret.stat().st_mode & 0o777 == 0o600
    old = secret.read_text().strip()
    asking.server.terminate()
    assert not secret.exists()
    asking.server.start()
    assert asking.server.call("GET", "/queue", token=old).status_code == 401
