"""What a client tells the server about itself: purpose and CI job."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from remote_lab.client import RemoteLabClient
from remote_lab.client.ci import CiJob, recognise

from .fake_peer import FakePeer

Connect = Callable[..., RemoteLabClient]
GITHUB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_RUN_ID": "4711",
    "GITHUB_RUN_ATTEMPT": "2",
    "GITHUB_JOB": "labs",
    "RUNNER_NAME": "runner 3",
    "GITHUB_SERVER_URL": "https://github.example",
    "GITHUB_REPOSITORY": "net/suite",
}
GITHUB_URL = "https://github.example/net/suite/actions/runs/4711/attempts/2"


@pytest.mark.parametrize(
    ("environ", "job"),
    [
        ({}, None),
        ({"CI": "true"}, None),
        (GITHUB, CiJob("4711.2.labs.runner 3", GITHUB_URL)),
        ({"GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "1"}, CiJob("1.1..", None)),
        ({"GITLAB_CI": "true", "CI_JOB_ID": "7", "CI_JOB_URL": "https://x/7"}, CiJob("7", "https://x/7")),
        (
            {"JENKINS_URL": "https://j", "BUILD_TAG": "jenkins-a-1", "BUILD_URL": "https://j/1"},
            CiJob("jenkins-a-1", "https://j/1"),
        ),
        ({"BUILD_TAG": "v1"}, None),
        ({"JENKINS_URL": "https://j", "BUILD_TAG": "x" * 300}, CiJob("x" * 200, None)),
    ],
)
def test_ci_jobs_are_recognised(environ: dict[str, str], job: CiJob | None) -> None:
    """GitHub Actions, GitLab CI and Jenkins; of anything else nothing is claimed."""
    assert recognise(environ) == job


def told(peer: FakePeer) -> dict[str, str]:
    said: dict[str, str] = json.loads(peer.requests("POST", "/session")[-1].body)
    return said


def test_a_session_says_whose_it_is(peer: FakePeer, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """User, host and command; no arguments, because there may be secrets in them."""
    monkeypatch.setattr("sys.argv", ["/usr/bin/pytest", "--password=s3cret"])
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    monkeypatch.setattr("socket.gethostname", lambda: "ci-3")
    connect()
    assert told(peer) == {"purpose": "alice@ci-3: pytest"}


def test_a_purpose_and_a_job_of_the_environment(
    peer: FakePeer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables count, then what the CI system says; arguments count more."""
    for name, value in GITHUB.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("REMOTE_LAB_PURPOSE", "nightly")
    connect()
    assert told(peer) == {"purpose": "nightly", "ci_job_id": "4711.2.labs.runner 3", "ci_job_url": GITHUB_URL}
    monkeypatch.setenv("REMOTE_LAB_CI_JOB", "mine")
    connect()
    assert told(peer)["ci_job_id"] == "mine"
    connect(purpose="now", ci_job="this")
    assert told(peer) == {"purpose": "now", "ci_job_id": "this", "ci_job_url": GITHUB_URL}
