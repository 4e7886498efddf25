"""An ordinary user with subordinate ids, who exists in one private mount namespace only: the host stays as it is.

Run as a program it is the process that holds that mount namespace. Everything else uses `OrdinaryUser`.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from remote_lab.netlab.netns import kernel

NAME = "labuser"
IDS = 65536
_ROOT = Path(__file__).parents[2]
_users = itertools.count()
_FIRST_ID = 1_600_000_000
"""Of the ranges given out here: below those of pods of root, above all that login.defs gives."""


@dataclass(frozen=True)
class OrdinaryUser:
    """Who can run commands; `home` is hers alone."""

    uid: int
    first_id: int
    """Of her subordinate uids and gids."""
    home: Path
    holder: int
    """Pid of a process in her mount namespace."""
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, *command: str) -> list[str]:
        """The argument list by which root runs a command as this user, in her home."""
        variables = {"HOME": self.home, "USER": NAME, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **self.environment}
        # Proxies and package indexes of the machine: an image may have to be built.
        kept = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy") or "PIP_" in name}
        as_user = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        environment = [f"{name}={value}" for name, value in {**kept, **variables}.items()]
        inside = ["nsenter", f"--mount=/proc/{self.holder}/ns/mnt"]
        return [*inside, *as_user, "env", "-i", f"--chdir={self.home}", *environment, *command]

    def run(self, *command: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; output and errors together."""
        return subprocess.run(
            self.command(*command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )

    def processes(self) -> list[int]:
        """The pids of all that runs as this user or with her subordinate ids."""
        return [pid for pid, uid in _living() if uid == self.uid or self._is_subordinate(uid)]

    def processes_of_labs(self) -> list[int]:
        """Those with subordinate ids alone: everything in pods."""
        return [pid for pid, uid in _living() if self._is_subordinate(uid)]

    def _is_subordinate(self, uid: int) -> bool:
        return 0 <= uid - self.first_id < IDS


def _living() -> Iterator[tuple[int, int]]:
    """Yield pid and uid of every process that is no zombie."""
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            text = Path(f"/proc/{entry}/status").read_text()
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        if fields["State"].split()[0] not in "ZX":
            yield int(entry), int(fields["Uid"].split()[0])


@dataclass(frozen=True)
class _Orders:
    """What the holder is asked to mount."""

    bed: str
    uid: int
    first_id: int
    reachable: list[str]
    subordinate: bool
    image: str | None
    images: str


@contextmanager
def ordinary_user(*, image: Path | None, subordinate: bool = True) -> Iterator[OrdinaryUser]:
    """Make a user for as long as it is wanted.

    Args:
        image: a built lab image of root, shown to the user as built by her; None: she has none.
        subordinate: whether she has subordinate ids.
    """
    number = (os.getpid() * 16 + next(_users)) % 4000
    bed = Path(tempfile.mkdtemp(prefix="remote-lab-user-"))
    home = bed / "home"
    uid, first_id = 40_000 + number, _FIRST_ID + number * IDS
    try:
        bed.chmod(0o711)
        home.mkdir(mode=0o700)
        (bed / "etc").mkdir(mode=0o755)
        (bed / "stash").mkdir(mode=0o700)
        os.chown(home, uid, uid)
        for folder in (home / ".cache", home / ".cache/remote-lab", home / ".cache/remote-lab/images"):
            folder.mkdir(mode=0o700)
            os.chown(folder, uid, uid)
        needed = [str(Path(place).resolve()) for place in (_ROOT, sys.prefix, sys.base_prefix)]
        images = str(home / ".cache/remote-lab/images")
        orders = _Orders(str(bed), uid, first_id, needed, subordinate, str(image) if image else None, images)
        with _holder(orders) as holder:
            yield OrdinaryUser(uid, first_id, home, holder)
    finally:
        shutil.rmtree(bed)


@contextmanager
def _holder(orders: _Orders) -> Iterator[int]:
    command = [sys.executable, __file__, json.dumps(asdict(orders))]
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.stdin.close()
        process.wait(30)


def hold(orders: _Orders) -> None:
    """Mount what was asked for and wait for the end of the input."""
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.stop_mount_propagation()
    bed = Path(orders.bed)
    _let_reach([Path(place) for place in orders.reachable], bed / "stash")
    entry = f"{NAME}:{orders.first_id}:{IDS}\n" if orders.subordinate else ""
    _cover(Path("/etc/subuid"), entry, bed)
    _cover(Path("/etc/subgid"), entry, bed)
    accounts = {
        "passwd": f"{NAME}:x:{orders.uid}:{orders.uid}::{bed}/home:/bin/sh\n",
        "group": f"{NAME}:x:{orders.uid}:\n",
    }
    for name, line in accounts.items():
        _cover(Path("/etc", name), Path("/etc", name).read_text() + line, bed)
    if orders.image:
        place = Path(orders.images, Path(orders.image).name)
        place.mkdir()
        kernel.attach_tree(kernel.clone_tree(Path(orders.image)), place, _map(orders.first_id), read_only=True)
    os.write(1, b"ready\n")
    sys.stdin.read()


def _cover(file: Path, text: str, bed: Path) -> None:
    if not file.exists():
        file.touch()
    substitute = bed / "etc" / file.name
    substitute.write_text(text)
    substitute.chmod(0o644)
    kernel.bind(substitute, file)


def _let_reach(places: Iterable[Path], stash: Path) -> None:
    """Make folders reachable for everybody, where a folder above them lets only root in."""
    for number, place in enumerate(places):
        closed = next((folder for folder in reversed(place.parents) if not folder.stat().st_mode & stat.S_IXOTH), None)
        if closed is None:
            continue
        kept = stash / str(number)
        kept.mkdir()
        kernel.bind(place, kept)
        if closed not in _covered:
            _covered.add(closed)
            kernel.mount("tmpfs", closed, "tmpfs", 0, "mode=755")
        place.mkdir(parents=True, exist_ok=True)
        kernel.bind(kept, place)


_covered: set[Path] = set()


def _map(first_id: int) -> int:
    """A file descriptor of a user namespace in which the ids of an image are those of the user."""
    ready_read, ready_write = os.pipe()
    end_read, end_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end_write)
        kernel.unshare(kernel.CLONE_NEWUSER)
        os.write(ready_write, b".")
        os.read(end_read, 1)
        os._exit(0)
    os.read(ready_read, 1)
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{child}/{name}").write_text(f"0 {first_id} {IDS}")
    descriptor = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
    os.close(end_write)
    os.waitpid(child, 0)
    return descriptor


def main(arguments: Sequence[str]) -> None:
    hold(_Orders(**json.loads(arguments[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
