"""Settings from the environment."""

from __future__ import annotations

import re
from dataclasses import fields
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from remote_lab.config import Config
from remote_lab.errors import SettingInvalid


def test_without_variables_the_defaults_hold() -> None:
    """The defaults are those of the contract."""
    config = Config.from_environment({})
    assert (config.slots, config.provider, config.waiting_seconds, config.active_seconds) == (1, "auto", 600, 300)
    assert config.max_upload_bytes == 10485760
    assert config.database == f"sqlite:///{config.state_dir}/remote-lab.sqlite3"


def test_variables_become_values() -> None:
    """Numbers, fractions of seconds, folders and networks."""
    config = Config.from_environment(
        {
            "REMOTE_LAB_SLOTS": " 3 ",
            "REMOTE_LAB_REAPER_SECONDS": "0.25",
            "REMOTE_LAB_STATE_DIR": "/somewhere",
            "REMOTE_LAB_MANAGEMENT_POOL": "198.19.0.0/20",
            "REMOTE_LAB_IMAGE": "",
        }
    )
    assert (config.slots, config.reaper_seconds, config.state_dir) == (3, 0.25, Path("/somewhere"))
    assert config.management_pool == IPv4Network("198.19.0.0/20")
    assert config.image is None


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("REMOTE_LAB_SLOTS", "0", "a whole number from 1 to 64"),
        ("REMOTE_LAB_SLOTS", "two", "a whole number from 1 to 64"),
        ("REMOTE_LAB_BOOT_SECONDS", "-1", "seconds, 0.1 or more"),
        ("REMOTE_LAB_IDLE_SECONDS", "nan", "seconds, 0 or more"),
        ("REMOTE_LAB_IDLE_SECONDS", "inf", "seconds, 0 or more"),
        ("REMOTE_LAB_MANAGEMENT_POOL", "8.8.8.0/24", "a private IPv4 network of /24 or larger"),
        ("REMOTE_LAB_MANAGEMENT_POOL", "10.0.0.0/28", "a private IPv4 network of /24 or larger"),
    ],
)
def test_a_value_that_cannot_be_used_stops_the_start(variable: str, value: str, expected: str) -> None:
    """The sentence has the name, the value and what is expected."""
    with pytest.raises(SettingInvalid) as refusal:
        Config.from_environment({variable: value})
    assert f"{variable}='{value}' cannot be used: expected {expected}" in str(refusal.value)


def test_a_dotenv_file_fills_in_what_the_environment_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment wins."""
    (tmp_path / ".env").write_text("REMOTE_LAB_SLOTS=2\nREMOTE_LAB_THREADS=9\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REMOTE_LAB_SLOTS", "5")
    config = Config.from_environment()
    assert (config.slots, config.threads) == (5, 9)


@pytest.mark.parametrize(
    ("from_systemd", "expected"),
    [("/var/lib/remote-lab", "/var/lib/remote-lab"), ("/var/lib/a:/var/lib/b", "/var/lib/a"), ("", None)],
)
def test_under_systemd_the_state_lies_where_the_unit_says(
    monkeypatch: pytest.MonkeyPatch, from_systemd: str, expected: str | None
) -> None:
    """Unless REMOTE_LAB_STATE_DIR says otherwise; without systemd it is the user's own."""
    monkeypatch.setenv("STATE_DIRECTORY", from_systemd)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Config.from_environment({}).state_dir == Path(expected or "/home/somebody/.local/state/remote-lab")
    assert Config.from_environment({"REMOTE_LAB_STATE_DIR": "/own"}).state_dir == Path("/own")


def test_the_documentation_has_every_setting_with_its_default() -> None:
    """And nothing that is none."""
    text = (Path(__file__).parents[2] / "docs" / "operations.rst").read_text()
    documented = dict(re.findall(r"^``(REMOTE_LAB_\w+)``\s{2,}(.+?)(?:\s{2,}|$)", text, re.MULTILINE))
    assert sorted(documented) == sorted(f"REMOTE_LAB_{item.name.upper()}" for item in fields(Config))
    for item in fields(Config):
        if isinstance(item.default, int | float):
            assert float(documented[f"REMOTE_LAB_{item.name.upper()}"].strip("`")) == item.default
