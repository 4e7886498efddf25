"""`make bench`: what this server costs and how long it keeps people waiting, beside the floor and beside its peer.

Here lives what measures, through the public surface: HTTP, the client, processes. Nothing of the product may import it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(os.environ.get("BENCH_RESULTS") or ROOT / ".bench")
"""Tables, numbers and profiles of the last run; git-ignored."""

sys.path.insert(0, str(ROOT / "tests"))  # harness.py: real server processes
