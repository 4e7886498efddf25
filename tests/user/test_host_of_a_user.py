"""What an ordinary user is told of the host, and what this user builds on it."""

from __future__ import annotations

import os
import sys

import pytest
from effort import LONG
from harness import free_port
from ordinary_user import OrdinaryUser, ordinary_user

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

BUILD_SECONDS = 500
BUILD_ALL = "from remote_lab.cli import commands; commands(['image', 'build'])"
BUILD_SMALL = f"from remote_lab.netlab import image; image._PACKAGES = ('python3',); {BUILD_ALL}"
"""The same steps, without what takes the longest: FRR and the other packages of devices."""


def remote_lab(user: OrdinaryUser, *words: str, seconds: float = 60.0) -> tuple[int, str]:
    done = user.run(sys.executable, "-m", "remote_lab", *words, seconds=seconds)
    return done.returncode, done.stdout


def test_doctor_says_that_labs_run_and_how(user: OrdinaryUser) -> None:
    """All that is needed is there, and devices are said to be reached through their pod."""
    _, said = remote_lab(user, "doctor", "--port", str(free_port()))
    assert "Labs can run here, with the provider netns." in said, said
    assert "labuser, without root: devices are reached through their pod" in said
    assert "work in a user namespace" in said


def test_user_without_subordinate_ids_is_told_how_to_get_some() -> None:
    """The start ends with the command for it, before anything on the host is touched."""
    with ordinary_user(image=None, subordinate=False) as user:
        status, said = remote_lab(user, "serve", "--port", str(free_port()))
        assert (status, "sudo usermod --add-subuids" in said) == (1, True), said
        assert user.processes() == []


def test_user_builds_an_image() -> None:
    """Built by nobody but the user, in a home that is closed to everybody else; it is removed again as easily."""
    with ordinary_user(image=None) as user:
        if mirror := os.environ.get("REMOTE_LAB_IMAGE_MIRROR"):
            user.environment["REMOTE_LAB_IMAGE_MIRROR"] = mirror
        built = user.run(sys.executable, "-c", BUILD_ALL if LONG else BUILD_SMALL, seconds=BUILD_SECONDS)
        assert built.returncode == 0, built.stdout
        (image,) = (user.home / ".cache/remote-lab/images").glob("*-*")
        assert (image.stat().st_uid, image.stat().st_gid) == (user.first_id, user.first_id)
        assert (image / "etc/shadow").stat().st_gid == user.first_id + 42  # Debian's group `shadow`
        assert (image / "opt/netlab/netsim").is_dir()
        assert remote_lab(user, "image", "rm", image.name)[0] == 0
        assert [path.name for path in image.parent.iterdir()] == [".lock"]
        assert user.processes() == []
