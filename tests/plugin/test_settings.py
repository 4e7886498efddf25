"""The settings of a run: options, variables, `.env`, what wins, and what is said about values that cannot be used."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from remote_lab.testing import failures, plugin
from remote_lab.testing.fixture import remote_lab_fixture
from remote_lab.testing.settings import Settings, settings_of

pytest_plugins = ["pytester"]

OPTIONS: dict[str, tuple[str, str, Any]] = {
    "url": ("url", "http://lab:8000", "http://lab:8000"),
    "token": ("token", "secret", "secret"),
    "request-timeout": ("request_timeout", "2.5", 2.5),
    "session-timeout": ("session_timeout", "30", 30.0),
    "acquisition-timeout": ("acquisition_timeout", "40", 40.0),
    "heartbeat": ("heartbeat_seconds", "0.5", 0.5),
    "purpose": ("purpose", "nightly run", "nightly run"),
    "ci-job": ("ci_job", "4711", "4711"),
    "session-id": ("session_id", "s-1", "s-1"),
    "join": ("join", "yes", True),
    "required": ("required", "yes", True),
    "artifacts": ("artifacts", "saved", Path("saved")),
    "hold": ("hold_seconds", "15m", 900.0),
}
"""Of each option: the attribute, a text, and what it means."""


def settings(pytester: pytest.Pytester, *arguments: str) -> Settings:
    """What a run with these arguments would go by."""
    return settings_of(pytester.parseconfigure(*arguments))


def expected(pytester: pytest.Pytester, value: Any) -> Any:
    return pytester.path / value if isinstance(value, Path) else value


def test_names_scopes_and_signatures() -> None:
    """What a conftest relies on."""
    assert str(inspect.signature(remote_lab_fixture)) == (
        "(topology: 'str | Path', *, name: 'str | None' = None, reuse_lab: 'bool' = False) -> 'Callable[..., Any]'"
    )
    entries = entry_points(group="pytest11", name="remote-lab")
    assert [entry.value for entry in entries] == ["remote_lab.testing.plugin"]


def test_fixtures_as_pytest_shows_them(pytester: pytest.Pytester) -> None:
    """The client is of the session, a lab of the test; both say what they are."""
    pytester.makefile(".yml", ring="nodes: [r1]")
    pytester.makeconftest(
        "from remote_lab.testing.fixture import remote_lab_fixture\nring = remote_lab_fixture('ring.yml')"
    )
    result = pytester.runpytest_inprocess("--fixtures")
    result.stdout.fnmatch_lines(
        [
            "remote_lab_client [[]session scope[]]*",
            "    The run's session*",
            "ring -- *",
            "    Devices of the lab ring.yml.",
        ]
    )


def test_every_setting_has_an_option(pytester: pytest.Pytester) -> None:
    """Each is in the help with its variable, in a group of their own."""
    help_text = pytester.runpytest_inprocess("--help").stdout.str()
    shown = help_text[help_text.index("remote lab (") :]
    for name in OPTIONS:
        assert f"  --remote-lab-{name}" in shown
        assert f"[REMOTE_LAB_{name.upper().replace('-', '_')}]" in "".join(shown.split()).replace("]", "] ")
    assert set(Settings._fields) == {attribute for attribute, _, _ in OPTIONS.values()} | {
        "environment",
        "first_topology",
    }


@pytest.mark.parametrize("name", OPTIONS)
def test_option(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An option beats the environment, the environment beats `.env`."""
    attribute, text, value = OPTIONS[name]
    variable = f"REMOTE_LAB_{name.upper().replace('-', '_')}"
    monkeypatch.setenv("REMOTE_LAB_URL", "http://lab:8000")
    unset = getattr(settings(pytester), attribute)

    (pytester.path / ".env").write_text(f"{variable}={text}\n")
    monkeypatch.delenv(variable, raising=False)
    if name == "session-id":
        monkeypatch.setenv("REMOTE_LAB_URL", "http://lab:8000")
    assert getattr(settings(pytester), attribute) == expected(pytester, value) != (None if name == "url" else unset)

    other = {"required": "no", "join": "no", "url": "http://env:1", "hold": "2h"}.get(name, "7")
    monkeypatch.setenv(variable, other)
    from_environment = getattr(settings(pytester), attribute)
    assert from_environment != expected(pytester, value)

    argument = f"--remote-lab-{name}" if name == "required" else f"--remote-lab-{name}={text}"
    assert getattr(settings(pytester, argument), attribute) == expected(pytester, value)


