"""Hostile uploads run, and nothing outside their pods appears, changes or disappears."""

from __future__ import annotations

import json

import pytest
from hostile_stage import Attack, Stage, attack_names, new_token, read_attack

pytestmark = pytest.mark.lab


@pytest.fixture(params=attack_names())
def attack(request: pytest.FixtureRequest) -> Attack:
    return read_attack(request.param)


def test_upload_does_nothing_outside_its_pod(stage: Stage, attack: Attack) -> None:
    """It may run as it likes inside; the host, the server, the victim and the next lab do not notice."""
    token = new_token()
    watch = stage.watch(token)
    session_id = stage.server.open_session()
    stage.server.wait_active(session_id)
    try:
        answer = stage.send(session_id, attack.sent(stage.targets(token)))
        assert answer.status_code == 200 or answer.json()["code"] in ("lab_boot_failed", "topology_malformed"), answer
        report = stage.report(token, attack.runs)
    finally:
        stage.end(session_id)
    assert (report is not None) == (attack.runs != "never"), f"{attack.tries}: {answer.text}"
    told = json.dumps(report) + answer.text
    assert watch.findings(told) == []
    assert stage.victim() == (200, True, ["v1"])
    if report is not None:
        assert [step for step, said in report.items() if str(said).startswith("broke")] == []
        assert (report["uid"], report["dirty"]) == (0, [])
        reached = set(report["connect_everywhere"])
        assert {one for one in reached if not one.endswith(":22")} | (reached & {f"{stage.victim_address}:22"}) == set()
