"""Real labs for tests: real netlab in real pods. Safe to run in parallel: the kernel tells the labs apart."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab_host import COMMAND_SECONDS, Host, make_runner

from remote_lab.netlab.pod_site import missing_requirements
from remote_lab.netlab.runner import Device


@pytest.fixture(scope="session", autouse=True)
def _pods_can_run() -> None:
    if reasons := missing_requirements():
        pytest.skip(f"real labs cannot run here: {'; '.join(reasons)}")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    state_dir = tmp_path_factory.mktemp("state")
    host = Host(state_dir, make_runner(state_dir))
    assert host.runner.prepare() == "netns"
    yield host
    for place in host.places:
        host.runner.stop(place)
    host.runner.shutdown()


@pytest.fixture(scope="session")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command on a device by ssh from the host, with the password `admin` or with a key file."""
    askpass = tmp_path_factory.mktemp("ssh") / "askpass"
    askpass.write_text("#!/bin/sh\necho admin\n")
    askpass.chmod(0o755)
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=5"]

    flags = [part for option in options for part in ("-o", option)]

    def run(device: Device, command: str, key: Path | None = None) -> subprocess.CompletedProcess[str]:
        access = ["-i", str(key), "-o", "PasswordAuthentication=no"] if key else ["-o", "PubkeyAuthentication=no"]
        return subprocess.run(
            ["ssh", "-F", "none", *access, *flags, f"root@{device.raw['mgmt']['ipv4']}", command],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"},
            timeout=COMMAND_SECONDS,
            check=False,
        )

    return run
