"""What the controller of an xdist run and its workers tell each other, and what the controller does for all of them."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from remote_lab.testing import shared, sigterm
from remote_lab.testing.collection import is_lab_test
from remote_lab.testing.scheduling import LabScheduling, Plan
from remote_lab.testing.settings import settings_of


def tell_controller(session: pytest.Session) -> None:
    """In a worker that has collected lab tests: write down which they are, before the controller sends tests out."""
    config = session.config
    about = shared.workerinput(config)
    run_dir = Path(about["remote_lab_run_dir"])
    if not run_dir.parent.is_dir():
        return  # on another machine, where lab tests fail and say so
    groups = {}
    if about["remote_lab_mode"] == "loadgroup":
        groups = {place: name for place, item in enumerate(session.items) if (name := _group(item))}
    labs = {place for place, item in enumerate(session.items) if is_lab_test(item)}
    # A group with a lab test in it keeps its promise as well: all of it goes where the labs are.
    groups_with_labs = {groups[place] for place in labs if place in groups}
    labs |= {place for place, name in groups.items() if name in groups_with_labs}
    shared.make_folder(run_dir)
    shared.write(run_dir, shared.TESTS, {"lab_tests": sorted(labs), "groups": list(groups.items())})


def workers_of(config: pytest.Config) -> Workers:
    """Return what the controller keeps for its workers."""
    if _KEY not in config.stash:
        config.stash[_KEY] = Workers(config)
        config.add_cleanup(config.stash[_KEY].close)
    return config.stash[_KEY]


class Workers:
    """The workers of a run, as the controller sees them."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._settings = settings_of(config)
        self._mode: str = config.getoption("dist")
        # The folder is made when there is a lab test. What a killed run leaves is removed by a later run of pytest.
        factory = getattr(config, "_tmp_path_factory", None)
        parent = Path(tempfile.gettempdir()) if factory is None else factory.getbasetemp()
        self._run_dir: Path = parent / f"remote-lab-{secrets.token_hex(8)}"
        self._standing_is_told = False

    def welcome(self, node: Any) -> None:
        """Tell a worker, before it starts, of whose run it is, where its folder would be and how tests are sent out."""
        node.workerinput["remote_lab_run_dir"] = str(self._run_dir)
        node.workerinput["remote_lab_run_pid"] = os.getpid()
        node.workerinput["remote_lab_mode"] = self._mode

    def scheduler(self, plain: Any) -> Any:
        """Return what sends tests to workers; with `--dist each` every worker gets all of them, lab tests too."""
        return plain if plain is None or self._mode == "each" else LabScheduling(plain, self._mode, self._plan)

    def tell_standing(self) -> None:
        """When the first worker has found lab tests: say how busy the server is."""
        if self._standing_is_told or self._plan() is None:
            return
        self._standing_is_told = True
        self._config.add_cleanup(sigterm.heed())
        from remote_lab.testing.header import standing

        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(standing(self._settings))

    def close(self) -> None:
        """End what is left of the run, when its workers are gone."""
        if not self._run_dir.is_dir():
            return
        from remote_lab import local

        place = shared.place_of_session(self._run_dir)
        noted = local.noted_session(place)
        if noted is not None:
            from remote_lab.testing.run import end_session

            end_session(self._settings, *noted)
        if not self._settings.url:
            local.stop(place, self._settings.environment)
        shutil.rmtree(self._run_dir, ignore_errors=True)

    def _plan(self) -> Plan | None:
        tests = shared.read(self._run_dir, shared.TESTS)
        return None if tests is None else Plan(frozenset(tests["lab_tests"]), dict(tests["groups"]))


_KEY = pytest.StashKey[Workers]()


def _group(item: pytest.Item) -> str:
    """Return the name that xdist gives to the groups of a test, "" when it has none."""
    names = {
        str(mark.args[0] if mark.args else mark.kwargs.get("name", "default"))
        for mark in item.iter_markers("xdist_group")
    }
    return "_".join(sorted(names))
