"""Who may upload what where no sandbox holds labs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from fakes import FakeRunner, yaml_file

from remote_lab.callers import ADMIN, OPEN, TRUSTED, USE, Caller
from remote_lab.core.manager import LabManager
from remote_lab.errors import TopologyNotAllowed
from remote_lab.netlab.allowlist import Finding

FINDINGS = [Finding(line, 3, f"x{line} is not allowed") for line in range(1, 6)]


@pytest.fixture
def session_id(manager: LabManager, runner: FakeRunner) -> str:
    runner.refused = FINDINGS
    return manager.open_session().session_id


@pytest.mark.parametrize(
    "caller", [OPEN, Caller("ci", 1, frozenset({USE})), Caller("boss", 2, frozenset({USE, ADMIN}))]
)
@pytest.mark.parametrize("method", ["acquire", "acquire_without_waiting"])
def test_what_is_found_is_refused_and_leaves_nothing(
    manager: LabManager, runner: FakeRunner, session_id: str, caller: Caller, method: str
) -> None:
    """No other right stands for that of the trusted; the sentence has the first findings, the error all."""
    acquire: Callable[..., object] = getattr(manager.desk, method)
    with pytest.raises(TopologyNotAllowed, match=r"line 1, column 3: x1 is not allowed; .*; 2 more") as refusal:
        acquire(session_id, yaml_file(), [], reuse=True, caller=caller)
    assert [one["line"] for one in refusal.value.findings] == [1, 2, 3, 4, 5]
    assert (runner.calls, manager.workspaces.present()) == ([], [])


def test_the_trusted_upload_anything(manager: LabManager, runner: FakeRunner, session_id: str) -> None:
    """Nobody looks at what they send."""
    caller = Caller("lab", 1, frozenset({USE, TRUSTED}))
    assert manager.desk.acquire(session_id, yaml_file(), [], reuse=True, caller=caller).devices
    assert [kind for kind, _ in runner.calls] == ["boot"]


def test_a_server_may_trust_everybody(manager: LabManager, session_id: str) -> None:
    """As those of one user do."""
    manager.desk.config = replace(manager.desk.config, trust_uploads=True)
    assert manager.desk.acquire(session_id, yaml_file(), [], reuse=True).devices
