"""The log's one format.

    2026-05-27 12:34:56 | INFO | remote-lab-server | sid=24f01c2d topo=demo.yml | Created session

A line about a session or a lab gets them as `extra={"session_id": ..., "topology": ...}`. Of a session id only the
beginning is shown: whoever knows a whole one may use it.
"""

from __future__ import annotations

import logging
from typing import Any

SHOWN_OF_SESSION_ID = 8


LINE = "%(asctime)s | %(levelname)s | remote-lab-server | %(context)s%(message)s"


class LineFormatter(logging.Formatter):
    """Formats a record as above; a record without session and topology has no part for them."""

    def __init__(self) -> None:
        super().__init__(LINE, "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        parts = []
        if session_id := getattr(record, "session_id", None):
            parts.append(f"sid={session_id[:SHOWN_OF_SESSION_ID]}")
        if topology := getattr(record, "topology", None):
            parts.append(f"topo={topology}")
        record.context = f"{' '.join(parts)} | " if parts else ""
        return super().format(record)


def logging_config(level: str) -> dict[str, Any]:
    """A `logging.config` dictionary: everything of this server and of gunicorn, one line each, on stderr."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": LineFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "remote_lab": {"level": level},
            "gunicorn.error": {"level": level, "handlers": [], "propagate": True},
            "gunicorn.access": {"level": "WARNING", "handlers": [], "propagate": True},
        },
    }
