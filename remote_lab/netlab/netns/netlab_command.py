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

from remote_lab.netlab.netns import without_ansible

# Modules that netlab looks for in its own package -> our file. A plugin that is found so needs no search path, which a
# topology may replace.
_MODULES = {"netsim.providers.netns": "provider.py", "netsim.extra.netns_nodes": "netns_nodes.py"}


class ProviderFinder(importlib.abc.MetaPathFinder):
    """Finds our provider and our plugin under the names by which netlab imports them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _MODULES:
            return None
        return importlib.util.spec_from_file_location(fullname, Path(__file__).with_name(_MODULES[fullname]))


def install() -> None:
    """Let netlab find our provider and our plugin."""
    sys.meta_path.append(ProviderFinder())


def main() -> None:
    install()
    import netsim.cli

    without_ansible.install()
    netsim.cli.lab_commands(sys.argv[0])
