"""The pytest plugin as its entry point names it: fixture and hooks, or a sentence where pytest is too old for them.

It is loaded into every pytest run of everybody who has the distribution installed, whatever their pytest is, and must
break none: see `hooks.py`.
"""

from __future__ import annotations

from typing import NoReturn

import pytest

# New in pytest 7.0.
if hasattr(pytest, "StashKey"):
    from remote_lab.testing.fixture import remote_lab_client  # noqa: F401  for pytest
    from remote_lab.testing.hooks import *  # noqa: F403  pytest takes from here whatever hooks there are
else:

    @pytest.fixture(scope="session", name="remote_lab_client")
    def _no_client() -> NoReturn:
        """Fail each test with a lab, and leave the others alone."""
        pytest.fail(f"Tests with labs need pytest 7.0 or later, this is pytest {pytest.__version__}.", pytrace=False)
