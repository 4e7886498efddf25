"""netlab's calls of Ansible, answered without it: nodes in namespaces are configured by scripts.

netlab knows one way to ask for Ansible, the functions of its module `netsim.cli.ansible` (26.10); they are replaced, no
file of netlab is touched.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

_CUSTOM_CONFIG = "config.ansible"


def install() -> None:
    """Replace netlab's calls of Ansible."""
    import netsim.cli.ansible

    netsim.cli.ansible.check_version = check_version
    netsim.cli.ansible.playbook = playbook


def check_version(fatal: bool = False) -> None:
    """Warn of nothing: there is no Ansible whose version could matter."""


def playbook(name: str, args: list[str], abort_on_error: bool = True) -> bool:
    """Do what a playbook would.

    Args:
        name: of the playbook; `config.ansible` deploys a custom template, which netlab has rendered by then.
        args: of `ansible-playbook`; `-e config=TEMPLATE` names the template, `-l` the nodes.
        abort_on_error: a failure ends netlab.
    Returns:
        whether it succeeded.
    """
    if name != _CUSTOM_CONFIG:
        sys.exit(
            f"This netlab command needs Ansible ({name}), which labs in namespaces do without. "
            "Use netlab config, exec or connect, or ssh to the devices."
        )
    options = list(pairwise(args))
    template = next(value.removeprefix("config=") for flag, value in options if flag == "-e" and "config=" in value[:7])
    nodes = next(value for flag, value in options if flag == "-l").split(",")
    failed = [node for node in nodes if not _deploy(node, template)]
    if failed and abort_on_error:
        sys.exit(1)
    return not failed


def _deploy(node: str, template: str) -> bool:
    from netsim.augment import devices
    from netsim.providers import netns
    from netsim.utils import read

    script = Path("node_files", node, template)
    if not script.is_file():
        print(f"{node}: the template {template} was not rendered for it")
        return False
    text = script.read_text()
    if not text.startswith("#!"):
        # netlab adds it to templates that the topology names, and not to those of `netlab config`.
        topology = read.load_pickled_data("netlab.snapshot.pickle")
        shebang = devices.get_node_group_var(topology.nodes[node], "netlab_default_shebang", topology.defaults)
        script.write_text(f"{shebang}\n{text}" if shebang else text)
    return bool(netns.deploy_script(node, template))
