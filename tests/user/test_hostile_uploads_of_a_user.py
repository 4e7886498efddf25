"""Hostile uploads against the server of an ordinary user: the same attacks, the same watch, nothing of it outside."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

import pytest
from effort import LONG
from harness import ROOT, list_labs, running
from ordinary_user import OrdinaryUser
from user_server import UserServer, children, keepers, lab_of

sys.path.append(str(ROOT / "tests/hostile"))

from hostile_stage import VICTIM, Stage, attack_names, new_token, read_attack
from hostile_watch import Bait

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

SOME = ("defaults-plugin", "forged-snapshot")
"""Code at `netlab create`, and code at each look at the lab; the others differ in how they get that far."""


class UserStage(Stage):
    """The stage of `tests/hostile/`, whose pods have keepers."""

    def pods(self) -> dict[str, int | None]:
        assert isinstance(self.server, UserServer)
        return {lab_of(keeper): next(iter(children(keeper)), None) for keeper in keepers(self.server)}


@pytest.fixture(scope="module")
def stage(user: OrdinaryUser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserStage]:
    server = UserServer(user, "stage", PROVIDER="netns", SLOTS=2, BOOT_SECONDS=40, STREAM_OUTPUT=1, REAPER_SECONDS=0.5)
    server.state_dir.mkdir(mode=0o700)
    os.chown(server.state_dir, user.uid, user.uid)
    with Bait.spread(tmp_path_factory.mktemp("hostile"), server.state_dir / "private") as bait, running(server):
        stage = UserStage(server, bait)
        opened = server.call("POST", "/session", json={"purpose": bait.loot["database"]}).json()
        stage.victim_session = opened["session_id"]
        server.wait_active(stage.victim_session)
        answer = server.acquire(stage.victim_session, VICTIM.format(loot=bait.loot["victim"]))
        assert answer.status_code == 200, answer.text
        [stage.victim_lab] = list_labs(server.state_dir)
        stage.victim_address = answer.json()["devices"][0]["raw"]["mgmt"]["ipv4"]
        yield stage


@pytest.mark.parametrize("name", attack_names() if LONG else SOME)
def test_upload_does_nothing_outside_the_pod_of_a_user(stage: UserStage, name: str) -> None:
    """It runs as root of its pod; the host, the user, the victim and the next lab do not notice."""
    attack, token = read_attack(name), new_token()
    watch = stage.watch(token)
    session_id = stage.server.open_session()
    stage.server.wait_active(session_id)
    try:
        answer = stage.send(session_id, attack.sent(stage.targets(token)))
        report = stage.report(token, attack.runs)
    finally:
        stage.end(session_id)
    assert (report is not None) == (attack.runs != "never"), f"{attack.tries}: {answer.text}"
    assert watch.findings(json.dumps(report) + answer.text) == []
    assert stage.victim() == (200, True, ["v1"])
    if report is not None:
        assert [step for step, said in report.items() if str(said).startswith("broke")] == []
        assert (report["uid"], report["dirty"]) == (0, [])
        reached = set(report["connect_everywhere"])
        assert {one for one in reached if not one.endswith(":22")} | (reached & {f"{stage.victim_address}:22"}) == set()
