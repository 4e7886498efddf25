"""A model of queue and labs against a real server: any interleaving of clients, with restarts in between."""

from __future__ import annotations

from pathlib import Path

import pytest
from effort import LONG, choose_seed
from harness import STANDIN, Server, running
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from machine import LEASE_SECONDS, Clients

STEPS_OF_A_LIFE = 50
LIVES = 60 if LONG else 4
ASKED = ("DELETE /session/", "DELETE /lab", "POST /lab/release", "POST /session/heartbeat", "lab_busy: ")
"""What the rules ask for, as the server's log has it; each of them many times in the long form."""


@pytest.mark.timeout(7200 if LONG else 600)
@pytest.mark.parametrize(
    ("slots", "ahead", "warm_seconds"),
    [(1, 0, 0), (2, 1, 0), (1, 0, 3600)],
    ids=["one", "two and ahead", "warm"],
)
def test_the_server_does_what_the_model_says(tmp_path: Path, slots: int, ahead: int, warm_seconds: int) -> None:
    """FIFO, slots, the acquire table, references, labs warm and ahead, acquire ids: after every step, and restarts."""
    timing = {"REAPER_SECONDS": 0.5, "LEASE_SECONDS": LEASE_SECONDS, "WARM_SECONDS": warm_seconds}
    server = Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN, SLOTS=slots, AHEAD=ahead, **timing)

    class Machine(Clients):
        """The clients of this server."""

    Machine.server, Machine.slots, Machine.ahead, Machine.steps = server, slots, ahead, 0
    Machine.warm = bool(warm_seconds)
    chosen = settings(
        # A second one would replay parts of the first, and what threads and kills do is never the same again.
        max_examples=1,
        stateful_step_count=STEPS_OF_A_LIFE,
        deadline=None,
        database=None,
        print_blob=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    first = choose_seed()
    with running(server):
        for life in range(LIVES):
            run_state_machine_as_test(seed(first + life)(Machine), settings=chosen)
    assert Machine.steps >= LIVES * STEPS_OF_A_LIFE
    log = server.log.read_text()
    assert "Traceback" not in log
    assert log.count("Listening at") > 1, "it was restarted"
    unseen = [what for what in ASKED if what not in log]
    assert len(unseen) <= (0 if LONG else len(ASKED) // 2), unseen
