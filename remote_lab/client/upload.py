"""A topology and its extra files, read once, so that every try of an acquire sends the same bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from remote_lab.identity import lab_identity


@dataclass(frozen=True)
class Upload:
    """What makes a lab."""

    topology: str
    """The topology's file name."""
    content: bytes
    extra_files: tuple[tuple[str, bytes], ...]
    """Of each file its name, relative to the topology's folder, and its bytes."""

    @property
    def parts(self) -> list[tuple[str, tuple[str, bytes, str]]]:
        """The files of the form: field, then name on the server, bytes and content type."""
        return [
            ("topology", (self.topology, self.content, "application/x-yaml")),
            *(("extra_files", (name, content, "application/octet-stream")) for name, content in self.extra_files),
        ]

    @property
    def identity(self) -> str:
        """By which the server, and `GET /lab`, know the lab of these files."""
        return lab_identity(self.content, dict(self.extra_files))


def read_upload(topology: Path, extra_files: Iterable[Path | str]) -> Upload:
    """Read all files; OSError for one that cannot be read.

    Extra files keep their folder when they lie below the topology's, and go by their bare name otherwise.
    """
    # Not resolved: a file keeps the name and the folder that its user gave it by a symbolic link.
    folder = Path(os.path.abspath(topology)).parent  # noqa: PTH100
    extras = []
    for extra in map(Path, extra_files):
        place = Path(os.path.abspath(extra))  # noqa: PTH100
        name = place.relative_to(folder).as_posix() if place.is_relative_to(folder) else place.name
        extras.append((name, extra.read_bytes()))
    return Upload(topology.name, topology.read_bytes(), tuple(extras))
