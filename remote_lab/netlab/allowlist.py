"""Which topologies may run where no sandbox holds them: those that are made of what is known to be plain data.

netlab evaluates, executes and includes much of what a topology says (26.10: `plugin`, `defaults`, `tools`, `validate`,
providers' sections, custom configurations; f-strings made of names of link groups in netsim/augment/links.py), and
scripts that it renders for containers may run on the host (netsim/providers/clab/configs.py, mode `ns`). A list of what
is dangerous is never complete, so this is a list of what is not. What a topology may say is in `allowed_attributes.py`;
nothing is executed, imported or written here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import yaml

from remote_lab.netlab.allowed_attributes import NAME, NODE_INTERFACE, REASONS, TOPOLOGY, Rule

MAX_BYTES = 128 * 1024
"""Larger ones would take the parser too long."""
MAX_FINDINGS = 20
_MAX_SHOWN = 40
_MERGE = "tag:yaml.org,2002:merge"
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("bool", "float", "int", "map", "null", "seq", "str")}
_FILE_NAME = re.compile(r"[A-Za-z0-9_-]+\.ya?ml", re.ASCII)
# What netlab, containerlab, Ansible or Vagrant would take for theirs. A second dot is not possible above: netlab
# prefers `lab.1.2.yml` to `lab.yml` (26.10, netsim/utils/versioning.py).
_TAKEN_NAMES = {"clab", "hosts", "netlab", "netlab-devices", "plugin", "topology-defaults"}


@dataclass(frozen=True)
class Finding:
    """Something that is not allowed, and where it stands; both count from 1."""

    line: int
    column: int
    what: str


def check(name: str, content: bytes, extra_names: Iterable[str]) -> list[Finding]:
    """Return what keeps an upload from running without a sandbox; empty when nothing does.

    Args:
        name: file name of the topology.
        content: of the topology, YAML that was found to be well formed and of limited depth and size.
        extra_names: of the other files of the upload, relative to the topology.
    Returns:
        at most `MAX_FINDINGS`, those of the topology first and in its order.
    """
    if len(content) > MAX_BYTES:
        return [Finding(1, 1, f"the topology has more than {MAX_BYTES} bytes, too many to be checked")]
    try:
        root = yaml.compose(content.decode("utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        return [_finding(mark, "the topology cannot be read as netlab reads it")]
    if not isinstance(root, yaml.MappingNode):  # it was cut short since it came
        return [_finding(root.start_mark if root else None, "the topology is no mapping such as 'nodes: [r1, r2]'")]
    walk = _Walk(root)
    walk.visit(root, TOPOLOGY, "")
    files = [Finding(1, 1, what) for what in _files(name, extra_names)]
    return (sorted(walk.findings, key=lambda one: (one.line, one.column)) + files)[:MAX_FINDINGS]


def in_plain_yaml(content: bytes) -> bytes:
    """Return a topology that was found good in the plainest of YAML, so that every parser reads what was checked.

    netlab's own (python-box 7.4, box/converters.py) is ruamel.yaml where that is installed, which reads YAML 1.2.
    """
    return yaml.safe_dump(yaml.safe_load(content.decode("utf-8")), allow_unicode=True, sort_keys=False).encode()


def _files(name: str, extra_names: Iterable[str]) -> Iterator[str]:
    for one in (name, *extra_names):
        stem = one.rpartition(".")[0].lower()
        if not _FILE_NAME.fullmatch(one) or stem in _TAKEN_NAMES:
            yield f"file {one[:_MAX_SHOWN]!r}: only .yml files with a plain name that netlab does not use itself"


class _Walk:
    """Goes through a topology with the rule for each of its nodes."""

    def __init__(self, root: yaml.Node | None) -> None:
        self.findings: list[Finding] = []
        self._seen: set[tuple[int, int]] = set()
        self._node_names = frozenset(_names_of_nodes(root))

    def visit(self, node: yaml.Node | None, rule: Rule, path: str) -> None:
        """Check a node against a rule; once for each pair, however many aliases lead to it."""
        if node is None or (id(node), id(rule)) in self._seen:
            return
        self._seen.add((id(node), id(rule)))
        if node.tag not in _TAGS:
            self._refuse(node, f"{path or 'the topology'} has the YAML tag {node.tag[:_MAX_SHOWN]!r}")
        elif isinstance(node, yaml.MappingNode):
            self._visit_mapping(node, rule, path)
        elif isinstance(node, yaml.SequenceNode):
            if rule.items is None:
                self._refuse(node, f"{path} is a list, which is not allowed there")
                return
            for item in node.value:
                self.visit(item, rule.items, path)
        elif not _is_allowed(node, rule):
            self._refuse(node, f"{path} has the value {str(node.value)[:_MAX_SHOWN]!r}, {rule.expected}")

    def _visit_mapping(self, node: yaml.MappingNode, rule: Rule, path: str) -> None:
        for key, value in node.value:
            if key.tag == _MERGE:
                # Merged keys stand here as if they were written here; a list of mappings may be merged as well.
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    self.visit(merged, rule, path)
            elif not isinstance(key, yaml.ScalarNode) or key.tag not in _TAGS or not NAME.fullmatch(key.value):
                self._refuse(key, f"{path or 'the topology'} has the key {str(key.value)[:_MAX_SHOWN]!r}")
            else:
                self._visit_key(key, value, rule, path)

    def _visit_key(self, key: yaml.ScalarNode, value: yaml.Node, rule: Rule, path: str) -> None:
        """Follow a key to its rule; netlab reads `a.b: 1` as `a: { b: 1 }`."""
        inner: Rule | None = rule
        for part in key.value.split("."):
            path = f"{path}.{part}" if path else part
            inner = self._rule_of(part, inner)
            if inner is None:
                reason = REASONS.get(part, "it is not among what is known to be plain data")
                self._refuse(key, f"{path[-2 * _MAX_SHOWN :]} is not allowed: {reason}")
                return
        if inner is not None:
            self.visit(value, inner, path)

    def _rule_of(self, part: str, rule: Rule | None) -> Rule | None:
        if rule is None:
            return None
        if part in rule.keys:
            return rule.keys[part]
        if part in REASONS or part.startswith("_"):
            return None
        if rule.node_names:
            return NODE_INTERFACE if part in self._node_names else None
        return rule.others

    def _refuse(self, node: yaml.Node, what: str) -> None:
        self.findings.append(_finding(node.start_mark, what))


def _is_allowed(node: yaml.Node, rule: Rule) -> bool:
    if node.tag == "tag:yaml.org,2002:null":
        return True
    return rule.scalar is not None and rule.scalar.fullmatch(node.value) is not None and ".." not in node.value


def _names_of_nodes(root: yaml.Node | None) -> Iterator[str]:
    """Yield what may be the name of a node; links have them as keys beside attributes."""
    for path, value in _pairs(root):
        if path[0] == "nodes":
            if len(path) > 1:
                yield path[1]
            elif isinstance(value, yaml.MappingNode):
                yield from (inner[0] for inner, _ in _pairs(value))
            elif isinstance(value, yaml.SequenceNode):
                for item in value.value:
                    names = [inner.value for path, inner in _pairs(item) if path == ["name"]]
                    yield from names if isinstance(item, yaml.MappingNode) else [item.value]
        if path[0] == "groups":
            yield from _members(value)


def _members(groups: yaml.Node) -> Iterator[str]:
    """Yield all words below the groups: their members become nodes when netlab is asked for that."""
    waiting, seen = [groups], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            waiting += [value for _, value in node.value]
        else:
            yield node.value


def _pairs(node: yaml.Node | None) -> Iterator[tuple[list[str], yaml.Node]]:
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if isinstance(key, yaml.ScalarNode):
            yield key.value.split("."), value


def _finding(mark: yaml.Mark | None, what: str) -> Finding:
    return Finding(mark.line + 1, mark.column + 1, what) if mark is not None else Finding(1, 1, what)
