"""Codes."""

from __future__ import annotations

import pytest

from remote_lab.errors import transport_code


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("URI_TOO_LONG", "request_uri_too_long"),
        ("REQUEST_URI_TOO_LONG", "request_uri_too_long"),
        ("UNPROCESSABLE_CONTENT", "unprocessable_entity"),
        ("NOT_FOUND", "not_found"),
    ],
)
def test_a_code_is_the_same_on_every_python(name: str, code: str) -> None:
    """Python 3.13 has other names for some statuses."""
    assert transport_code(name) == code
