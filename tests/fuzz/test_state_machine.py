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


@pytest.mark.timeout(7200 if LONG else 600)
@pytest.mark.parametrize(("slots", "warm_seconds"), [(1, 0), (2, 0), (1, 3600)], ids=["one", "two", "warm"])
def test_the_server_does_what_the_model_says(tmp_path: Path, slots: int, warm_seconds: int) -> None:
    """FIFO, slots, the acquire table, references, warm labs, acquire ids: after every step, restarts included."""
    timing = {"REAPER_SECONDS": 0.5, "LEASE_SECONDS": LEASE_SECONDS, "WARM_SECONDS": warm_seconds}
    server = Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN, SLOTS=slots, **timing)

    class Machine(Clients):
        """The clients of this server."""

    Machine.server, Machine.slots, Machine.warm, Machine.steps = server, slots, bool(warm_seconds), 0
    chosen = settings(
        max_examples=LIVES,
        stateful_step_count=STEPS_OF_A_LIFE,
        deadline=None,
        database=None,
        print_blob=False,
        # What threads and kills do is never the same again, so a failure is shown as it came.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with running(server):
        run_state_machine_as_test(seed(choose_seed())(Machine), settings=chosen)
    assert Machine.steps >= (LIVES - 1) * STEPS_OF_A_LIFE, "hypothesis begins with a short life, the others are whole"
    assert "Traceback" not in server.log.read_text()
