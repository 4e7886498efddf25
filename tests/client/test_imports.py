"""What client and plugin may import, and when."""

from __future__ import annotations

import subprocess
import sys

import pytest

SERVER_ONLY = ["flask", "flask_smorest", "sqlalchemy", "marshmallow", "alembic", "gunicorn", "werkzeug", "yaml"]
BLOCK = f"import sys; sys.modules.update(dict.fromkeys({SERVER_ONLY})); "


def run_python(code: str) -> str:
    """What a fresh Python prints that runs the code."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_client_and_plugin_need_nothing_of_the_server() -> None:
    """Both can be imported and a lab fixture made where the server's packages can't be imported."""
    code = "import remote_lab.client, remote_lab.testing.plugin, remote_lab.testing.fixture; print('imported')"
    assert run_python(BLOCK + code) == "imported\n"


def test_blocked_packages_are_blocked() -> None:
    """The test above can fail: what it blocks can't be imported."""
    with pytest.raises(subprocess.CalledProcessError):
        run_python(BLOCK + "import flask")


@pytest.mark.parametrize("module", ["plugin", "fixture"])
def test_plugin_imports_no_requests(module: str) -> None:
    """Neither the plugin nor the module that conftest files import costs anybody the import of requests."""
    code = f"import sys, remote_lab.testing.{module}; print([m for m in ('requests', 'urllib3') if m in sys.modules])"
    assert run_python(code) == "[]\n"


def test_plugin_adds_nothing_to_pytest() -> None:
    """Beside its own modules the plugin imports none that pytest has not imported already."""
    code = (
        "import sys, pytest, _pytest.config; _pytest.config.get_config(); before = set(sys.modules); "
        "import remote_lab.testing.plugin; "
        "print(sorted(m for m in set(sys.modules) - before if not m.startswith('remote_lab')))"
    )
    assert run_python(code) == "[]\n"
