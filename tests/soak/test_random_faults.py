"""Rounds of random faults while clients come, boot, use and leave: nobody is lost, and nothing stays behind."""

from __future__ import annotations

import collections
import random
import time
from pathlib import Path

import pytest
from census import Census
from effort import LONG, choose_seed
from faults import Faults
from harness import Server, running, wait_until
from visitor import Visitor

from remote_lab.netlab.pod_site import missing_requirements

pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(missing_requirements()), reason="no real labs here")]

ROUNDS = 200 if LONG else 4
VISITORS = 4
SLOTS = 2
SETTINGS = {"PROVIDER": "netns", "SLOTS": SLOTS, "REAPER_SECONDS": 0.3, "WAITING_SECONDS": 5, "ACTIVE_SECONDS": 5}
TOPOLOGY = "provider: netns\ndefaults.device: linux\nnodes: [ {a} ]\n"


@pytest.mark.timeout(7200 if LONG else 600)
def test_nobody_is_lost_and_nothing_is_left(tmp_path: Path) -> None:
    """No lost session, no lab without owner, no process, link, mount, group, rule or file, no slot stuck, FIFO."""
    dice = random.Random(choose_seed())
    server = Server(tmp_path / "state", **SETTINGS)
    census = Census(server)
    told: collections.Counter[str] = collections.Counter()
    began = time.monotonic()
    with running(server):
        faults = Faults(server, census, dice)
        for number in range(ROUNDS):
            play(number, server, census, faults, dice, told)
            print(f"{number + 1} rounds in {(time.monotonic() - began) / 60:.1f} min", flush=True)  # noqa: T201
    print(dict(told.most_common()))  # noqa: T201 - for who runs `make soak`
    assert census.processes() == []


def play(
    number: int, server: Server, census: Census, faults: Faults, dice: random.Random, told: collections.Counter[str]
) -> None:
    """One round: visitors, one or two faults in the middle, then everything must come to rest."""
    visitors = [
        Visitor(server, random.Random(dice.random()), TOPOLOGY.format(a=dice.choice("ab"))) for _ in range(VISITORS)
    ]
    for visitor in visitors:
        visitor.start()
    names = dice.sample(sorted(faults.all), dice.choice([1, 1, 2]))
    for name in names:
        time.sleep(dice.uniform(0, 2.5))
        census.links()
        faults.all[name]()
        told[name] += 1
    where = f"round {number}, {' and '.join(names)}"
    for visitor in visitors:
        visitor.join(120)
        assert not visitor.is_alive(), (where, visitor.story)
        assert visitor.problem is None, (where, visitor.problem, visitor.story, tail(server))
        told.update(visitor.story)
    wait_until(lambda: not census.labs_without_owner(), f"{where}: no lab is without owner")
    wait_until(lambda: server.call("GET", "/debug/health").json()["queue_length"] == 0, f"{where}: the queue is empty")
    wait_until(lambda: not server.call("GET", "/debug/health").json()["labs"], f"{where}: no slot is stuck")
    try:
        wait_until(lambda: not census.left(), "nothing is left", 20)
    except AssertionError:
        raise AssertionError(f"{where}: left are {census.left()}\n{tail(server)}") from None
    assert census.overtaken() == [], where
    reasons = {reason for (reason,) in census.query("SELECT DISTINCT end_reason FROM sessions")}
    assert all(reason == "its owner ended it" or reason.startswith("silent for ") for reason in reasons), reasons


def tail(server: Server) -> str:
    """The end of the server's log, for whoever reads the failure."""
    return "\n".join(line for line in server.log.read_text().splitlines() if "| DEBUG |" not in line)[-6000:]
