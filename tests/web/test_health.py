"""Health."""

from __future__ import annotations

import time

from harness import Server


def test_healthz_is_204_and_empty(server: Server) -> None:
    """For load balancers."""
    response = server.call("GET", "/healthz")
    assert (response.status_code, response.content) == (204, b"")


def test_debug_health_counts_sessions(server: Server, session_id: str, waiting_id: str) -> None:
    """With the fields that existing dashboards read."""
    answer = server.call("GET", "/debug/health").json()
    assert (answer["status"], answer["sessions"], answer["queue_length"]) == ("ok", 2, 2)
    assert abs(answer["timestamp"] - time.time()) < 60
    assert answer["uptime"] > 0
