"""Whether this machine can run labs: what `remote-lab doctor` finds, as a sentence."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Any

SERVER_PACKAGES = ("alembic", "filelock", "flask", "flask_smorest", "gunicorn", "marshmallow", "sqlalchemy", "yaml")
MOST_FINDINGS = 3
_PLACE = ("address", "server")
"""Findings about where a server would listen: one that is started for a run chooses another port."""


def missing_server_part() -> str | None:
    """Why no server can be started by this Python; None when one can."""
    missing = [name for name in SERVER_PACKAGES if find_spec(name) is None]
    if not missing:
        return None
    return (
        f"the server part is not installed ({missing[0]} is missing): pip install 'remote-lab[server]', "
        "or set REMOTE_LAB_URL to the address of a lab host."
    )


def why_not(answer: str, provider: str) -> str | None:
    """What keeps labs from running: the findings that count, each with its remedy. None when nothing does.

    Args:
        answer: what `remote-lab doctor --json` printed; ValueError when that is something else.
        provider: what REMOTE_LAB_PROVIDER says.
    """
    match json.loads(answer):
        case {"labs_can_run": bool(can_run), "providers": [*providers], "findings": [*findings]}:
            pass
        case _:
            raise ValueError("remote-lab doctor printed something else than its findings")
    if can_run:
        return None
    failed = [one for one in findings if not one["ok"] and one["name"] not in _PLACE]
    if providers:
        counting = [one for one in failed if _is_of_server(one)]
    elif provider in ("", "auto", "netns"):
        counting = [one for one in failed if one["required"]]
    else:
        counting = [one for one in failed if _is_of_server(one) or one["name"] == f"provider {provider}"]
    return _sentence(counting) if counting else None


def _is_of_server(finding: dict[str, Any]) -> bool:
    name = str(finding["name"])
    return bool(finding["required"]) and (name in ("state", "database") or name.startswith("setting"))


def _sentence(findings: list[dict[str, Any]]) -> str:
    parts = [f"{one['name']}: {_end(one['detail'])}{_end(one['remedy'])}".strip() for one in findings[:MOST_FINDINGS]]
    if len(findings) > MOST_FINDINGS:
        parts.append(f"{len(findings) - MOST_FINDINGS} more, see remote-lab doctor.")
    return " ".join(parts)


def _end(text: str) -> str:
    words = " ".join(text.split())
    return f"{words.rstrip('.')}. " if words else ""
