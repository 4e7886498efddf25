"""The command `netlab` in a pod: netlab itself, unpatched, that also knows the provider `netns`.

netlab imports a provider as `netsim.providers.NAME`; an import finder answers for ours, so that no file of netlab's
package is touched. netlab calls `netlab` again through PATH, which is why the command has that name.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_PROVIDER_MODULE = "netsim.providers.netns"


class ProviderFinder(importlib.abc.MetaPathFinder):
    """Finds our provider under the name by which netlab imports it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _PROVIDER_MODULE:
            return None
        return importlib.util.spec_from_file_location(fullname, Path(__file__).with_name("provider.py"))


def main() -> None:
    sys.meta_path.append(ProviderFinder())
    import netsim.cli

    netsim.cli.lab_commands(sys.argv[0])
