"""Heads of requests read in one look, and answers as the bytes that gunicorn 23 would send.

Only heads that leave no question: HTTP/1.1, no body, nothing that needs an answer of its own, no header twice. What a
request asks for is not known here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from email.utils import formatdate
from typing import Any

HEAD_BYTES = 8192
HEAD_END = b"\r\n\r\n"
MOST_HEADERS = 100
"""gunicorn's limit; what is beyond is its to refuse."""
_HEAD = re.compile(
    rb"(GET|POST) (/[A-Za-z0-9/-]{0,200})(?:\?([A-Za-z0-9=.&-]{0,200}))? HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]+:[\t\x20-\x7e]*\r\n)*)\r\n"
)
_DECIDES_SCHEME = ("X-FORWARDED-PROTO", "X-FORWARDED-PROTOCOL", "X-FORWARDED-SSL")
"""gunicorn compares these (its `secure_scheme_headers`)."""
_CONNECTION = {"keep-alive": True, "close": False}


def read_head(head: bytes) -> tuple[dict[str, Any], bool] | None:
    """What the head of a request says, as WSGI has it, and whether its connection stays; None unless it is ordinary."""
    found = _HEAD.fullmatch(head) if len(head) <= HEAD_BYTES else None
    if found is None:
        return None
    method, path, query, lines = (part.decode("ascii") for part in found.groups(b""))
    headers: dict[str, str] = {}
    for line in lines.split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        headers[name.upper()] = value.strip(" \t")
    keep = _CONNECTION.get(headers.get("CONNECTION", "keep-alive").lower())
    if (
        keep is None
        or len(headers) != lines.count("\r\n")
        or len(headers) > MOST_HEADERS
        or headers.get("CONTENT-LENGTH", "0") != "0"
        or "TRANSFER-ENCODING" in headers
        or "EXPECT" in headers
        or sum(name in headers for name in _DECIDES_SCHEME) > 1
    ):
        return None
    environ: dict[str, Any] = {f"HTTP_{name.replace('-', '_')}": value for name, value in headers.items()}
    return environ | {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query}, keep


def with_query(head: bytes, query: bytes) -> bytes:
    """The same request, with another query behind its path."""
    line, rest = head.split(b"\r\n", 1)
    method, target, version = line.split(b" ")
    return b"%b %b?%b %b\r\n%b" % (method, target.partition(b"?")[0], query, version, rest)


def write_answer(status: str, headers: Sequence[tuple[str, str]], body: bytes, keep: bool) -> bytes:
    """An answer of HTTP/1.1, with the headers that gunicorn puts in front."""
    lines = [
        f"HTTP/1.1 {status}\r\nServer: gunicorn\r\nDate: {_date(int(time.time()))}\r\n"
        f"Connection: {'keep-alive' if keep else 'close'}\r\n"
    ]
    lines += [f"{name}: {value}\r\n" for name, value in headers]
    return "".join([*lines, "\r\n"]).encode("latin-1") + body


class _LastDate:
    """The date of the last answer: most are sent in the same second as the one before."""

    def __init__(self) -> None:
        self._of = (0, "")

    def __call__(self, second: int) -> str:
        known, text = self._of
        if known != second:
            text = formatdate(second, usegmt=True)
            self._of = second, text
        return text


_date = _LastDate()
