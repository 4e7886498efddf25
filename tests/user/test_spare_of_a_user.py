"""The spare sandbox of an ordinary user: the next boot takes it with its keeper, and it goes with its server."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from harness import wait_until
from ordinary_user import OrdinaryUser
from user_runner import UserRunner, user_runner
from user_server import children, keepers, lab_of, spares

pytestmark = pytest.mark.lab

SINGLE = "defaults.device: linux\nnodes: [ h1 ]\n"
PAIR = "defaults.device: frr\nmodule: [ ospf ]\nnodes: [ r1, r2 ]\nlinks: [ r1-r2 ]\n"


def ready_spare(runner: UserRunner) -> int:
    """The keeper of a spare that is there."""
    runner.ask("keep_spare")
    runner.ask("wait_for_spare")
    (keeper,) = spares(runner)
    return keeper


def inside(keeper: int) -> dict[int, list[str]]:
    """What the kernel holds the processes in the pod of a keeper to, by their pids."""
    (pod,) = children(keeper)[:1]
    namespace = Path(f"/proc/{pod}/ns/user").readlink()
    found = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            if Path(f"/proc/{pid}/ns/user").readlink() == namespace:
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                found[pid] = [line for line in lines if line.startswith(("NoNewPrivs", "Seccomp:", "CapBnd", "Uid"))]
        except OSError:
            continue  # ended meanwhile
    return found


def zombies_of(pid: int) -> list[str]:
    """The dead children of a process and of its threads."""
    found = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()
    return [child for child in found if "State:\tZ" in Path(f"/proc/{child}/status").read_text()]


def test_a_boot_takes_the_spare_and_gets_a_new_one(user: OrdinaryUser) -> None:
    """Keeper and sandbox are the lab's from now on, by name, seals and priority; at no moment is it anybody else's."""
    lab_id = str(uuid.uuid4())
    with user_runner(user, "warm") as runner:
        keeper = ready_spare(runner)
        (pod,) = children(keeper)
        before = inside(keeper)[pod]
        assert zombies_of(runner.process.pid) == []
        assert runner.ask("orphans") == []
        assert spares(runner) == [keeper]
        assert runner.ask("boot", lab_id, PAIR) == []

        assert (keepers(runner), children(keeper)[0]) == ([keeper], pod)
        assert Path(f"/proc/{pod}/cmdline").read_bytes().split(b"\0")[0].endswith(f":{lab_id}".encode())
        assert inside(keeper)[pod] == before
        assert sorted(os.listdir(f"/proc/{pod}/fd")) == ["0", "1", "2"]
        assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in inside(keeper)} == {os.getpriority(os.PRIO_PROCESS, 0)}
        assert runner.ask("probe", lab_id) is None
        assert runner.ask("orphans") == [lab_id]
        runner.ask("wait_for_spare")
        assert keeper not in spares(runner)
        assert len(spares(runner)) == 1
        runner.ask("stop", lab_id)
        assert keepers(runner) == []
    assert spares(runner) == []
    wait_until(lambda: not user.processes(), "nothing of them runs")


@pytest.mark.parametrize("moment", ["it is made", "it is there"])
def test_a_killed_server_leaves_no_spare(user: OrdinaryUser, moment: str) -> None:
    """After `kill -9` nothing of it runs, and nobody has to look for it."""
    with user_runner(user, "killed-with-spare") as runner:
        runner.ask("keep_spare")
        wait_until(lambda: spares(runner), "the spare has its keeper")
        if moment == "it is there":
            runner.ask("wait_for_spare")
        runner.kill()
        wait_until(lambda: not user.processes(), "nothing of it runs")


def test_a_lab_that_was_a_spare_outlives_its_server(user: OrdinaryUser) -> None:
    """After `kill -9` the next server finds it by its keeper, as it was; the spare that was made meanwhile is gone."""
    lab_id = str(uuid.uuid4())
    with user_runner(user, "adopted") as runner:
        keeper = ready_spare(runner)
        runner.ask("boot", lab_id, SINGLE)
        runner.ask("wait_for_spare")
        runner.kill()
    wait_until(lambda: not spares(runner), "the new spare is gone")
    with user_runner(user, "adopted") as following:
        assert keepers(following) == [keeper]
        assert following.ask("probe", lab_id) is None
        assert following.ask("orphans") == [lab_id]
        following.ask("stop", lab_id)
        wait_until(lambda: not user.processes_of_labs(), "nothing of it runs")


def test_another_server_of_the_user_leaves_the_spare_alone(user: OrdinaryUser) -> None:
    """It sees no lab in it, does not end it, has numbers and a spare of its own; the first one's boot takes its own."""
    first_lab, other_lab = str(uuid.uuid4()), str(uuid.uuid4())
    with user_runner(user, "first") as first, user_runner(user, "other") as other:
        keeper = ready_spare(first)
        assert other.ask("orphans") == []
        other.ask("end_orphan", lab_of(keeper))
        assert ready_spare(other) != keeper
        assert other.ask("boot", other_lab, SINGLE) == []
        other.ask("stop", other_lab)
        other.close()
        assert (first.ask("has_spare"), spares(first)) == (True, [keeper])
        assert first.ask("boot", first_lab, SINGLE) == []
        assert keepers(first) == [keeper]
        first.ask("stop", first_lab)


@pytest.mark.parametrize("when", ["before", "while it is taken"])
def test_a_broken_spare_does_not_matter(user: OrdinaryUser, when: str) -> None:
    """The boot goes the ordinary way, and nothing of the broken one is left."""
    lab_id = str(uuid.uuid4())
    with user_runner(user, "broken") as runner:
        keeper = ready_spare(runner)
        if when == "before":
            os.kill(keeper, 9)
            wait_until(lambda: not spares(runner), "the spare is dead")
        else:
            runner.ask("kill_at_next_rename")
        assert runner.ask("boot", lab_id, SINGLE) == []
        (other,) = keepers(runner)
        assert other != keeper
        assert runner.ask("probe", lab_id) is None
        runner.ask("stop", lab_id)
    wait_until(lambda: not user.processes(), "nothing of them runs")
