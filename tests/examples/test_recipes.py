"""The CI recipes: they fit their CI systems' schemas, and their steps do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from harness import CALL_SECONDS, Server, wait_until

from .recipes import RECIPES, Job, github, gitlab, jenkins, make_shims

JOB_SECONDS = 240
BROKEN = "\n\ndef test_broken(ospf_pair):\n    assert [device.name for device in ospf_pair] == []\n"


class CiSystem:
    """Runs a job in a project, step after step."""

    def __init__(self, job: Job, project: Path, environment: dict[str, str], shims: Path) -> None:
        self._job = job
        self._project = project
        path = f"{shims}:{environment['PATH']}"
        self.environment = {
            **environment,
            **job.environment,
            "PATH": path,
            "REMOTE_LAB_URL": environment["REMOTE_LAB_URL"],
        }
        self.output = ""

    def run(self) -> bool:
        """Run all steps as the CI system would; tell whether the job succeeded."""
        succeeded = True
        for step in self._job.steps:
            if succeeded or step.is_always:
                done = subprocess.run(
                    [*step.shell, step.script],
                    cwd=self._project,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=JOB_SECONDS,
                    check=False,
                )
                self.output += f"$ {step.script.strip()}\n{done.stdout}"
                succeeded = succeeded and done.returncode == 0
        return succeeded

    def kept(self) -> list[str]:
        """The artifacts that are there."""
        return [name for name in self._job.artifacts if (self._project / name).exists()]


@pytest.mark.parametrize(
    ("recipe", "schema"), [("github-actions.yml", "github-workflows"), ("gitlab-ci.yml", "gitlab-ci")]
)
def test_recipes_fit_the_public_schemas(recipe: str, schema: str) -> None:
    """Those of SchemaStore and GitLab, as check-jsonschema has them."""
    checker = Path(sys.executable).parent / "check-jsonschema"
    done = subprocess.run(
        [checker, "--builtin-schema", f"vendor.{schema}", RECIPES / recipe],
        capture_output=True,
        text=True,
        timeout=CALL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_jenkinsfile_is_balanced() -> None:
    """As much as can be said without a Jenkins: its blocks close, and those of a declarative pipeline are there."""
    text = re.sub(r"^\s*//.*$", "", (RECIPES / "Jenkinsfile").read_text(), flags=re.MULTILINE)
    assert text.count("{") == text.count("}")
    top = re.findall(r"^    (\w+) ", text, re.MULTILINE)
    assert top == ["agent", "options", "environment", "stages", "post"]


@pytest.mark.parametrize("recipe", [github, gitlab, jenkins])
def test_the_time_of_a_job_fits_the_queue(recipe: Callable[[], Job]) -> None:
    """Waiting for an hour is allowed for, and the job is not ended before."""
    assert float(recipe().environment["REMOTE_LAB_SESSION_TIMEOUT"]) == 3600
    text = (
        RECIPES / {"github": "github-actions.yml", "gitlab": "gitlab-ci.yml"}.get(recipe.__name__, "Jenkinsfile")
    ).read_text()
    (minutes,) = re.findall(r"timeout(?:-minutes)?(?:: |\(time: )(\d+)", text)
    assert int(minutes) * 60 > 3600 + 600


@pytest.mark.lab
@pytest.mark.timeout(400)
@pytest.mark.parametrize("recipe", [github, gitlab, jenkins])
def test_a_recipe_runs_the_suite(
    recipe: Callable[[], Job], server: Server, project: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """Its steps, as the recipe has them: install, four tests, nothing left to release, reports kept."""
    ci = CiSystem(recipe(), project, environment, make_shims(tmp_path / "shims", Path(sys.executable)))
    assert ci.run(), ci.output
    assert "installed: remote-lab" in ci.output
    assert "4 passed" in ci.output
    assert "Nothing is left of CI job" in ci.output
    assert "reports/junit.xml" in ci.kept() or "reports/" in ci.kept()
    (suite,) = ElementTree.parse(project / "reports" / "junit.xml").getroot()
    assert suite.attrib["tests"] == "4"


@pytest.mark.lab
@pytest.mark.timeout(400)
def test_a_job_that_fails_keeps_what_the_lab_said(
    server: Server, project: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """The clean-up runs all the same, and the artifacts are there."""
    with (project / "test_ospf.py").open("a") as tests:
        tests.write(BROKEN)
    ci = CiSystem(gitlab(), project, environment, make_shims(tmp_path / "shims", Path(sys.executable)))
    assert not ci.run()
    assert "1 failed" in ci.output, ci.output
    assert "of CI job 4711" in ci.output
    assert any((project / "reports" / "labs").rglob("*")), ci.output


@pytest.mark.lab
def test_release_ends_what_a_killed_job_left(
    server: Server, project: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """The tests were killed: their session and their lab are there until the step that always runs."""
    job = github()
    ci = CiSystem(job, project, environment, make_shims(tmp_path / "shims", Path(sys.executable)))
    command = [
        sys.executable,
        "-m",
        "remote_lab",
        "run",
        "topologies/ospf-pair.yml",
        "--",
        "sh",
        "-c",
        "echo up; sleep 60",
    ]
    with subprocess.Popen(
        command,
        cwd=project,
        env={**environment, **job.environment, "REMOTE_LAB_URL": server.url},
        stdout=subprocess.PIPE,
    ) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"up\n"
        killed.kill()
    release = next(step for step in job.steps if "release" in step.script)
    done = subprocess.run(
        [*release.shell, release.script], cwd=project, env=ci.environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "Ended 1 session of CI job 17.1.labs.runner-1.\n"
    wait_until(lambda: not server.call("GET", "/debug/health").json()["labs"], "the lab is gone")
