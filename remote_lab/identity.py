"""The identity of a lab: the SHA-256 of what was uploaded. Names of topologies play no part in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def lab_identity(topology: bytes, extra_files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 (64 hexadecimal digits) that says which uploads are the same lab.

    `topology` is the file's content; `extra_files` maps the relative path of each file beside it to its content.
    Without extra files it is the SHA-256 of the topology's bytes. With them it is the SHA-256 of a canonical list:
    one line for the topology (`SHA-256`, NUL, newline), then one for each extra file (`SHA-256`, NUL, path, newline)
    in the order of the paths.
    """
    topology_digest = hashlib.sha256(topology).hexdigest()
    if not extra_files:
        return topology_digest
    lines = [f"{topology_digest}\0\n"]
    lines += [f"{hashlib.sha256(content).hexdigest()}\0{path}\n" for path, content in sorted(extra_files.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
