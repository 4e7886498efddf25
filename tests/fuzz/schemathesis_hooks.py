"""What schemathesis loads beside the document (SCHEMATHESIS_HOOKS): requests that ask to be held are held shortly."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import schemathesis

HELD_SECONDS = 0.05


@schemathesis.hook
def before_call(_context: Any, case: Any, _arguments: Any) -> None:
    """A `wait` that is valid stays valid, but a minute of it for each of thousands of calls is no test."""
    if case.query and "wait" in case.query:
        with suppress(TypeError, ValueError):
            case.query["wait"] = min(float(case.query["wait"]), HELD_SECONDS)
