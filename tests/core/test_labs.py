"""The acquire table as a function."""

from __future__ import annotations

import pytest

from remote_lab.core.labs import Decision, decide
from remote_lab.states import LabState


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize(
    ("state", "same_identity", "expected"),
    [
        (LabState.RUNNING, True, Decision.TAKE_OVER),
        (LabState.STARTING, True, Decision.TAKE_OVER),
        (LabState.RUNNING, False, Decision.REPLACE),
        (LabState.STARTING, False, Decision.REPLACE),
        (LabState.STOPPING, True, Decision.WAIT),
    ],
)
def test_a_lab_that_was_booted_ahead(state: LabState, same_identity: bool, reuse: bool, expected: Decision) -> None:
    """Is as good as a new one, and in nobody's way."""
    assert expected == decide(state, same_identity, reuse, 0, is_unused=True)


@pytest.mark.parametrize(
    ("state", "same_identity", "reuse", "ref_count", "expected"),
    [
        (None, False, True, 0, Decision.BOOT),
        (None, False, False, 0, Decision.BOOT),
        (LabState.RUNNING, True, True, 0, Decision.ATTACH),
        (LabState.RUNNING, True, True, 2, Decision.ATTACH),
        (LabState.RUNNING, True, False, 0, Decision.REPLACE),
        (LabState.RUNNING, True, False, 1, Decision.REFUSE),
        (LabState.RUNNING, False, True, 0, Decision.REPLACE),
        (LabState.RUNNING, False, False, 0, Decision.REPLACE),
        (LabState.RUNNING, False, True, 1, Decision.REFUSE),
        (LabState.STARTING, True, True, 1, Decision.JOIN),
        (LabState.STARTING, True, False, 1, Decision.REFUSE),
        (LabState.STARTING, False, True, 1, Decision.REFUSE),
        (LabState.STARTING, False, True, 0, Decision.REFUSE),
        (LabState.STOPPING, True, True, 0, Decision.WAIT),
        (LabState.STOPPING, False, False, 0, Decision.WAIT),
    ],
)
def test_acquire_table(
    state: LabState | None, same_identity: bool, reuse: bool, ref_count: int, expected: Decision
) -> None:
    """What is in the slot and what is asked for decide, and nothing else."""
    assert expected == decide(state, same_identity, reuse, ref_count)
