"""What may run where no sandbox holds it, and what may not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from remote_lab.netlab.allowlist import MAX_BYTES, MAX_FINDINGS, Finding, check, in_plain_yaml

ROOT = Path(__file__).parents[3]
UPLOADS = ROOT / "tests/hostile/uploads"
ORDINARY = Path(__file__).parent / "ordinary"
PLAIN = "nodes: [ r1, r2 ]\nlinks: [ r1-r2 ]\n"
SECONDS = 60


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For all tests: in a new one netlab's first call takes seconds."""
    return tmp_path_factory.mktemp("home")


def look(text: str, *extra_names: str, name: str = "lab.yml") -> list[Finding]:
    return check(name, text.encode(), extra_names)


@pytest.mark.parametrize("attack", sorted(folder.name for folder in UPLOADS.iterdir()))
def test_no_attack_passes(attack: str) -> None:
    """Each hostile upload is refused, with a place in it."""
    folder = UPLOADS / attack
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    extra_names = [name for name in paths if name not in ("topology.yml", "about.yml")]
    findings = check("topology.yml", (folder / "topology.yml").read_bytes(), extra_names)
    assert findings
    assert all(one.line >= 1 and one.column >= 1 and one.what for one in findings)


@pytest.mark.parametrize(
    "path", [*sorted((ROOT / "examples").glob("*.yml")), *sorted(ORDINARY.glob("*.yml"))], ids=lambda path: path.stem
)
def test_ordinary_topologies_pass_and_mean_the_same(path: Path, tmp_path: Path, home: Path) -> None:
    """What people write passes as it is, and netlab takes what was checked for what was written."""
    assert check(path.name, path.read_bytes(), []) == []
    plain = in_plain_yaml(path.read_bytes())
    assert yaml.safe_load(plain) == yaml.safe_load(path.read_bytes())
    assert check(path.name, plain, []) == []
    (tmp_path / "lab.yml").write_bytes(plain)
    command = [Path(sys.executable).with_name("netlab"), "create", "-p", "clab", "-o", "none", "lab.yml"]
    environment = {**os.environ, "HOME": str(home)}
    made = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("plugin: [ evil ]\n", 1, 11, "plugin has the value 'evil'"),
        ("nodes: [ r1 ]\ndefaults:\n  sources.extra: [ x ]\n", 3, 3, "defaults.sources"),
        ("nodes:\n  r1.clab.binds: { /: /host }\n", 2, 3, "gives containers access to the host"),
        ("nodes:\n  r1: { image: 'x' }\n", 2, 9, "only the device's default image"),
        ("nodes: { r1: { bgp: { as: '{id}' } } }\n", 1, 27, "'{id}'"),
        ('nodes: { r1: { ospf: { area: "0\\n!" } } }\n', 1, 30, "only letters"),
        ("links: { '{1}': [ r1 ] }\n", 1, 10, "'{1}'"),
        ("links: [ { r1: , bridge: docker0 } ]\nnodes: [ r1 ]\n", 1, 18, "bridge of the host"),
        ("nodes: { bridge: {} }\nlinks: [ { bridge: docker0 } ]\n", 1, 10, "bridge of the host"),
        ("vlans: { red: { bridge: docker0 } }\n", 1, 17, "bridge of the host"),
        ("nodes: { r1: { vlan: { clab: { uplink: eth0 } } } }\n", 1, 24, "access to the host"),
        ("addressing: { mgmt: { ipv4: 10.0.0.0/8 } }\n", 1, 23, "addressing.mgmt.ipv4"),
        ("nodes: { r1: { mgmt: { ipv4: 10.0.0.1 } } }\n", 1, 16, "the server's"),
        ("x: &x { binds: 1 }\nnodes: { r1: { <<: *x } }\n", 1, 1, "x is not allowed"),
        ("nodes: { r1: { <<: { config: [ x ] } } }\n", 1, 22, "programs"),
        ("nodes: { r1: { <<: [ { config: [ x ] } ] } }\n", 1, 24, "programs"),
        ("nodes: { r1: { '<<': { config: [ x ] } } }\n", 1, 16, "the key '<<'"),
        ("nodes: !!set { r1 }\n", 1, 8, "YAML tag"),
        ("nodes: { ? [ r1 ] : {} }\n", 1, 12, "the key"),
        ("nodes: { 'r1[0]': {} }\n", 1, 10, "'r1[0]'"),
        ("_include: [ x ]\n", 1, 1, "reads other files"),
        ("nodes: { r1: { _include: [ x ] } }\n", 1, 16, "reads other files"),
        ("groups: { all: { vars: { ansible_connection: local } } }\n", 1, 18, "Ansible"),
        ("groups: { all: { netlab_config_mode: ns } }\n", 1, 18, "netlab_config_mode"),
        ("validate: { x: { plugin: '__import__(1)' } }\n", 1, 26, "only calls"),
        ("validate: { x: { plugin: 'ping(node.__class__)' } }\n", 1, 26, "only calls"),
        ("validate: { x: { plugin: 'ping(open(1))' } }\n", 1, 26, "only calls"),
        ("validate: { x: { valid: '1' } }\n", 1, 18, "evaluates"),
        ("links: [ { r1: { ifname: eth1 netns 1 } } ]\nnodes: [ r1 ]\n", 1, 26, "'eth1 netns 1'"),
        ("message: '{{ 1 }}'\n", 1, 10, "braces"),
        ("module: [ ../x ]\n", 1, 11, "only bfd"),
        ("provider: external\n", 1, 11, "the server has chosen one"),
    ],
)
def test_refused_with_its_place(text: str, line: int, column: int, says: str) -> None:
    """The finding names what it is about and where it stands."""
    findings = look(text)
    assert any((one.line, one.column) == (line, column) and says in one.what for one in findings), findings


@pytest.mark.parametrize(
    "name",
    [
        "lab.1.0.yml", "topology-defaults.yml", "Topology-Defaults.YML", "hosts.yml", "clab.yml", "evil.py", "x.j2",
        "group_vars/all.yml", "evil/defaults.yml", "netlab.snapshot.pickle", ".netlab.yml", "ansible.cfg",
    ],
)  # fmt: skip
def test_files_that_netlab_would_take_are_refused(name: str) -> None:
    """Beside the topology, and as the topology."""
    assert name in look(PLAIN, name)[0].what
    assert look(PLAIN, name=name)


def test_other_yaml_files_may_lie_beside_it() -> None:
    """Nothing reads them."""
    assert look(PLAIN, "expected.yml", "notes-2.yaml") == []


@pytest.mark.parametrize("text", ["", "# nothing\n", "null\n", "''\n", "[]\n"])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    """What comes is one; what a full disk or a killed server left of it need not be."""
    assert "no mapping" in look(text)[0].what


def test_findings_are_few_and_in_order() -> None:
    """However much is wrong."""
    findings = look("".join(f"x{number}: 1\n" for number in range(100)))
    assert [one.line for one in findings] == list(range(1, MAX_FINDINGS + 1))


def test_large_topologies_are_not_parsed() -> None:
    """The parser would take too long."""
    assert "too many to be checked" in look(PLAIN + "#" * MAX_BYTES)[0].what


def test_aliases_are_checked_in_every_place() -> None:
    """What is good in one place is not in another, and many aliases of aliases cost no more than one."""
    bomb = "".join(f"v{n}: &a{n} [ *a{n - 1}, *a{n - 1} ]\n" for n in range(1, 60))
    assert look(f"vlan: {{ a: &a0 [ 1, 2 ] }}\n{bomb}")
    assert "the value" in look("bgp: { x: &x 'a b' }\nname: *x\n")[0].what
