"""netlab's provider `netns`: netlab imports this file as `netsim.providers.netns` (netlab 26.10).

It tells netlab how nodes get their configuration and how they are; starting them is `runtime.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from box import Box  # type: ignore[import-not-found]
from netsim.data import append_to_list, get_empty_box
from netsim.providers import (
    PRINT_LOCK,
    _Provider,
    add_default_config_mode,
    tc_netem_set,
    validate_mgmt_ip,
)
from netsim.utils import log, strings

from remote_lab.netlab.netns import runtime


class Netns(_Provider):  # type: ignore[misc]
    """Nodes in network namespaces; every configuration is a script that runs inside its node."""

    def node_post_transform(self, node: Box, topology: Box) -> None:
        add_default_config_mode(node, topology)
        validate_mgmt_ip(node, required=True, provider="netns", mgmt=topology.addressing.mgmt)

    def deploy_node_config(self, node: Box, topology: Box, deploy_list: list[str]) -> None:
        modes = node.get("_node_config", {})
        for module in deploy_list:
            if ":" not in modes.get(module.replace(".", "@"), ""):  # netlab stores `bgp.session` as `bgp@session`
                continue
            log.info(f"Executing {module} configuration for node {node.name}")
            result = runtime.run_script(node.name, module, Path("node_files", node.name, module).read_text())
            if result.returncode:
                _report_failure(node.name, module, result.stdout + result.stderr)
                append_to_list(node._deploy, "failed", module)
                return
            append_to_list(node._deploy, "success", module)

    def get_lab_status(self, collect_status: dict[str, Any]) -> Box:
        states = get_empty_box()
        for name, text in runtime.node_states().items():
            states[name].status = text
        return states

    def capture_command(self, node: Box, topology: Box, args: argparse.Namespace) -> list[str]:
        command = strings.string_to_list(topology.defaults.netlab.capture.command)
        return ["netns-lab", "exec", node.name, *strings.eval_format_list(command, {"intf": args.intf})]

    def set_tc(self, node: Box, topology: Box, intf: Box, error: bool = True) -> None:
        applied = tc_netem_set(intf=intf.ifname, tc_data=intf.tc, pfx=f"netns-lab exec {node.name}")
        if applied is False:
            log.error(
                f"Cannot apply the tc policy to {node.name} {intf.ifname}", category=log.ErrorAbort, module="netns"
            )
        elif applied:
            log.info(text=f"Traffic control on {node.name} {intf.ifname}:{applied}")


def _report_failure(node: str, module: str, output: str) -> None:
    with PRINT_LOCK:
        strings.print_colored_text(strings.wrap_error_message(output.strip() + "\n", indent=2), "bright_black")
        log.error(
            f"{module} configuration failed on node {node}",
            category=log.FatalError,
            skip_header=True,
            module="initial",
        )
