"""Reads what code of a lab may have printed, as data: JSON within limits, text without control characters.

Whoever reads an answer of a lab reads it through here, and then looks whether it has the shape that was asked for.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

MAX_VALUES = 1_000_000
MAX_DEPTH = 64
_STRUCTURE = re.compile(r"[\[{,]")
# Escape sequences of terminals, control characters, and what turns the direction of text around.
_CONTROL = re.compile(
    r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


class AnswerUnusable(ValueError):
    """A lab printed something that cannot be its answer; the message says what is wrong with it."""


def read_json(text: str) -> Any:
    """Return the value of a JSON text that this process can hold and pass on.

    Raises:
        AnswerUnusable: it is no JSON, has more than a million values or 64 levels, numbers that JSON does not have, or
            text that is not Unicode.
    """
    if sum(1 for _ in _STRUCTURE.finditer(text)) > MAX_VALUES:
        raise AnswerUnusable(f"it has more than {MAX_VALUES} values")
    try:
        value = json.loads(text, parse_constant=_refuse_number, parse_float=_read_float)
        _check(value)
    except RecursionError as error:
        raise AnswerUnusable("it is nested too deeply") from error
    except ValueError as error:
        raise AnswerUnusable(str(error)) from error
    return value


def _refuse_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _read_float(word: str) -> float:
    value = float(word)
    if value in (float("inf"), float("-inf")):
        _refuse_number(word[:40])
    return value


def _check(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        if not level:
            return
        inner: list[Any] = []
        for item in level:
            match item:
                case str():
                    item.encode()  # UnicodeEncodeError is a ValueError
                case list():
                    inner.extend(item)
                case dict():
                    inner.extend(item)
                    inner.extend(item.values())
        level = inner
    if level:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def plain(text: str) -> str:
    """Return a text as it may go to a log or a terminal; it keeps its line feeds and tabs."""
    return _CONTROL.sub("", text)
