"""Notices what code of an upload did outside its sandbox: baits that nobody may touch, and a look before and after."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import selectors
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

SETTINGS = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/sys/kernel/uevent_helper")
WATCHED_FILES = (
    "/etc/passwd", "/etc/shadow", "/etc/hosts", "/etc/resolv.conf", "/etc/ld.so.preload", "/etc/crontab", "/etc/cron.d",
    "/etc/profile", "/root/.bashrc", "/root/.ssh", "/usr/bin/env", "/usr/local/bin",
)  # fmt: skip


def _loot() -> str:
    return f"LOOT-{secrets.token_hex(16)}"


@dataclass
class Bait:
    """What attackers would like to have: secrets, a process, services."""

    files: list[Path]
    settings: Sequence[str]
    pid: int
    port: int
    sockets: list[str]
    loot: dict[str, str]
    """Where a secret lies -> the secret."""
    touched: list[str] = field(default_factory=list)
    """Who came to the services."""

    @classmethod
    @contextmanager
    def spread(cls, folder: Path, private: Path, settings: Sequence[str] = SETTINGS) -> Iterator[Bait]:
        """Lay out everything; `private` is a folder for a secret of the server."""
        loot = {name: _loot() for name in ("file", "environment", "database", "victim", "process")}
        private.mkdir(parents=True)
        secret = private / "secret.yml"
        secret.write_text(f"secret: {loot['file']}\n")
        secret.chmod(0o600)
        with ExitStack() as stack:
            sleeper = subprocess.Popen(["sleep", "900"], env={**os.environ, "SECRET": loot["process"]})
            stack.callback(sleeper.wait)
            stack.callback(sleeper.kill)
            listeners = [stack.enter_context(socket.create_server(("0.0.0.0", 0)))]
            port = int(listeners[0].getsockname()[1])
            sockets = [f"@hostile-{secrets.token_hex(8)}", str(folder / "s")]
            for name in sockets:
                listener = stack.enter_context(socket.socket(socket.AF_UNIX))
                listener.bind("\0" + name[1:] if name.startswith("@") else name)
                listener.listen()
                listeners.append(listener)
            datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            datagrams.bind(("0.0.0.0", port))
            bait = cls([secret], settings, sleeper.pid, port, sockets, loot)
            stack.callback(bait._serve([*listeners, datagrams]))
            yield bait

    def addresses(self) -> list[str]:
        """The addresses of this host that an attacker may try, management networks of other servers left out."""
        shown = subprocess.run(["ip", "-j", "-4", "address"], capture_output=True, text=True, check=True).stdout
        links = [link for link in json.loads(shown) if not link["ifname"].startswith("rlab")]
        return [one["local"] for link in links for one in link["addr_info"] if one.get("local")][:4]

    def alive(self) -> bool:
        """Whether nobody killed the process."""
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
        return False

    def _serve(self, listeners: Sequence[socket.socket]) -> object:
        """Accept whoever comes, on a thread; returns what ends it."""
        stop_read, stop_write = os.pipe()

        def serve() -> None:
            with selectors.DefaultSelector() as selector:
                selector.register(stop_read, selectors.EVENT_READ)
                for listener in listeners:
                    selector.register(listener, selectors.EVENT_READ)
                while True:
                    for key, _ in selector.select():
                        if key.fd == stop_read:
                            return
                        self._take(key.fileobj)

        thread = threading.Thread(target=serve)
        thread.start()

        def end() -> None:
            os.write(stop_write, b"x")
            thread.join()
            os.close(stop_read)
            os.close(stop_write)

        return end

    def _take(self, listener: object) -> None:
        assert isinstance(listener, socket.socket)
        if listener.type == socket.SOCK_DGRAM:
            self.touched.append(f"datagram from {listener.recvfrom(100)[1]}")
            return
        connection, peer = listener.accept()
        connection.close()
        self.touched.append(f"connection from {peer or 'a socket file'}")


class Watch:
    """Looks at the host now, and says later what is different.

    Args:
        token: of the attack that is watched.
        bait: what it is to be drawn to.
        places: folders in which its marks would be seen.
        state_dir: of the server; None: there is none.
    """

    def __init__(self, token: str, bait: Bait, places: Sequence[Path], state_dir: Path | None) -> None:
        self._token = token
        self._bait = bait
        self._places = places
        self._state_dir = state_dir
        self._touched = len(bait.touched)
        self._settings = {path: _read(path) for path in bait.settings}
        self._before = self._look()

    def findings(self, told: str = "") -> list[str]:
        """Return everything the attack achieved outside, as sentences; `told` is what its payload said."""
        found = [f"the secret of the {where} was read" for where, loot in self._bait.loot.items() if loot in told]
        if not self._bait.alive():
            found.append("a process of the host was killed")
        found += self._bait.touched[self._touched :]
        for path, value in self._settings.items():
            if _read(path) != value:
                found.append(f"{path} was set to {_read(path)!r}")
                Path(path).write_text(value)
        found += list(self._marks())
        after = self._look()
        changed = [name for name in {**self._before, **after} if self._before.get(name) != after.get(name)]
        found += [f"{name} was {self._before.get(name)} and is {after.get(name)}" for name in sorted(changed)]
        return found

    def _marks(self) -> Iterator[str]:
        for place in self._places:
            for path in place.glob(f"*{self._token}*"):
                yield f"{path} was made"
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                if self._token.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    yield f"process {pid} was left behind"
        with suppress(OSError):
            for line in Path("/proc/self/mountinfo").read_text().splitlines():
                if self._token in line:
                    yield f"there is a mount: {line}"

    def _look(self) -> dict[str, str]:
        """What may not change: files by size and time, those of the server and its labs by content."""
        seen = {name: _stamp(Path(name)) for name in (*WATCHED_FILES, *map(str, self._bait.files))}
        if self._state_dir is not None:
            for path in self._state_dir.rglob("*"):
                if path.is_file() and "sqlite3" not in path.name and path.name not in ("boot.log", "server.json"):
                    seen[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
        return seen


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "missing"
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_mode:o} {found.st_uid}"


def _read(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text()
    return ""
