"""The project as its users get it: built, installed elsewhere, started by systemd, behind nginx."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import CALL_SECONDS, ROOT
from installed import BUILD_SECONDS, Dist, Venv, tracked_files


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Dist:
    """Built once for all tests."""
    tree = tmp_path_factory.mktemp("build") / "tree"
    for name in tracked_files():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    before = {path for path in tree.rglob("*") if path.is_file()}
    output = tree.parent / "dist"
    result = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", output, tree],
        cwd=tree.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    for path in tree.rglob("*"):
        if path.is_file() and path not in before:
            path.unlink()
    (wheel,), (source,) = output.glob("*.whl"), output.glob("*.tar.gz")
    return Dist(tree, wheel, source)


@pytest.fixture
def notifications() -> Iterator[socket.socket]:
    """Where systemd would hear of a service; in a folder of its own, as a socket's path is limited to 107 bytes."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"{folder}/notify")
        receiver.settimeout(CALL_SECONDS)
        yield receiver


def _install(folder: Path, *packages: str) -> Venv:
    venv = Venv(folder / "venv", folder / "empty")
    venv.cwd.mkdir()
    subprocess.run([sys.executable, "-m", "venv", venv.folder], check=True, timeout=BUILD_SECONDS)
    # pip itself needs what the environment says about where packages come from.
    pip = [venv.command("python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    subprocess.run(pip, cwd=venv.cwd, check=True, timeout=BUILD_SECONDS)
    return venv


@pytest.fixture(scope="session")
def server_venv(dist: Dist, tmp_path_factory: pytest.TempPathFactory) -> Venv:
    """The wheel with its extra `server`, and nothing else."""
    return _install(tmp_path_factory.mktemp("server"), f"{dist.wheel}[server]")


@pytest.fixture(scope="session")
def client_venv(dist: Dist, tmp_path_factory: pytest.TempPathFactory) -> Venv:
    """The wheel without extras, and pytest, as in a project that uses labs."""
    return _install(tmp_path_factory.mktemp("client"), str(dist.wheel), "pytest")
