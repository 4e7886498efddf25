"""Which Debian mirror this host uses, read from its apt sources; no mirror's name stands in this package.

Formats: sources.list(5), one-line style and deb822 style.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_ONE_LINE = re.compile(r"^deb\s+(?:\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)$")


@dataclass(frozen=True)
class Source:
    """One apt source of binary packages."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]


def host_mirror(root: Path = Path("/")) -> str | None:
    """Return the mirror from which a Debian host gets its main archive.

    Args:
        root: of the host's file system.
    Returns:
        None where the host is not Debian, or gets it from something that is no web server.
    """
    release = _os_release(root)
    if release.get("ID") != "debian":
        return None
    suites = {release.get("VERSION_CODENAME", ""), "stable", "testing", "unstable", "sid"} - {""}
    for source in _sources(root / "etc/apt"):
        is_web = source.uri.startswith(("http://", "https://"))
        if is_web and "main" in source.components and suites.intersection(source.suites):
            return source.uri
    return None


def _os_release(root: Path) -> dict[str, str]:
    try:
        lines = (root / "etc/os-release").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {name: value.strip().strip("\"'") for name, value in pairs}


def _sources(directory: Path) -> Iterator[Source]:
    parts = directory / "sources.list.d"
    for path in (directory / "sources.list", *sorted(parts.glob("*.list"))):
        if path.is_file():
            yield from parse_one_line(path.read_text(errors="replace"))
    for path in sorted(parts.glob("*.sources")):
        yield from parse_deb822(path.read_text(errors="replace"))


def parse_one_line(text: str) -> Iterator[Source]:
    """Yield the binary sources of a file in one-line style."""
    for line in text.splitlines():
        if found := _ONE_LINE.match(line.split("#")[0].strip()):
            yield Source(found["uri"], (found["suite"],), tuple(found["components"].split()))


def parse_deb822(text: str) -> Iterator[Source]:
    """Yield the enabled binary sources of a file in deb822 style."""
    # A comment line may stand anywhere, also within a stanza or a field, and does not end it.
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                fields[name] = value.strip()
        is_enabled = fields.get("enabled", "yes").lower() not in ("no", "false", "0", "off")
        if is_enabled and "deb" in fields.get("types", "").split():
            suites, components = fields.get("suites", "").split(), fields.get("components", "").split()
            for uri in fields.get("uris", "").split():
                yield Source(uri, tuple(suites), tuple(components))
