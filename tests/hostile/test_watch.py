"""The watch over hostile uploads notices what they do where nothing holds them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import processes_named, wait_until
from hostile_stage import new_token, read_attack
from hostile_watch import Bait, Watch

SECONDS = 60


@pytest.mark.parametrize("name", ["plugin-file", "fstring-link-group", "topology-defaults"])
def test_an_attack_without_a_sandbox_is_noticed(tmp_path: Path, name: str) -> None:
    """The same upload, run by the same netlab on the bare host: every bait is touched, and the watch says so."""
    token = new_token()
    folders = {where: tmp_path / where for where in ("lab", "home", "place", "state")}
    for folder in folders.values():
        folder.mkdir()
    setting = tmp_path / "setting"
    setting.write_text("as it was")
    (folders["state"] / "plan.json").write_text("as it was")
    with Bait.spread(tmp_path, folders["state"] / "private", settings=[str(setting)]) as bait:
        targets = {
            "token": token,
            "places": [str(folders["place"])],
            "files": [*map(str, bait.files), str(folders["state"] / "plan.json")],
            "settings": [(str(setting), "spoilt")],
            "pids": [bait.pid],
            "hosts": ["127.0.0.1"],
            "ports": [bait.port],
            "sockets": bait.sockets,
        }
        contained = read_attack(name).sent(targets)
        contained["attack.py"] = _contained(contained["attack.py"])
        for file, content in contained.items():
            (folders["lab"] / file).write_bytes(content)
        watch = Watch(token, bait, [folders["place"]], folders["state"])
        assert watch.findings() == []
        command = [Path(sys.executable).with_name("netlab"), *_command(name)]
        environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folders["home"])}
        ran = subprocess.run(
            command, cwd=folders["lab"], env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        try:
            assert f'HOSTILE {{"token": "{token}"' in ran.stdout, ran.stdout + ran.stderr
            wait_until(lambda: len(bait.touched) >= 3, "all services were touched")
            noticed = "\n".join(watch.findings(ran.stdout))
        finally:
            for pid in processes_named(f"hostile-{token}"):
                os.kill(pid, signal.SIGKILL)
    for what in (
        "the secret of the file was read",
        "a process of the host was killed",
        "connection from ('127.0.0.1'",
        "connection from a socket file",
        "datagram from ('127.0.0.1'",
        f"{setting} was set to 'spoilt'",
        f"{folders['place']}/hostile-{token} was made",
        "was left behind",
        "plan.json was",
        "secret.yml was",
    ):
        assert what in noticed, noticed


def _command(name: str) -> list[str]:
    # `up` for hooks, with a provider that starts nothing and asks nothing of the host.
    return ["up" if name == "topology-defaults" else "create", "-p", "external", "-d", "linux", "topology.yml"]


def _contained(payload: bytes) -> bytes:
    """Without what would really hurt this host: marks in its root, mounts, and a walk through its files."""
    text = payload.decode()
    for line, instead in (
        ('inside = ["/", "/usr", "/usr/local/bin", "/opt", "/image", "/image/usr"]', "inside = []"),
        ('("", "/proc/1/root", "/proc/self/root/proc/1/root", "/proc/1/cwd/../../../..")', '("",)'),
        (", stay_behind, mount_everything)", ", stay_behind)"),
        ('for place in [*WALKED, *TARGETS["places"]]:', 'for place in TARGETS["places"]:'),
        ('for place in (".", "/"):', 'for place in (".",):'),
    ):
        assert text.count(line) == 1, line
        text = text.replace(line, instead)
    return text.encode()
