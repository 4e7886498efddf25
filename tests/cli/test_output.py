"""What is printed for people."""

from __future__ import annotations

import pytest

from remote_lab.cli import output


def test_columns_are_aligned_and_nothing_of_a_value_leaves_its_cell(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a new line nor a control character of what somebody uploaded."""
    output.table(("NAME", "FOR"), [("a", "first\nsecond"), ("longer", "\x1b[2Jx"), (None, "y" * 60)])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["NAME    FOR", "a       first second", "longer  ?[2Jx", f"-       {'y' * 45}..."]