def test_nothing_is_set(pytester: pytest.Pytester) -> None:
    """Without a word, but for these tests' REMOTE_LAB_JOIN=0, the client's own defaults count, and labs run here."""
    found = settings(pytester)
    assert found == Settings(
        url=None,
        token=None,
        request_timeout=None,
        session_timeout=None,
        acquisition_timeout=None,
        heartbeat_seconds=60.0,
        purpose=None,
        ci_job=None,
        session_id=None,
        join=False,
        required=False,
        artifacts=None,
        hold_seconds=0.0,
        environment=dict(os.environ),
    )
    assert found.shown_url == "local"


def test_an_empty_option_unsets(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--remote-lab-url=` asks for local mode although the environment names a server; so does an empty variable."""
    (pytester.path / ".env").write_text("REMOTE_LAB_URL=http://file:1\n")
    monkeypatch.setenv("REMOTE_LAB_URL", "http://lab:8000")
    assert settings(pytester, "--remote-lab-url=").url is None
    monkeypatch.setenv("REMOTE_LAB_URL", " ")
    assert settings(pytester).url is None


def test_dotenv_stays_out_of_the_environment(pytester: pytest.Pytester) -> None:
    """Of `.env` only our variables are read, for this run alone; those of a server go to one that is started for it."""
    (pytester.path / ".env").write_text("REMOTE_LAB_PURPOSE=nightly\nREMOTE_LAB_SLOTS=2\nOTHER=1\n")
    before = dict(os.environ)
    found = settings(pytester)
    assert found.purpose == "nightly"
    assert found.environment == {**before, "REMOTE_LAB_PURPOSE": "nightly", "REMOTE_LAB_SLOTS": "2"}
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("url", "lab:8000", "='lab:8000' cannot be used: expected the address of a server, like http://lab-host:8000."),
        ("url", "ftp://me:secret@lab", "='ftp://lab' cannot be used: expected the address of a server"),
        ("request-timeout", "soon", "='soon' cannot be used: expected a number of seconds above 0."),
        ("session-timeout", "0", "='0' cannot be used: expected a number of seconds above 0."),
        ("acquisition-timeout", "-1", "='-1' cannot be used: expected a number of seconds above 0."),
        ("heartbeat", "inf", "='inf' cannot be used: expected a number of seconds above 0."),
        ("hold", "15 minutes", "='15 minutes' cannot be used: expected a time like 90s, 15m, 4h or 1d."),
        ("artifacts", "a-file", "='a-file' cannot be used: expected a folder, and this is a file."),
        ("purpose", "p" * 201, " cannot be used: expected at most 200 printable characters."),
        ("ci-job", "a\tb", "='a\\\\tb' cannot be used: expected at most 200 printable characters."),
        ("token", "se cret", " cannot be used: expected printable ASCII without spaces (its value is not shown)."),
        ("session-id", "s-1", "no server that has the session: set REMOTE_LAB_URL or --remote-lab-url as well."),
    ],
)
def test_a_value_that_cannot_be_used(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str, text: str, complaint: str
) -> None:
    """The run does not start; where the value came from, the value and what is expected are said, secrets are not."""
    (pytester.path / "a-file").touch()
    variable = f"REMOTE_LAB_{name.upper().replace('-', '_')}"
    complaint = complaint.replace("\\\\", "\\")

    def complaint_of(*arguments: str) -> str:
        result = pytester.runpytest_inprocess(*arguments)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        said = result.stdout.str() + result.stderr.str()
        assert "secret" not in said
        assert "se cret" not in said
        return said

    by_option = complaint_of(f"--remote-lab-{name}={text}")
    assert f"--remote-lab-{name}" in by_option
    assert complaint in by_option
    monkeypatch.setenv(variable, text)
    by_variable = complaint_of()
    assert variable in by_variable
    assert complaint in by_variable


def test_a_bad_line_of_dotenv_is_named(pytester: pytest.Pytester) -> None:
    """What is wrong in `.env` says so with the file's path."""
    (pytester.path / ".env").write_text("REMOTE_LAB_REQUIRED=perhaps\n")
    with pytest.raises(pytest.UsageError) as raised:
        settings(pytester)
    path = pytester.path / ".env"
    assert str(raised.value) == f"REMOTE_LAB_REQUIRED='perhaps' in {path} cannot be used: expected yes or no."


def test_two_kinds_of_credentials(pytester: pytest.Pytester) -> None:
    """A token beside a user in the URL is refused, and neither is shown."""
    with pytest.raises(pytest.UsageError, match="both a token and a user in the URL of http://lab") as raised:
        settings(pytester, "--remote-lab-url=http://me:secret@lab", "--remote-lab-token=hidden")
    assert "secret" not in str(raised.value)
    assert "hidden" not in str(raised.value)


def test_secrets_stay_out_of_sight(pytester: pytest.Pytester) -> None:
    """Neither the header nor a traceback with local variables shows user, password or token."""
    pytester.makepyfile("def test_plain(): pass")
    found = settings(pytester, "--remote-lab-url=http://me:hunter2@lab:8000/labs")
    assert found.shown_url == "http://lab:8000/labs"
    assert repr(found) == "<Settings of http://lab:8000/labs>"
    result = pytester.runpytest_inprocess("--remote-lab-url=http://me:hunter2@lab:8000")
    result.stdout.fnmatch_lines(["remote lab: http://lab:8000"])
    assert "hunter2" not in result.stdout.str()


FOREIGN = "('requests', 'urllib3', 'flask', 'sqlalchemy', 'marshmallow', 'dotenv', 'click', 'remote_lab.client')"


@pytest.mark.parametrize(("content", "imported"), [(None, []), ("OTHER=1\n", []), ("REMOTE_LAB_HOLD=1\n", ["dotenv"])])
def test_a_suite_without_labs_pays_nothing(pytester: pytest.Pytester, content: str | None, imported: list[str]) -> None:
    """An empty suite imports nothing for labs; python-dotenv only where there is something for it to read."""
    if content is not None:
        (pytester.path / ".env").write_text(content)
    code = (
        "import sys, pytest; pytest.main(['--collect-only', '-q', '-p', 'remote_lab.testing.plugin']); "
        f"print([m for m in {FOREIGN} if m in sys.modules])"
    )
    # Plugins of others that are installed here import what they like.
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=alone, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == str(imported)


def test_the_plugin_adds_its_own_modules_only() -> None:
    """Beside a handful of its own modules it imports none that pytest has not imported already."""
    code = (
        "import sys, pytest, _pytest.config; _pytest.config.get_config(); before = set(sys.modules); "
        "import remote_lab.testing.plugin; print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    own = ["", ".testing", ".testing.collection", ".testing.fixture", ".testing.hooks", ".testing.plugin"]
    own.append(".testing.settings")
    assert done.stdout.split() == [f"remote_lab{name}" for name in own]


def test_a_pytest_that_is_too_old(pytester: pytest.Pytester) -> None:
    """Before pytest 7.0 the plugin says so in tests that need a lab, and leaves the others alone."""
    pytester.makefile(".yml", ring="nodes: [r1]")
    pytester.makeconftest(
        "from remote_lab.testing.fixture import remote_lab_fixture\nring = remote_lab_fixture('ring.yml')"
    )
    pytester.makepyfile("def test_plain(): pass\ndef test_lab(ring): pass")
    # What pytest calls stash since 7.0 had another name before.
    code = "import sys, pytest; del pytest.StashKey; sys.exit(pytest.main(['-p', 'remote_lab.testing.plugin']))"
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert "1 passed, 1 error" in done.stdout
    assert f"Tests with labs need pytest 7.0 or later, this is pytest {pytest.__version__}." in done.stdout


@pytest.mark.parametrize("module", [plugin, failures], ids=["plugin", "failures"])
def test_hooks_for_every_pluggy(module: ModuleType) -> None:
    """No hook is of the kind that pluggy has from 1.2 on: pytest 7 runs with those before, and could not start."""
    hooks = {
        name: vars(hook).get("pytest_impl", {}) for name, hook in vars(module).items() if name.startswith("pytest_")
    }
    assert len(hooks) == {plugin: 9, failures: 1}[module]
    assert [name for name, options in hooks.items() if options.get("wrapper")] == []
