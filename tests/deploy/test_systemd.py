"""The files for systemd, by systemd's own tools and as far as they can be followed without one that runs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from harness import CALL_SECONDS, ROOT, STANDIN, free_port

from remote_lab.config import Config

DEPLOY = ROOT / "deploy"
SYSTEM_UNITS = Path("/usr/lib/systemd/system")
COMMAND = "/opt/remote-lab/bin/remote-lab"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=CALL_SECONDS, check=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of a host on which everything was installed as docs/deploy.rst says."""
    root = tmp_path / "root"
    for name in ("remote-lab.service", "sysusers.d/remote-lab.conf", "tmpfiles.d/remote-lab.conf"):
        folder = "etc/systemd/system" if name.endswith(".service") else "etc"
        (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DEPLOY / name, root / folder / name)
    shutil.copytree(SYSTEM_UNITS, root / "usr/lib/systemd/system", symlinks=True)
    (root / COMMAND[1:]).parent.mkdir(parents=True)
    (root / COMMAND[1:]).write_text("#!/bin/sh\n")
    (root / COMMAND[1:]).chmod(0o755)
    (root / "bin").mkdir()
    shutil.copy(root / COMMAND[1:], root / "bin/sh")
    (root / "etc/remote-lab").mkdir()
    shutil.copy(DEPLOY / "env.example", root / "etc/remote-lab/env")
    return root


def verify(root: Path) -> str:
    result = run("systemd-analyze", "verify", "--man=no", f"--root={root}", "remote-lab.service")
    return result.stdout + result.stderr + ("" if result.returncode == 0 else f"status {result.returncode}")


def test_systemd_has_nothing_to_say_about_the_unit(root: Path) -> None:
    """No unknown key, no bad value, no missing executable."""
    assert verify(root) == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("KillMode=process", "KillMood=process"), ("Type=notify", "Type=notified"), (COMMAND, "/opt/nothing")],
)
def test_the_verification_can_fail(root: Path, right: str, wrong: str) -> None:
    """What it looks for, it finds."""
    unit = root / "etc/systemd/system/remote-lab.service"
    unit.write_text(unit.read_text().replace(right, wrong))
    assert verify(root) != ""


def exposure(root: Path) -> float:
    """How much a service may, by systemd's own reckoning: from 0, nothing, to 10."""
    result = run("systemd-analyze", "security", "--no-pager", "--offline=yes", f"--root={root}", "remote-lab.service")
    found = re.search(r"Overall exposure level for remote-lab.service: ([0-9.]+)", result.stdout)
    assert found, result.stdout + result.stderr
    return float(found[1])


def test_the_unit_may_no_more_than_is_documented(root: Path) -> None:
    """The number in docs/deploy.rst; a line less in the unit is a larger one."""
    documented = re.search(
        r"``systemd-analyze security remote-lab`` says ([0-9.]+)", (ROOT / "docs/deploy.rst").read_text()
    )
    assert documented
    assert exposure(root) <= float(documented[1])
    unit = root / "etc/systemd/system/remote-lab.service"
    unit.write_text(unit.read_text().replace("PrivateDevices=yes\n", ""))
    assert exposure(root) > float(documented[1])


def test_where_netlab_runs_on_the_host_nothing_is_taken_away(root: Path) -> None:
    """The settings for containerlab and libvirt undo every restriction that would reach their tools."""
    folder = root / "etc/systemd/system/remote-lab.service.d"
    folder.mkdir()
    shutil.copy(DEPLOY / "host-provider.conf", folder)
    assert verify(root) == ""
    assert exposure(root) > 9


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_user_and_folders_are_as_systemd_makes_them(root: Path) -> None:
    """The settings can be read by root and the server's group only, backups by root."""
    assert run("systemd-sysusers", f"--root={root}").returncode == 0
    made = run("systemd-tmpfiles", f"--root={root}", "--create", root / "etc/tmpfiles.d/remote-lab.conf")
    assert (made.returncode, made.stderr) == (0, "")
    name, _, _, group, _, home, shell = (root / "etc/passwd").read_text().strip().split(":")
    assert (name, home, Path(shell).name) == ("remote-lab", "/var/lib/remote-lab", "nologin")
    expected = {"etc/remote-lab": (0o750, 0, int(group)), "etc/remote-lab/env": (0o640, 0, int(group))}
    expected["var/backups/remote-lab"] = (0o700, 0, 0)
    found = {path: (root / path).stat() for path in expected}
    assert {path: (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) for path, stat in found.items()} == expected


