"""Acquires by a name of the caller's own: asked twice, they are one reference."""

from __future__ import annotations

import requests
from harness import Server, list_labs, wait_until

from remote_lab.identity import lab_identity

PLAIN = "nodes: [ r1 ]\n"
OTHER = "nodes: [ r2 ]\n"
SLOW = "nodes: [ r1 ]\nstandin: { up_seconds: 0.5 }\n"
SLOW_DOWN = "nodes: [ r1 ]\nstandin: { down_seconds: 0.5 }\n"


def acquire(
    server: Server, session_id: str, topology: str, name: str, *, reuse: bool = True, prefer: str = ""
) -> requests.Response:
    headers = {"X-Acquire-ID": name, "Prefer": prefer}
    files = [("topology", ("demo.yml", topology))]
    return server.call("POST", "/lab", session_id, files=files, data={"reuse": reuse}, headers=headers)


def release(server: Server, session_id: str, name: str) -> int:
    return server.call("POST", "/lab/release", session_id, headers={"X-Acquire-ID": name}).status_code


def lab(server: Server, session_id: str) -> dict[str, object]:
    answer: dict[str, object] = server.call("GET", "/lab", session_id).json()
    return answer


def test_the_same_acquire_again_takes_no_second_reference(server: Server, session_id: str) -> None:
    """While the lab boots and when it runs, also with reuse=false; another name is another reference."""
    assert acquire(server, session_id, SLOW, "a", prefer="respond-async").status_code == 202
    assert acquire(server, session_id, SLOW, "a", reuse=False).status_code == 200
    assert acquire(server, session_id, SLOW, "a", reuse=False).status_code == 200
    assert lab(server, session_id)["ref_count"] == 1
    assert acquire(server, session_id, SLOW, "b", reuse=False).status_code == 423
    assert acquire(server, session_id, SLOW, "b").status_code == 200
    assert lab(server, session_id)["ref_count"] == 2


def test_a_release_by_name_gives_back_that_reference(server: Server, session_id: str) -> None:
    """Once, whatever others hold; a name that has none, or no lab at all, is no error."""
    acquire(server, session_id, PLAIN, "a")
    acquire(server, session_id, PLAIN, "b")
    assert [release(server, session_id, name) for name in ("b", "b", "nobody")] == [204, 204, 204]
    assert lab(server, session_id)["ref_count"] == 1
    assert acquire(server, session_id, PLAIN, "a").status_code == 200
    assert lab(server, session_id)["ref_count"] == 1
    server.call("DELETE", "/lab", session_id)
    server.wait_quiet()
    assert release(server, session_id, "a") == 204


def test_an_acquire_that_is_given_up_behind_its_answer_boots_nothing(server: Server, session_id: str) -> None:
    """While the lab before it is still on its way down."""
    acquire(server, session_id, SLOW_DOWN, "a")
    release(server, session_id, "a")
    assert acquire(server, session_id, OTHER, "b", prefer="respond-async").status_code == 202
    assert lab(server, session_id)["state"] == "stopping"
    assert release(server, session_id, "b") == 204
    wait_until(lambda: "gave it up" in server.log.read_text(), "the acquire was decided")
    assert (lab(server, session_id)["state"], list_labs(server.state_dir)) == (None, [])


def test_an_acquire_that_is_asked_again_behind_its_answer_is_one_boot(server: Server, session_id: str) -> None:
    """Both are decided when the lab before is down, and one reference comes of it."""
    acquire(server, session_id, SLOW_DOWN, "a")
    release(server, session_id, "a")
    assert acquire(server, session_id, OTHER, "b", prefer="respond-async").status_code == 202
    assert acquire(server, session_id, OTHER, "b", prefer="respond-async").status_code == 202
    assert acquire(server, session_id, OTHER, "b").status_code == 200
    assert (lab(server, session_id)["ref_count"], len(list_labs(server.state_dir))) == (1, 1)


def test_a_reference_keeps_its_name_over_a_restart(server: Server, session_id: str) -> None:
    """Nobody knows better than the database."""
    acquire(server, session_id, PLAIN, "a")
    server.kill()
    server.start()
    assert acquire(server, session_id, PLAIN, "a").status_code == 200
    assert lab(server, session_id)["ref_count"] == 1


def test_a_lab_shows_its_identity(server: Server, session_id: str) -> None:
    """The SHA-256 of what was uploaded, which its uploader can compute."""
    assert lab(server, session_id)["identity"] is None
    acquire(server, session_id, SLOW, "a", prefer="respond-async")
    expected = lab_identity(SLOW.encode(), {})
    assert lab(server, session_id)["identity"] == expected
    acquire(server, session_id, SLOW, "a")
    assert lab(server, session_id)["identity"] == expected


def test_a_name_that_cannot_be_one(server: Server, session_id: str) -> None:
    """Too long is said, not cut."""
    answer = acquire(server, session_id, PLAIN, "x" * 129)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["header", "X-Acquire-ID"])
