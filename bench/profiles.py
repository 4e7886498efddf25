"""`make bench BENCH=profile`: py-spy's view of the three hottest paths.

It slows down what it looks at, so it is no part of a measuring run.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench import RESULTS
from bench.acquires import Desk
from bench.load import put_load
from bench.options import Options
from bench.pods import can_run_labs
from bench.report import Report
from bench.stacks import read_stacks, summarize
from bench.talk import write_topology
from bench.targets import Target, ours

RATE = 250
ROUTERS = 8
BOOTS = 8
"""py-spy needs a moment to find a process that has just been forked."""
SPARE_SECONDS = 4.0
"""In which the server prepares for the next boot, and py-spy finds what was prepared."""


def measure(report: Report, options: Options, folder: Path, _peer_python: str | None) -> None:
    """Writes collapsed stacks to `.bench/profile-*.txt`, which flame graphs are drawn from, and what takes most."""
    py_spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if py_spy is None:
        report.notes.append("no profiles: py-spy is not installed (pip install 'remote-lab[bench]')")
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "profiles.txt").unlink(missing_ok=True)
    with ours(folder) as target:
        queue = [target.open_session() for _ in range(12)]
        url = f"{target.url}/session/{queue[10]}"
        seconds = options.profile_seconds

        def poll() -> None:
            put_load(folder, "GET", url, {}, options.connections, seconds + 2)

        _profile(py_spy, "poll", target, poll, seconds)
    with ours(folder) as target:
        _profile(py_spy, "acquire", target, lambda: _acquire(target, folder, options), options.profile_seconds)
    if can_run_labs():
        with ours(folder, real_labs=True) as target:
            desk = Desk(target)
            topology = write_topology(folder / "ring.yml", ROUTERS, real=True)
            desk.acquire_seconds(topology)  # what only the first boot of a server does is another matter
            desk.destroy()
            _profile(py_spy, "boot", target, lambda: _boot(desk, topology), None)


def _acquire(target: Target, folder: Path, options: Options) -> None:
    desk = Desk(target)
    topology = write_topology(folder / "pair.yml", 2)
    desk.acquire_seconds(topology)
    deadline = time.monotonic() + options.profile_seconds + 2
    while time.monotonic() < deadline:
        desk.acquire_seconds(topology)
        target.call("POST", "/lab/release", desk.session_id)


def _boot(desk: Desk, topology: Path) -> None:
    for _ in range(BOOTS):
        desk.acquire_seconds(topology)
        desk.destroy()
        time.sleep(SPARE_SECONDS)


def _profile(py_spy: str, name: str, target: Target, work: Callable[[], None], seconds: float | None) -> None:
    """Record while the work goes on, for so long or until its end; children of the server are recorded with it."""
    raw = RESULTS / f"profile-{name}.txt"
    flags = ["--subprocesses", "--nonblocking", "--rate", str(RATE), "--format", "raw", "--output", str(raw)]
    flags += ["--duration", str(round(seconds))] if seconds else []
    worker = threading.Thread(target=work)
    command = [py_spy, "record", *flags, "--pid", str(target.worker)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as spy:
        time.sleep(1.0)  # py-spy says nothing when it begins
        worker.start()
        if not seconds:
            worker.join()
            spy.send_signal(signal.SIGINT)
        spy.wait()
        worker.join()
    said = "\n".join([f"{name}:", *(f"  {line}" for line in summarize(read_stacks(raw)))])
    print(said)
    with (RESULTS / "profiles.txt").open("a") as stream:
        stream.write(f"{said}\n\n")
