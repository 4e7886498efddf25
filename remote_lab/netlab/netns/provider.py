"""netlab's provider `netns`: netlab imports this file as `netsim.providers.netns` (netlab 26.10).

It tells netlab how nodes get their configuration and how they are; starting them is `runtime.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from box import Box
from netsim.data import append_to_list, get_empty_box
from netsim.providers import (
    PRINT_LOCK,
    _Provider,
    add_default_config_mode,
    tc_netem_set,
    validate_mgmt_ip,
)
from netsim.utils import log, strings
from netsim.utils.files import get_moddir

from remote_lab.netlab.netns import daemons, kernel_needs, planning, runtime, scripts


class Netns(_Provider):  # type: ignore[misc]
    """Nodes in network namespaces; every configuration is a script or a file that is put into its node."""

    def create(self, topology: Box, fname: str | None) -> None:
        planning.write_plan(topology, topology.nodes.values(), Path(self.get_output_name(fname, topology)))

    def get_full_template_path(self) -> str:
        # Where netlab looks for files of nodes, such as /etc/resolv.conf: those of containers fit.
        return str(get_moddir() / "templates/provider/clab")

    def node_post_transform(self, node: Box, topology: Box) -> None:
        add_default_config_mode(node, topology)
        validate_mgmt_ip(node, required=True, provider="netns", mgmt=topology.addressing.mgmt)
        # For whoever logs in with it; not `ansible_ssh_pass`, for which `netlab connect` wants sshpass.
        node.setdefault("ansible_password", str(topology.defaults.providers.netns.password))
        _set_forwarded_address(node, topology.defaults.providers.netns.get("forwarded_ssh_port", None))
        files = daemons.config_files(node)
        if files:
            # netlab renders the source of each of these into `node_files/NODE/SOURCE`.
            node.netns.config_templates = [{"source": source, "target": target} for source, target in files.items()]
        for lack in kernel_needs.missing_for(node, topology.defaults.providers.netns.get("missing", [])):
            log.error(lack.text, more_hints=[lack.remedy], category=log.IncorrectValue, module="netns")

    def deploy_node_config(self, node: Box, topology: Box, deploy_list: list[str]) -> None:
        modes = node.get("_node_config", {})
        for module in deploy_list:
            if ":" not in modes.get(module.replace(".", "@"), ""):  # netlab stores `bgp.session` as `bgp@session`
                continue
            if not deploy_script(node.name, module):
                append_to_list(node._deploy, "failed", module)
                return
            append_to_list(node._deploy, "success", module)
        _deploy_files(node, deploy_list)

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


def _set_forwarded_address(node: Box, ssh_port: int | None) -> None:
    """Say where the host reaches a node when it has no route to it: the node's address with 127 in front."""
    address = node.mgmt.get("ipv4", None)
    if ssh_port and address:
        node.ansible_host = ".".join(["127", *str(address).split("/")[0].split(".")[1:]])
        node.ansible_port = ssh_port


def deploy_script(node: str, name: str) -> bool:
    """Run a rendered configuration inside its node; return whether it succeeded, after saying why it did not."""
    log.info(f"Executing {name} configuration for node {node}")
    result = scripts.run_script(node, name, Path("node_files", node, name).read_text())
    if result.returncode:
        _report_failure(node, name, result.stdout + result.stderr)
    return result.returncode == 0


def _deploy_files(node: Box, deploy_list: list[str]) -> None:
    """Put files of daemons into a node and start what reads them, or have it read them again."""
    files = {item.source: item.target for item in node.get("netns.config_templates", [])}
    for source, target in files.items():
        runtime.write_file(node.name, target, Path("node_files", node.name, source).read_text())
    for process in daemons.processes(node):
        try:
            runtime.start_service(node.name, process.name, process.start, process.reload)
        except OSError as error:
            _report_failure(node.name, process.name, str(error))
            append_to_list(node._deploy, "failed", process.name)
            return
    for source in files:
        if source in deploy_list:
            append_to_list(node._deploy, "success", source)


def _report_failure(node: str, module: str, output: str) -> None:
    with PRINT_LOCK:
        strings.print_colored_text(strings.wrap_error_message(output.strip() + "\n", indent=2), "bright_black")
        log.error(
            f"{module} configuration failed on node {node}",
            category=log.FatalError,
            skip_header=True,
            module="initial",
        )