def test_the_unit_starts_what_there_is_and_says_when_it_is_ready(notifications: socket.socket, tmp_path: Path) -> None:
    """With the environment that systemd gives a service: ready when it listens, everything in StateDirectory."""
    unit = ConfigParser(delimiters="=", strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "remote-lab.service")
    port = free_port()
    start = unit["Service"]["ExecStart"]
    assert start.startswith(f"{COMMAND} serve ")
    arguments = start.removeprefix(COMMAND).replace(" 8000", f" {port}").split()
    state_dir = tmp_path / unit["Service"]["StateDirectory"]
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "STATE_DIRECTORY": str(state_dir),
        "NOTIFY_SOCKET": notifications.getsockname(),
        "REMOTE_LAB_PROVIDER": "clab",
        "REMOTE_LAB_NETLAB": str(STANDIN),
    }
    command = Path(shutil.which("remote-lab", path=str(Path(sys.executable).parent)) or "")
    server = subprocess.Popen(
        [command, *arguments], cwd="/", env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        assert notifications.recv(1000).startswith(b"READY=1")
        socket.create_connection(("127.0.0.1", port), timeout=CALL_SECONDS).close()
        assert (state_dir / "remote-lab.sqlite3").is_file()
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(CALL_SECONDS) == 0


def test_the_example_of_settings_has_each_with_its_default() -> None:
    """Uncommenting a line changes nothing; no setting is left out."""
    lines = re.findall(r"^#(REMOTE_LAB_\w+)=(.*)$", (DEPLOY / "env.example").read_text(), re.MULTILINE)
    examples = dict(lines)
    assert len(lines) == len(examples)
    assert Config.from_environment(examples) == Config.from_environment({})
    fields = {f"REMOTE_LAB_{name.upper()}": default for name, default in vars(Config.from_environment({})).items()}
    assert sorted(examples) == sorted(fields)
    by_machine = {"REMOTE_LAB_STATE_DIR", "REMOTE_LAB_IMAGE_DIR"}
    without = {name for name, default in fields.items() if default is None} | by_machine
    assert {name for name, value in examples.items() if not value} == without


def test_the_operators_command_has_the_settings_of_the_service(tmp_path: Path) -> None:
    """Those of the environment file, unless the environment says otherwise, and the state folder of the unit."""
    installed = tmp_path / "opt"
    installed.mkdir()
    for name, code in (
        ("remote-lab", '#!/bin/sh\necho $STATE_DIRECTORY $REMOTE_LAB_SLOTS $REMOTE_LAB_THREADS "$@"\n'),
        ("dotenv", f'#!/bin/sh\nexec {sys.executable} -m dotenv "$@"\n'),
    ):
        (installed / name).write_text(code)
        (installed / name).chmod(0o755)
    script = tmp_path / "remote-lab"
    settings = tmp_path / "env"
    text = (DEPLOY / "remote-lab").read_text()
    script.write_text(text.replace("/opt/remote-lab/bin", str(installed)).replace("/etc/remote-lab/env", str(settings)))

    def type_command() -> str:
        environment = {"PATH": "/usr/bin:/bin", "REMOTE_LAB_THREADS": "9"}
        return subprocess.check_output(
            ["sh", script, "db", "backup", "a b"], env=environment, text=True, timeout=CALL_SECONDS
        )

    assert type_command() == "/var/lib/remote-lab 9 db backup a b\n"
    settings.write_text("# slots\nREMOTE_LAB_SLOTS=3\nREMOTE_LAB_THREADS=5\n")
    assert type_command() == "/var/lib/remote-lab 3 9 db backup a b\n"
