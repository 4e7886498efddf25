"""Finding the host's Debian mirror in its apt sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_lab.netlab.mirrors import host_mirror

DEBIAN = 'PRETTY_NAME="Debian"\nID=debian\nVERSION_CODENAME=bookworm\n'
DEB822 = """
# first comment
Types: deb deb-src
# a comment within a stanza
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
 contrib

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
"""


def make_host(root: Path, os_release: str, **sources: str) -> Path:
    (root / "etc/apt/sources.list.d").mkdir(parents=True)
    (root / "etc/os-release").write_text(os_release)
    for name, text in sources.items():
        path = {"one_line": "sources.list", "part": "sources.list.d/x.list", "deb822": "sources.list.d/x.sources"}[name]
        (root / "etc/apt" / path).write_text(text)
    return root


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"deb822": DEB822}, "http://mirror.example/debian"),
        ({"deb822": "Enabled: no\n" + DEB822.lstrip()}, None),
        ({"deb822": DEB822.replace("Types: deb deb-src", "Types: deb-src")}, None),
        ({"one_line": "deb http://one.example/debian bookworm main # why\n"}, "http://one.example/debian"),
        (
            {"part": "deb [arch=amd64 signed-by=/k] https://two.example/debian stable contrib main\n"},
            "https://two.example/debian",
        ),
        ({"one_line": "# deb http://off.example/debian bookworm main\n"}, None),
        ({"one_line": "deb file:/srv/debian bookworm main\n"}, None),
        ({"one_line": "deb http://sec.example/debian-security bookworm-security main\n"}, None),
        ({"one_line": "deb http://apps.example bookworm stable\n"}, None),
        ({}, None),
    ],
)
def test_mirror_of_a_debian_host(tmp_path: Path, sources: dict[str, str], expected: str | None) -> None:
    """The first enabled web source of the main archive is the mirror, in either style."""
    assert host_mirror(make_host(tmp_path, DEBIAN, **sources)) == expected


def test_other_hosts_have_no_debian_mirror(tmp_path: Path) -> None:
    """An Ubuntu mirror has no Debian on it."""
    ubuntu = "ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n"
    sources = {"one_line": "deb http://ubuntu.example/ubuntu noble main\n"}
    assert host_mirror(make_host(tmp_path, ubuntu, **sources)) is None
