"""The README's own commands, run as they are written, on a clean clone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from harness import ASKPASS, ROOT, processes_named, wait_until

from remote_lab.netlab.pod_site import state_tag

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

SETUP_SECONDS = 500
COMMAND_SECONDS = 60


def commands() -> list[str]:
    """The shell blocks of the README, in their order."""
    blocks = re.findall(r"^\.\. code-block:: sh\n\n((?:   .*\n|\n)+)", (ROOT / "README.rst").read_text(), re.MULTILINE)
    return ["\n".join(line[3:] for line in block.splitlines()).strip() for block in blocks]


def without(links: list[str], text: str) -> str:
    """The lines that are not about these links."""
    return "\n".join(line for line in text.splitlines() if not {*re.findall(r"rlab\d+", line)} & {*links})


class Stranger:
    """Somebody with a clone, a shell and a network namespace of their own: what they do to the host is all there is."""

    def __init__(self, home: Path) -> None:
        self.clone = home / "clone"
        self.state_dir = home / ".local/state/remote-lab"
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("REMOTE_LAB_", "MAKE", "VIRTUAL_ENV")) or key == "REMOTE_LAB_IMAGE_DIR"
        }
        self.environment |= {"HOME": str(home), "SSH_ASKPASS": str(ASKPASS), "SSH_ASKPASS_REQUIRE": "force"}
        self.environment["ASKPASS_SAYS"] = "admin"
        self.network = subprocess.Popen(["unshare", "--net", "sh", "-c", "ip link set lo up && exec sleep 3600"])
        self.enter = ["nsenter", f"--net=/proc/{self.network.pid}/ns/net"]

    def copy_tree(self) -> None:
        """What a clone would have, of the tree as it is now."""
        listed = subprocess.check_output(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
        )
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.clone / name)

    def run(self, script: str, seconds: float = COMMAND_SECONDS) -> str:
        """Type something, and see what it prints."""
        return subprocess.run(
            [*self.enter, "bash", "-euo", "pipefail", "-c", script],
            cwd=self.clone,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=seconds,
            check=True,
        ).stdout

    def spares(self) -> list[str]:
        """The links of sandboxes that are kept for the next lab."""
        return re.findall(r"\b(rlab\d+)@.*:spare-", self.run("ip -oneline link"))

    def look(self) -> dict[str, str]:
        """What a lab could leave on the host; the spare sandbox, which is there or on its way, is no lab's."""
        spares = self.spares()
        tag = state_tag(self.state_dir)
        return {
            "interfaces": without(spares, self.run("ip -brief address")),
            "routes": without(spares, self.run("ip route show table all")),
            "mounts": self._mounts(),
            "sandboxes": str(sorted({*processes_named(tag)} - {*processes_named(f"{tag}:spare-")})),
            "files": self.run(f"ls -A {self.state_dir}/labs 2>/dev/null || true"),
        }

    def _mounts(self) -> str:
        """The host's mounts but those that other tests, beside this one, make in folders of their own."""
        home = self.clone.parent
        places = [line.split()[4] for line in Path("/proc/1/mountinfo").read_text().splitlines()]
        return "\n".join(
            place
            for place in places
            if Path(place).is_relative_to(home) or not Path(place).is_relative_to(home.parents[1])
        )

    def wait_for_look(self, before: dict[str, str]) -> None:
        """Wait until the host looks so; what differs is in the failure."""
        with suppress(AssertionError):
            wait_until(lambda: self.look() == before, "the host is as before")
        assert self.look() == before

    @contextmanager
    def serving(self, command: str) -> Iterator[None]:
        """Keep a command running in another terminal until the block ends, then press Ctrl-C there."""
        log = self.clone.parent / "serve.log"
        with log.open("w") as output:
            server = subprocess.Popen(
                [*self.enter, "bash", "-c", f"exec {command}"],
                cwd=self.clone,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            wait_until(lambda: " on http://127.0.0.1:8000" in log.read_text(), "the server says where it is", 60)
            wait_until(lambda: self.run("curl -s http://127.0.0.1:8000/healthz || echo no") == "", "it answers")
            yield
        finally:
            os.killpg(server.pid, signal.SIGINT)
            server.wait(COMMAND_SECONDS)


class Shell:
    """A shell that remembers its variables from one block to the next."""

    def __init__(self, stranger: Stranger) -> None:
        self._stranger = stranger
        self._variables = stranger.clone.parent / "variables"
        self._variables.touch()

    def type(self, block: str) -> str:
        """Run a block as it is written; returns what it prints."""
        keep = f"declare -p | grep -E '^declare -- (LAB|SESSION|R1)=' > {self._variables} || true"
        return self._stranger.run(f"source {self._variables}\n{block}\n{keep}")


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Stranger]:
    stranger = Stranger(tmp_path)
    stranger.copy_tree()
    # The namespace has no way to the package registries, so what must be fetched is fetched before.
    subprocess.run(["make", "image"], cwd=stranger.clone, env=stranger.environment, check=True, timeout=SETUP_SECONDS)
    yield stranger
    stranger.network.kill()
    stranger.network.wait()


def test_the_readme_as_it_is_written(stranger: Stranger) -> None:
    """Serve, enter the queue, boot two routers, see their adjacency over ssh, give everything back; then in one go."""
    serve, enter, boot, login, leave, run = commands()
    with stranger.serving(serve):
        # A spare sandbox that is being made is one moment an interface that says nothing of whose it is.
        wait_until(stranger.spares, "the server has its spare sandbox")
        before = stranger.look()
        shell = Shell(stranger)
        assert '"status":"active"' in shell.type(enter)
        assert [line.split()[0] for line in shell.type(boot).splitlines()] == ["r1", "r2"]
        during = stranger.look()
        assert [key for key in before if before[key] != during[key]] == ["interfaces", "routes", "sandboxes", "files"]
        wait_until(lambda: "Full/" in shell.type(login), "r1 is fully adjacent to r2", COMMAND_SECONDS)
        shell.type(leave)
        stranger.wait_for_look(before)
        assert "eth1" in shell.type(run)
        stranger.wait_for_look(before)
