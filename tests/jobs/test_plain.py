"""The commands of an install without the server part."""

from __future__ import annotations

import subprocess
import sys

import pytest
from harness import CALL_SECONDS

from remote_lab.cli import commands
from remote_lab.client.inventory import KINDS
from remote_lab.jobs import run
from remote_lab.jobs.handover import VARIABLES
from remote_lab.jobs.plain import OPERATORS_COMMANDS, SERVER_PACKAGES
from remote_lab.local import doctor

PLAIN = "import sys; sys.modules.update(dict.fromkeys({})); from remote_lab.__main__ import main; main()".format(
    [*SERVER_PACKAGES, "werkzeug"]
)


def type_plain(*words: str) -> subprocess.CompletedProcess[str]:
    """Type `remote-lab` where the server's packages are missing."""
    command = [sys.executable, "-c", PLAIN, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=CALL_SECONDS, check=False)


def test_help_shows_what_is_there_and_how_to_get_the_rest() -> None:
    """`run`, `release`, and one line about the server part."""
    done = type_plain("--help")
    listed = done.stdout.split("Commands:")[1].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed if line.strip()] == ["run", "release"]
    assert "pip install 'remote-lab[server]'" in done.stdout
    assert type_plain("--version").stdout.startswith("remote-lab, version ")


@pytest.mark.parametrize("word", [*OPERATORS_COMMANDS, "--port"])
def test_an_operators_command_says_what_it_needs(word: str) -> None:
    """One line, exit status 1."""
    done = type_plain(word)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "pip install 'remote-lab[server]'" in done.stderr


def test_a_misspelt_command_is_wrong_usage() -> None:
    """No server part would help."""
    done = type_plain("rnu")
    assert done.returncode == 2
    assert "server]" not in done.stderr


def test_lists_that_are_kept_twice_agree() -> None:
    """What cannot be imported without its packages, or not without paying for `requests`."""
    assert set(OPERATORS_COMMANDS) == set(commands.commands) - {"run", "release"}
    assert SERVER_PACKAGES == doctor.SERVER_PACKAGES
    assert set(run.KINDS) == set(VARIABLES) == set(KINDS)


def test_other_commands_do_not_pay_for_the_client() -> None:
    """`remote-lab --version` imports no `requests`."""
    code = "import sys, runpy; sys.argv[1:] = ['--version']\ntry: runpy.run_module('remote_lab', run_name='__main__')\n"
    code += "except SystemExit: print('requests' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=CALL_SECONDS, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
