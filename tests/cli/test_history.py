"""`remote-lab history`."""

from __future__ import annotations

from harness import Server

from .conftest import TOPOLOGY, Operator, end_everything


def test_the_history_says_who_had_which_lab(server: Server, operator: Operator, session_id: str) -> None:
    """The last first: what runs, what ended and why; programs get all of it, and nobody a whole session id."""
    failed = server.open_session()
    server.wait_active(failed)
    assert server.acquire(failed, "nodes: [ r1 ]\n", name="other.yml").status_code == 200
    server.call("DELETE", f"/session/{failed}", params={"reason": "nobody needs it"})
    server.wait_active(session_id)
    lines = operator.says("history", "--limit", "2").splitlines()
    assert lines[0].split() == ["OPENED", "TOKEN", "SESSION", "SLOT", "WAITED", "HELD", "TOPOLOGY", "LAB", "END", "FOR"]
    assert [line.split()[3] for line in lines[1:3]] == [failed[:8], session_id[:8]]
    assert "other.yml" in lines[1]
    assert "nobody needs it" in lines[1]
    assert lines[2].split()[7:] == ["demo.yml", "up", lines[2].split()[9], "active", "-"]
    [entry] = operator.data("history", "--topology", "other.yml", "--limit", "1")
    assert (entry["end_reason"], entry["slot"], len(entry["identity"])) == ("nobody needs it", 2, 64)
    assert failed not in operator.says("history", "--json")


def test_the_history_is_searched(server: Server, operator: Operator) -> None:
    """By CI job, name and time; what cannot be meant is said with what can."""
    job = {"ci_job_id": "job-7", "ci_job_url": "https://ci.example/7?private_token=s3cret"}
    server.call("POST", "/session", json=job)
    end_everything(server)
    found = operator.data("history", "--ci-job", "job-7", "--since", "1h")
    assert [entry["ci_job_url"] for entry in found] == ["https://ci.example/7"]
    assert operator.data("history", "--ci-job", "job-7", "--since", "2199-01-01") == []
    assert operator.says("history", "--token", "nobody") == "Nothing like that is on record.\n"
    server.open_session()
    assert "There is more, before that" in operator.run("history", "--limit", "1").stderr
    said = operator.complains("history", "--since", "yesterday", status=2)
    assert "'yesterday' is neither a time like 90s, 15m, 4h or 1d nor a date" in said


def test_the_history_outlives_the_server(server: Server, operator: Operator) -> None:
    """Also one that was killed: the entry goes on with the session."""
    session_id = server.open_session()
    server.wait_active(session_id)
    assert server.acquire(session_id, TOPOLOGY, name="kept.yml").status_code == 200
    server.kill()
    assert operator.data("history", "--topology", "kept.yml")[0]["lab_ended_at"] is None
    server.start()
    server.end_session(session_id)
    server.wait_quiet()
    [entry, *_] = operator.data("history", "--topology", "kept.yml")
    assert (entry["session"], entry["lab_end"]) == (session_id[:8], "its session ended (its owner ended it)")
