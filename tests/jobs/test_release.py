"""`remote-lab release`, the clean-up step of CI jobs."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Server, free_port, wait_until

from .conftest import QUICK, User

GITHUB = {"GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "17", "GITHUB_RUN_ATTEMPT": "2", "GITHUB_JOB": "labs"}
GITLAB = {"GITLAB_CI": "true", "CI_JOB_ID": "4711", "CI_JOB_URL": "https://gitlab.example/-/jobs/4711"}
JENKINS = {"JENKINS_URL": "https://jenkins.example/", "BUILD_TAG": "jenkins-network-17"}


def leave(user: User, *options: str, **environment: str) -> None:
    """Run something and be killed, so that the session stays."""
    run = user.start("run", *options, user.write(QUICK), "--", "sh", "-c", "echo up; exec sleep 30", **environment)
    run.wait_for("up\n")
    run.process.kill()
    run.process.wait()


def test_it_ends_what_a_job_left_and_nothing_else(server: Server, user: User) -> None:
    """Once there is something, then nothing; both are fine."""
    leave(user, "--ci-job", "mine")
    other = server.open_session()
    assert user.type("release", "--ci-job", "mine").out == "Ended 1 session of CI job mine.\n"
    assert user.type("release", "--ci-job", "mine").out == "Nothing is left of CI job mine.\n"
    server.wait_active(other)


def test_it_ends_those_who_wait_as_well(server: Server, user: User) -> None:
    """And counts them."""
    leave(user, "--ci-job", "mine")
    server.call("POST", "/session", json={"ci_job_id": "mine"})
    assert user.type("release", "--ci-job", "mine").out == "Ended 2 sessions of CI job mine.\n"
    wait_until(lambda: server.call("GET", "/active-session").status_code == 404, "nobody is left")


@pytest.mark.parametrize(("system", "job"), [(GITHUB, "17.2.labs."), (GITLAB, "4711"), (JENKINS, "jenkins-network-17")])
def test_the_job_is_recognised(user: User, system: dict[str, str], job: str) -> None:
    """Nobody has to name it, neither where it begins nor where it ends."""
    leave(user, **system)
    assert user.type("release", **system).out == f"Ended 1 session of CI job {job}.\n"


def test_a_variable_names_the_job_for_all_steps(user: User) -> None:
    """REMOTE_LAB_CI_JOB, also from `.env`."""
    user.write("REMOTE_LAB_CI_JOB=night\n", ".env")
    leave(user)
    assert user.type("release").out == "Ended 1 session of CI job night.\n"


def test_without_a_job_it_says_what_to_do(user: User) -> None:
    """Wrong usage."""
    assert "--ci-job" in user.type("release", status=2).err


def test_without_a_url_it_says_what_to_do(tmp_path: Path) -> None:
    """Wrong usage."""
    assert "REMOTE_LAB_URL" in User(None, tmp_path).type("release", "--ci-job", "mine", status=2).err


def test_a_lab_host_that_does_not_answer_is_a_failure(tmp_path: Path) -> None:
    """The step is red: something may be left."""
    user = User(f"http://127.0.0.1:{free_port()}", tmp_path)
    assert "CI job mine may have left something" in user.type("release", "--ci-job", "mine", status=1).err
