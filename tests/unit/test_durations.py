"""Times as people write and read them."""

from __future__ import annotations

import pytest

from remote_lab.durations import about, compact, exactly, parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("15m", 900), ("4h", 14400), ("1d", 86400), ("2 h", 7200)],
)
def test_a_time_is_read_in_any_unit(text: str, seconds: float) -> None:
    """Without one it is seconds."""
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "15 minutes", "-1", "1e3", "1h30m", "s", "nan", "inf", "\u0661s"])
def test_what_is_no_time_is_refused_with_the_text(text: str) -> None:
    """And with what would be one."""
    with pytest.raises(ValueError, match="is no time: expected a time like 90s, 15m, 4h or 1d") as caught:
        parse_seconds(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "0 s"), (12.4, "12 s"), (240, "4 min"), (5000, "83 min"), (9000, "2.5 h")]
)
def test_what_need_not_be_exact_has_one_unit(seconds: float, said: str) -> None:
    """Seconds, minutes, hours."""
    assert about(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "0 s"), (90, "1 min 30 s"), (900, "15 min"), (7200, "2 h"), (3661, "1 h 1 min 1 s")]
)
def test_what_is_exact_has_all_units_but_empty_ones(seconds: float, said: str) -> None:
    """Hours, minutes and seconds, without those that are none."""
    assert exactly(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (59.9, "59s"), (192, "3m12s"), (7500, "2h05m"), (86400 * 3 + 4 * 3600, "3d04h"), (-1, "0s")],
)
def test_what_stands_in_a_table_has_two_units_at_most(seconds: float, shown: str) -> None:
    """And is as short as it can be."""
    assert compact(seconds) == shown
