"""Lab fixtures for a conftest.py, and the session-scoped client behind them.

A conftest imports this module in every run, so `requests`, the client and what a run does with them (`run.py`) are
imported by the first fixture that needs them, not here. What pytest does with the fixtures (order, one lab per test)
is the plugin's matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from remote_lab.client import DeviceInfoDto, RemoteLabClient

_MARK = "_remote_lab_topology"
"""Attribute by which a lab fixture's function is known; its value is the topology's path, and whether to share it."""


@pytest.fixture(scope="session")
def remote_lab_client(request: pytest.FixtureRequest) -> Iterator[RemoteLabClient]:
    """The run's session: on the server at REMOTE_LAB_URL, without one on this machine. Opened by the first lab test."""
    from remote_lab.testing.collection import first_topology
    from remote_lab.testing.run import client_of_the_run

    with client_of_the_run(request.config, first_topology(request.session.items)) as client:
        yield client


def remote_lab_fixture(topology: str | Path, *, name: str | None = None, reuse_lab: bool = False) -> Callable[..., Any]:
    """Return a function-scoped fixture that acquires a lab for a test and yields its devices, `list[DeviceInfoDto]`.

    Tests ask for it by the name of the variable it is assigned to. `topology` is the file's path, relative to the
    current directory. `name` is what `pytest --fixtures` shows of the function, by default the file's stem.
    `reuse_lab=True` shares a lab that runs already; otherwise each test gets a freshly booted one.

    Raises FileNotFoundError, at collection, when there is no such file.
    """
    path = Path.cwd() / Path(topology).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"remote_lab_fixture: no topology file {str(topology)!r} ({path}). A relative path is taken from the "
            "directory that pytest is started in; Path(__file__).parent / ... leads there from everywhere."
        )

    def lab_devices(
        request: pytest.FixtureRequest, remote_lab_client: RemoteLabClient
    ) -> Iterator[list[DeviceInfoDto]]:
        from remote_lab.testing.run import lab_for_test

        try:
            with lab_for_test(request, remote_lab_client, path, reuse_lab) as devices:
                yield devices
        except OSError as error:  # those of the client are
            # They say what is wrong. The way there, through client and urllib3, is pages that help nobody.
            raise error.with_traceback(None) from None

    lab_devices.__name__ = name or path.stem
    lab_devices.__doc__ = f"Devices of the lab {path.name}."
    setattr(lab_devices, _MARK, (path, reuse_lab))
    return pytest.fixture(lab_devices)


def is_lab_fixture(function: Callable[..., Any]) -> bool:
    """Tell whether a fixture's function was made by `remote_lab_fixture`."""
    return hasattr(function, _MARK)


def topology_of(function: Callable[..., Any]) -> Path:
    """Return the path of a lab fixture's topology."""
    path: Path = getattr(function, _MARK)[0]
    return path


def lab_of(function: Callable[..., Any]) -> object:
    """Return what is equal for lab fixtures that can share a running lab, and else for the same fixture only."""
    path, reuse_lab = getattr(function, _MARK)
    return path if reuse_lab else function
