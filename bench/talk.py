"""Programs of `actors/`, and what they print."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from bench.targets import Target


def hear(target: Target, script: str, *arguments: object) -> Any:
    """Run one to its end; returns what it printed. CalledProcessError when it failed: it has said why."""
    with target.start_actor(script, *arguments) as actor:
        said, _ = actor.communicate()
    if actor.returncode:
        raise subprocess.CalledProcessError(actor.returncode, script)
    return json.loads(said)


def write_topology(path: Any, routers: int, *, real: bool = False) -> Any:
    """Write a topology of so many routers: a ring of FRR with OSPF, or nothing but names for the stand-in."""
    names = [f"r{number}" for number in range(1, routers + 1)]
    text = f"nodes: [ {', '.join(names)} ]\n"
    if real:
        pairs = zip(names, names[1:] if routers == 2 else [*names[1:], names[0]], strict=False)
        links = ", ".join(f"{one}-{other}" for one, other in pairs)
        text = f"provider: clab\ndefaults.device: frr\nmodule: [ ospf ]\n{text}links: [ {links} ]\n"
    path.write_text(text)
    return path
