"""What is printed for people."""

from __future__ import annotations

import pytest

from remote_lab.cli import output


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (59.9, "59s"), (192, "3m12s"), (7500, "2h05m"), (86400 * 3 + 4 * 3600, "3d04h"), (-1, "0s")],
)
def test_durations_have_two_units_at_most(seconds: float, shown: str) -> None:
    """And are as short as people say them."""
    assert output.duration(seconds) == shown


def test_columns_are_aligned_and_nothing_of_a_value_leaves_its_cell(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a new line nor a control character of what somebody uploaded."""
    output.table(("NAME", "FOR"), [("a", "first\nsecond"), ("longer", "\x1b[2Jx"), (None, "y" * 60)])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["NAME    FOR", "a       first second", "longer  ?[2Jx", f"-       {'y' * 45}..."]
