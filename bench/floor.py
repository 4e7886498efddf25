"""The least that answers a poll over HTTP: a bare Flask view for the same gunicorn, and one read of SQLite."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from flask import Flask, Response

app = Flask(__name__)


@app.get("/session/<session_id>")
def session(session_id: str) -> dict[str, object]:
    return {"session_id": session_id, "status": "waiting", "position": 10}


@app.post("/session/heartbeat")
def heartbeat() -> Response:
    return Response(status=204)


def sqlite_read_microseconds(database: Path, reads: int = 2000) -> float:
    """How long one session is read for, by its id, on a connection that is open: without Flask, SQLAlchemy and HTTP."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        [(session_id,)] = connection.execute("SELECT id FROM sessions ORDER BY ticket DESC LIMIT 1")
        began = time.perf_counter()
        for _ in range(reads):
            connection.execute("SELECT state, ticket FROM sessions WHERE id = ?", (session_id,)).fetchall()
        return (time.perf_counter() - began) / reads * 1e6
