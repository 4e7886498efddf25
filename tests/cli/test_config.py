"""`remote-lab config`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from harness import Server

from remote_lab.config import Config

from .conftest import Operator


@pytest.fixture
def operator(make_server: Callable[..., Server], tmp_path: Path) -> Operator:
    """An operator without a server."""
    return Operator(make_server(), tmp_path)


def test_each_setting_says_where_its_value_comes_from(operator: Operator) -> None:
    """The environment, .env or the default, in this order."""
    (operator.folder / ".env").write_text("REMOTE_LAB_SLOTS=3\nREMOTE_LAB_PROVIDER=libvirt\nREMOTE_LAB_MAX_WAITING=\n")
    found = {one["variable"]: one for one in operator.data("config")}
    assert sorted(found) == sorted(f"REMOTE_LAB_{item.name.upper()}" for item in fields(Config))
    shown = {name: (one["text"], one["source"]) for name, one in found.items()}
    assert shown["REMOTE_LAB_SLOTS"] == ("3", ".env")
    assert shown["REMOTE_LAB_PROVIDER"] == ("clab", "environment")
    assert shown["REMOTE_LAB_MAX_WAITING"] == ("10000", "default")
    assert shown["REMOTE_LAB_DATABASE_URL"] == (None, "default")
    row = next(row for row in operator.rows("config") if row[0] == "REMOTE_LAB_SLOTS")
    assert row == ["REMOTE_LAB_SLOTS", "3", ".env", "labs", "at", "the", "same", "time"]


def test_what_it_says_is_what_the_server_uses(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable of the environment hides what .env says, in both."""
    (operator.folder / ".env").write_text("REMOTE_LAB_SLOTS=3\nREMOTE_LAB_IDLE_SECONDS=0.5\n")
    done = operator.run("config", "--json", REMOTE_LAB_SLOTS="")
    assert '"text": "1"' in done.stdout
    assert '"text": "0.5"' in done.stdout
    monkeypatch.chdir(operator.folder)
    monkeypatch.setenv("REMOTE_LAB_SLOTS", "")
    config = Config.from_environment()
    assert (config.slots, config.idle_seconds) == (1, 0.5)


def test_every_value_that_cannot_be_used_is_shown_with_the_reason(operator: Operator) -> None:
    """All of them at once, exit status 1; the good ones as well."""
    done = operator.run("config", status=1, REMOTE_LAB_SLOTS="many", REMOTE_LAB_IDLE_SECONDS="-3")
    assert "REMOTE_LAB_SLOTS='many' (environment) cannot be used: expected a whole number from 1 to 64" in done.stderr
    assert "REMOTE_LAB_IDLE_SECONDS='-3' (environment) cannot be used: expected seconds, 0 or more" in done.stderr
    assert "REMOTE_LAB_THREADS" in done.stdout


def test_a_typing_error_in_a_name_is_said(operator: Operator) -> None:
    """It would do nothing, silently; what the client reads is none."""
    complaint = operator.complains("config", status=0, REMOTE_LAB_SLOT="2", REMOTE_LAB_URL="http://lab:8000")
    assert complaint == "Warning: REMOTE_LAB_SLOT is no setting and does nothing. Is REMOTE_LAB_SLOTS meant?\n"


def test_a_password_in_an_address_is_not_shown(operator: Operator) -> None:
    """The output ends up in tickets."""
    done = operator.run("config", REMOTE_LAB_IMAGE_MIRROR="http://somebody:secret@mirror.example/debian")
    assert "http://***@mirror.example/debian" in done.stdout
    assert "secret" not in done.stdout + done.stderr
