"""What the three CI systems would do with the recipes: their shell steps in order, in the shell they use."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .conftest import EXAMPLES

RECIPES = EXAMPLES / "ci"


@dataclass(frozen=True)
class Step:
    """One shell script of a job."""

    script: str
    is_always: bool = False
    """It runs after a failure as well."""
    shell: tuple[str, ...] = ("sh", "-e", "-c")


@dataclass(frozen=True)
class Job:
    """A recipe as it is run."""

    steps: list[Step]
    environment: Mapping[str, str]
    """What the CI system and the recipe put into the environment."""
    artifacts: list[str] = field(default_factory=list)
    """Files and folders that are kept."""


def github() -> Job:
    """The job of the workflow, with the environment that the GitHub runner gives it."""
    job = yaml.safe_load((RECIPES / "github-actions.yml").read_text())["jobs"]["labs"]
    known = {"github.repository": "acme/network", "github.ref_name": "main", "secrets.REMOTE_LAB_TOKEN": ""}
    environment = {name: _github_expression(str(value), known) for name, value in job["env"].items()}
    environment |= {
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_RUN_ID": "17",
        "GITHUB_RUN_ATTEMPT": "1",
        "GITHUB_JOB": "labs",
        "RUNNER_NAME": "runner-1",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REPOSITORY": "acme/network",
    }
    # docs.github.com, workflow syntax: without `shell:` a step is a file given to `bash -e`.
    steps = [
        Step(step["run"], step.get("if") == "always()", ("bash", "-e", "-c")) for step in job["steps"] if "run" in step
    ]
    uploads = [step["with"]["path"] for step in job["steps"] if step.get("uses", "").startswith("actions/upload")]
    return Job(steps, environment, uploads)


def _github_expression(text: str, known: Mapping[str, str]) -> str:
    """Fill in `${{ ... }}`; what only the machine of the test knows stays away."""
    return re.sub(r"\$\{\{ *([\w.]+) *\}\}", lambda found: known.get(found[1], ""), text)


def gitlab() -> Job:
    """The job of the pipeline, with the environment that the GitLab runner gives it."""
    job = yaml.safe_load((RECIPES / "gitlab-ci.yml").read_text())["labs"]
    environment = {
        "CI": "true",
        "GITLAB_CI": "true",
        "CI_JOB_ID": "4711",
        "CI_JOB_URL": "https://gitlab.example/acme/network/-/jobs/4711",
        "CI_PROJECT_PATH": "acme/network",
        "CI_COMMIT_REF_NAME": "main",
    }
    for name, value in job["variables"].items():
        environment[name] = re.sub(r"\$(\w+)", lambda found: environment.get(found[1], ""), str(value))
    steps = [Step("\n".join([*job["before_script"], *job["script"]])), Step("\n".join(job["after_script"]), True)]
    return Job(steps, environment, [*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]])


def jenkins() -> Job:
    """The pipeline, with the environment that Jenkins gives it; of Groovy only strings of `sh` are understood."""
    text = re.sub(r"^\s*//.*$", "", (RECIPES / "Jenkinsfile").read_text(), flags=re.MULTILINE)
    stages, post = text.split("    post {")
    environment = {
        "JENKINS_URL": "https://jenkins.example/",
        "BUILD_TAG": "jenkins-network-17",
        "BUILD_URL": "https://jenkins.example/job/network/17/",
        "BUILD_NUMBER": "17",
        "JOB_NAME": "network",
    }
    block = stages[stages.index("environment {") : stages.index("stages {")]
    for name, quote, value in re.findall(r"(\w+) = (['\"])(.*)\2", block):
        filled = re.sub(r"\$\{env\.(\w+)\}", lambda found: environment[found[1]], value) if quote == '"' else value
        environment[name] = filled
    artifacts = [found.removesuffix("**") for found in re.findall(r"(?:artifacts|testResults): '([^']+)'", post)]
    steps = [Step(script) for script in _shell_steps(stages)] + [Step(script, True) for script in _shell_steps(post)]
    return Job(steps, environment, artifacts)


def _shell_steps(groovy: str) -> list[str]:
    # In Groovy's '''...''' as in '...' a backslash at the end of a line joins lines.
    found = re.findall(r"\bsh (?:'''(.*?)'''|'([^'\n]*)')", groovy, re.DOTALL)
    return [(long or short).replace("\\\n", " ") for long, short in found]


PIP = """#!/bin/sh
# Instead of downloading: everything that the recipe asks for has to be installed already.
[ "$1 $2" = "install -r" ] || {{ echo "unexpected: pip $*" >&2; exit 1; }}
exec {python} -c '
import sys
from importlib.metadata import version
for name in open(sys.argv[1]).read().split():
    print("installed:", name, version(name))
' "$3"
"""
PYTHON = """#!/bin/sh
# `python3 -m venv DIR` makes an environment that has the commands of this one, and a pip that downloads nothing.
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p "$3/bin"
    ln -s {bin}/pytest {bin}/remote-lab {shims}/pip "$3/bin/"
    exit 0
fi
exec {python} "$@"
"""


def make_shims(folder: Path, python: Path) -> Path:
    """Commands that come first on PATH: those that would download."""
    folder.mkdir()
    names = {"python": shlex.quote(str(python)), "bin": shlex.quote(str(python.parent)), "shims": str(folder)}
    for name, text in {"pip": PIP, "python3": PYTHON}.items():
        (folder / name).write_text(text.format(**names))
        (folder / name).chmod(0o755)
    return folder


def requirements(project: Path) -> set[str]:
    """What a project needs."""
    return set((project / "requirements.txt").read_text().split())


def load(name: str) -> Any:
    """A recipe as YAML."""
    return yaml.safe_load((RECIPES / name).read_text())
