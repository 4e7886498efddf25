"""Load on one URL: by wrk where it is installed, otherwise by a small generator of ours."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import ROOT

MISSING = (
    "wrk is not installed (apt-get install wrk): load came from bench/generator.py, which takes more of the machine"
)
_SCRIPT = """
wrk.method = "{method}"
{headers}
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('RESULT {{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "worst": %f, "errors": %d}}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What came of one; times in milliseconds."""

    per_second: float
    p50: float
    p99: float
    worst: float


def has_wrk() -> bool:
    return shutil.which("wrk") is not None


def put_load(folder: Path, method: str, url: str, headers: Mapping[str, str], connections: int, seconds: float) -> Load:
    """Ask the same on so many connections that are kept, each again as soon as it has its answer.

    Raises ValueError when an answer was not a success: what was measured then is something else.
    """
    if has_wrk():
        script = folder / "load.lua"
        lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
        script.write_text(_SCRIPT.format(method=method, headers=lines))
        # wrk takes whole seconds only.
        flags = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(script)]
        command = ["wrk", *flags, url]
    else:
        options = json.dumps({"method": method, "headers": dict(headers)})
        generator = str(ROOT / "bench" / "generator.py")
        command = [sys.executable, generator, url, str(connections), str(seconds), options]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = json.loads(said.rpartition("RESULT ")[2])
    if result["errors"] or not result["requests"]:
        raise ValueError(f"{method} {url}: {result}")
    return Load(result["requests"] / result["seconds"], result["p50"], result["p99"], result["worst"])
