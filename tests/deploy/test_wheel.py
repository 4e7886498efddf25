"""The wheel serves and the source archive is whole, away from the checkout."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT, running, ssh
from installed import Dist, InstalledServer, Venv

from remote_lab.netlab.image import recipe_name

pytestmark = pytest.mark.timeout(600)

TESTS_OF_A_USER = """
from pathlib import Path
from remote_lab.testing.fixture import remote_lab_fixture

pair = remote_lab_fixture(Path({topology!r}), reuse_lab=True)

def test_first(pair):
    assert [device.name for device in pair] == ["r1", "r2"]

def test_second(pair):
    assert pair[0].raw["ansible_host"]
"""


@pytest.fixture
def installed(server_venv: Venv, tmp_path: Path) -> Iterator[InstalledServer]:
    server = InstalledServer(server_venv, tmp_path / "state")
    with running(server):
        yield server


def test_the_wheel_has_all_of_the_package_and_nothing_else(dist: Dist) -> None:
    """Each file of the package and of the migrations, and no tests."""
    expected = {
        (f"remote_lab/{name}" if name.startswith("migrations/") else name)
        for name in (str(path.relative_to(dist.tree)) for path in dist.tree.rglob("*") if path.is_file())
        if name.startswith(("remote_lab/", "migrations/"))
    }
    with zipfile.ZipFile(dist.wheel) as wheel:
        assert {name for name in wheel.namelist() if ".dist-info/" not in name} == expected


def test_the_source_archive_has_all_that_a_clone_has(dist: Dist) -> None:
    """But what only repositories need: their continuous integration and the settings of editors and hooks."""
    expected = {
        name
        for name in (str(path.relative_to(dist.tree)) for path in dist.tree.rglob("*") if path.is_file())
        if not name.startswith(".")
    }
    with tarfile.open(dist.source) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    generated = {"PKG-INFO"} | {name for name in names if name.startswith("remote_lab.egg-info/")}
    assert names - generated == expected


@pytest.mark.lab
def test_an_installed_server_runs_labs_for_an_installed_client(
    installed: InstalledServer, client_venv: Venv, tmp_path: Path
) -> None:
    """Outside the checkout: migrations, provider, image recipe; on the other side the pytest plugin and requests."""
    where = installed.venv.run("python", "-c", "import remote_lab; print(remote_lab.__file__)").stdout
    assert where.startswith(str(installed.venv.folder))
    code = "from remote_lab.netlab.image import recipe_name; print(recipe_name())"
    assert installed.venv.run("python", "-c", code).stdout.strip() == recipe_name()

    topology = ROOT / "examples" / "ospf-pair.yml"
    tests = tmp_path / "test_of_a_user.py"
    tests.write_text(TESTS_OF_A_USER.format(topology=str(topology)))
    arguments = ("-p", "no:cacheprovider", tests)
    result = client_venv.run("pytest", *arguments, check=False, REMOTE_LAB_URL=installed.url)
    assert "2 passed" in result.stdout, result.stdout + installed.log.read_text()


@pytest.mark.lab
def test_an_installed_server_hands_over_devices_that_answer(installed: InstalledServer) -> None:
    """By ssh, from the host, as in the README."""
    session_id = installed.open_session()
    installed.wait_active(session_id)
    answer = installed.acquire(session_id, ROOT / "examples" / "ospf-pair.yml")
    assert answer.status_code == 200, answer.text
    assert ssh(answer.json()["devices"][0]["raw"]["ansible_host"], "hostname") == "r1\n"


def test_without_the_extra_the_command_says_what_to_install(client_venv: Venv) -> None:
    """One line, exit status 1."""
    result = client_venv.run("remote-lab", "serve", check=False)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "pip install 'remote-lab[server]'" in result.stderr


def test_without_the_extra_it_is_requests_click_and_dotenv(client_venv: Venv) -> None:
    """Client, plugin and the commands for jobs work, and nothing of the server was installed along with them."""
    client_venv.run("python", "-c", "import remote_lab.client, remote_lab.testing.plugin, remote_lab.testing.fixture")
    assert "REMOTE_LAB_URL" in client_venv.run("remote-lab", "release", "--ci-job", "mine", check=False).stderr
    (client_venv.cwd / "demo.yml").touch()
    run = client_venv.run("remote-lab", "run", "demo.yml", "--", "true", check=False)
    assert (run.returncode, "remote-lab[server]" in run.stderr) == (1, True)
    packages = client_venv.run("python", "-m", "pip", "list", "--format=freeze").stdout.lower()
    names = {line.partition("==")[0] for line in packages.splitlines()}
    of_requests = {"requests", "urllib3", "idna", "certifi", "charset-normalizer"}
    of_pytest = {"pytest", "pluggy", "iniconfig", "packaging", "pygments"}
    assert names - of_requests - of_pytest - {"pip", "setuptools"} == {"remote-lab", "click", "python-dotenv"}
    assert of_requests < names


def test_every_package_that_the_code_imports_is_declared(server_venv: Venv) -> None:
    """pip finds nothing missing or in conflict, and every module can be imported from an empty folder."""
    server_venv.run("python", "-m", "pip", "check")
    code = (
        "import importlib, pkgutil, remote_lab\n"
        "elsewhere = ('remote_lab.netlab.netns.', 'remote_lab.testing',"
        " 'remote_lab.__main__', 'remote_lab.migrations.')\n"
        "for found in pkgutil.walk_packages(remote_lab.__path__, 'remote_lab.', onerror=lambda name: None):\n"
        "    if not found.name.startswith(elsewhere):\n"
        "        importlib.import_module(found.name); print(found.name)\n"
    )
    assert "remote_lab.server" in server_venv.run("python", "-W", "error", "-c", code).stdout.splitlines()
    assert os.listdir(server_venv.cwd) == []
