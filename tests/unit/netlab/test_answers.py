"""What a lab printed is data, whatever it looks like."""

from __future__ import annotations

import json

import pytest

from remote_lab.netlab.answers import MAX_DEPTH, AnswerUnusable, plain, read_json
from remote_lab.netlab.boot import read_devices


def test_value_comes_back_as_it_was() -> None:
    """An answer within the limits is what JSON says it is."""
    value = [["r1", {"id": 1, "box": "quay.io/frr", "rate": 1.5, "up": True, "none": None, "name": "Zürich"}]]
    assert read_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        '{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1),
        "[" + "[]," * 1_000_001 + "[]]",
        "[NaN]",
        "[-Infinity]",
        "[1e999]",
        "9" * 5000,
        '["\\ud800"]',
        '{"\\udfff": 1}',
        "",
        "no json",
    ],
    ids=lambda text: f"{text[:12]}({len(text)})",
)
def test_forged_answers_are_refused(text: str) -> None:
    """Too deep, too many, no numbers of JSON, no Unicode: an error that every reader expects."""
    with pytest.raises(AnswerUnusable):
        read_json(text)
    with pytest.raises(AnswerUnusable):
        read_devices(f'[["r1", {{"forged": {text}}}]]')


def test_deepest_allowed_value_is_read() -> None:
    """The limit is on the far side of what netlab says of a device."""
    assert read_json("[" * MAX_DEPTH + "]" * MAX_DEPTH) != []


@pytest.mark.parametrize("name", ["\\u001b[2J", "r1\\u202e", "a\\u0000b"])
def test_device_names_cannot_write_to_a_terminal(name: str) -> None:
    """A device whose name has control characters is none."""
    with pytest.raises(ValueError, match="no device"):
        read_devices(f'[["{name}", {{}}]]')


def test_plain_text_keeps_lines_only() -> None:
    """Escape sequences, control characters and turned text are gone; letters of all languages stay."""
    assert plain("a\x1b[31mb\x1bc\x9b2J\rd\u202ee\ud800\nf\tü") == "abc2Jde\nf\tü"
