"""A runner of an ordinary user, in a process of its own; run as a program, it does what its input says.

Each line of its input is a JSON list of a method of `Orders` and its arguments; each is answered by a line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from harness import wait_until
from ordinary_user import OrdinaryUser

from remote_lab.netlab.management import ManagementNetwork
from remote_lab.netlab.rootless import keepers
from remote_lab.netlab.rootless.user_pods import UserPods
from remote_lab.netlab.runner import LabPlace, Runner

_TESTS = Path(__file__).parents[1]


class UserRunner:
    """What the tests have of it."""

    def __init__(self, user: OrdinaryUser, state_dir: Path) -> None:
        self.user = user
        self.state_dir = state_dir
        paths = f"PYTHONPATH={_TESTS}:{_TESTS / 'user'}"
        command = user.command("env", paths, sys.executable, __file__, str(state_dir))
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def ask(self, *words: str) -> Any:
        """Have it do something, and return what came of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        """`kill -9` of it and of nothing else."""
        self.process.kill()
        self._wait()

    def close(self) -> None:
        """End it in order, with every lab of its state folder."""
        if self.process.poll() is None:
            self.ask("close")
        self._wait()

    def _wait(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.wait(30)


@contextmanager
def user_runner(user: OrdinaryUser, name: str) -> Iterator[UserRunner]:
    """A runner with a state folder of this name, and without a spare."""
    runner = UserRunner(user, user.home / name)
    try:
        yield runner
    finally:
        runner.close()


class Orders:
    """What can be done."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._state_dir.mkdir(exist_ok=True)
        self._runner = Runner(
            provider="netns",
            netlab=None,
            image=None,
            image_dir=Path.home() / ".cache/remote-lab/images",
            image_mirror=None,
            state_dir=state_dir,
            management_pool=IPv4Network("198.18.0.0/16"),
            boot_seconds=60,
            teardown_seconds=20,
        )

    def keep_spare(self) -> None:
        """Begin to have one; returns at once."""
        self._runner.keep_spare()

    def wait_for_spare(self) -> None:
        wait_until(self._runner.has_spare, "there is a spare sandbox")

    def has_spare(self) -> bool:
        return self._runner.has_spare()

    def boot(self, lab_id: str, topology: str) -> list[str]:
        """Boot a lab; return the labs that were seen meanwhile and that nobody knows."""
        place = self._place(lab_id)
        place.directory.mkdir()
        (place.directory / "topology.yml").write_text(topology)
        seen: set[str] = set()
        ended = threading.Event()

        def look() -> None:
            while not ended.is_set():
                seen.update(self._runner.orphans([lab_id]))

        watch = threading.Thread(target=look)
        watch.start()
        try:
            self._runner.boot(place, cancel=threading.Event(), report_phase=lambda phase: None)
        finally:
            ended.set()
            watch.join()
        return sorted(seen)

    def kill_at_next_rename(self) -> None:
        """From now on a pod dies when its keeper has a new name and itself has none."""
        rename = UserPods._rename_claim

        def rename_and_kill(pods: UserPods, network: ManagementNetwork, spare_id: str, lab_id: str) -> None:
            rename(pods, network, spare_id, lab_id)
            found = [one for one in keepers.own_keepers() if one.lab_id == lab_id]
            os.kill(keepers.pods_of(found)[found[0].pid], signal.SIGKILL)

        UserPods._rename_claim = rename_and_kill  # type: ignore[method-assign]  # as if it had happened

    def probe(self, lab_id: str) -> str | None:
        return self._runner.probe(self._place(lab_id))

    def orphans(self) -> list[str]:
        """All labs of this state folder."""
        return self._runner.orphans(())

    def end_orphan(self, lab_id: str) -> None:
        self._runner.end_orphan(lab_id)

    def stop(self, lab_id: str) -> None:
        self._runner.stop(self._place(lab_id))

    def close(self) -> None:
        """Leave nothing, whatever the test did."""
        self._runner.drop_spare()
        for lab_id in self._runner.orphans(()):
            self._runner.end_orphan(lab_id)
        self._runner.shutdown()

    def _place(self, lab_id: str) -> LabPlace:
        return LabPlace(lab_id, 1, self._state_dir / lab_id, "topology.yml", self._state_dir / f"{lab_id}.log")


def main() -> None:
    orders = Orders(Path(sys.argv[1]))
    for line in sys.stdin:
        verb, *words = json.loads(line)
        answer = getattr(orders, verb)(*words)
        os.write(1, json.dumps(answer).encode() + b"\n")
        if verb == "close":
            return


if __name__ == "__main__":
    main()
