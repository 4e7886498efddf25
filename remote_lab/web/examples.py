"""Examples of requests and answers for the OpenAPI document; a test checks them against their schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Examples = dict[str, dict[str, Any]]

_SESSION_ID = "24f01c2d-8f4e-4a5b-9c3d-1e2f3a4b5c6d"
_IDENTITY = "6b0dbdcd6e5b0d8b5a2a3a1a4f6c2d9f1de0a3bc5fd5f7a2e4a1c0b9d8e7f601"
_CI_JOB = "https://ci.example.org/jobs/4711"
_DEVICES = [
    {"name": "r1", "raw": {"id": 1, "name": "r1", "device": "frr", "ansible_host": "198.18.1.101"}},
    {"name": "r2", "raw": {"id": 2, "name": "r2", "device": "frr", "ansible_host": "198.18.1.102"}},
]
_ACTIVE = {
    "status": "active",
    "position": 0,
    "slot": 1,
    "lease_expires_at": "2026-05-27T16:34:56+00:00",
    "eta_seconds": 0.0,
    "held_by": [],
    "waiting": 2,
}
_WAITING = {
    "status": "waiting",
    "position": 1,
    "slot": None,
    "lease_expires_at": None,
    "eta_seconds": 140.0,
    "held_by": [
        {
            "slot": 1,
            "token": "ci-core",
            "purpose": "nightly",
            "ci_job_url": None,
            "active_since": "2026-05-27T12:34:56+00:00",
        }
    ],
    "waiting": 2,
}
_NO_LAB: dict[str, Any] = {
    "running": False,
    "topology": None,
    "identity": None,
    "ref_count": 0,
    "devices": [],
    "netlab_status": None,
    "state": None,
    "phase": None,
    "failure": None,
    "log_tail": None,
    "eta_seconds": None,
    "seconds": None,
    "ready": [],
}
_RUNNING = {
    **_NO_LAB,
    "running": True,
    "topology": "ospf-pair.yml",
    "identity": _IDENTITY,
    "ref_count": 1,
    "devices": _DEVICES,
    "netlab_status": "Lab default in /lab, 2 nodes running",
    "state": "running",
    "ready": ["r1", "r2"],
}
_STARTING = {
    **_NO_LAB,
    "topology": "ospf-pair.yml",
    "identity": _IDENTITY,
    "ref_count": 1,
    "state": "starting",
    "phase": "start",
    "log_tail": "[CREATED] provider configuration file",
    "eta_seconds": 1.5,
    "seconds": 0.8,
    "ready": ["r1"],
}
_STATE = {
    "devices": [
        {
            "name": "r1",
            "device": "frr",
            "outputs": [
                {"command": "vtysh -c 'show running-config'", "output": "frr version 10.3\nhostname r1\n", "ok": True},
                {"command": "vtysh -c 'show ip ospf neighbor'", "output": "ospfd is not running\n", "ok": False},
            ],
        }
    ]
}
_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE...\n-----END OPENSSH PRIVATE KEY-----\n"


def _one(**examples: Any) -> Examples:
    return {name: {"value": value} for name, value in examples.items()}


REQUESTS: Mapping[tuple[str, str], Examples] = {
    ("post", "/session"): _one(
        nothing={},
        told={"purpose": "nightly", "ci_job_url": _CI_JOB, "ci_job_id": "4711", "lease_seconds": 3600.0},
    ),
    ("post", "/session/{session_id}/extend"): _one(an_hour={"lease_seconds": 3600.0}),
    ("post", "/lab"): _one(ospf={"topology": "nodes: [ r1, r2 ]", "reuse": True}),
}

FORM = "multipart/form-data"
FORMS: Mapping[tuple[str, str], Examples] = {
    ("post", "/session"): _one(with_a_lab={"topology": "nodes: [ r1, r2 ]", "purpose": "nightly"}),
}
"""Of operations that take a form as well as JSON."""

RESPONSES: Mapping[tuple[str, str, str], Examples] = {
    ("post", "/session", "201"): _one(
        free={"session_id": _SESSION_ID, "position": 0},
        with_a_lab={"session_id": _SESSION_ID, "position": 3, "identity": _IDENTITY},
    ),
    ("delete", "/session", "200"): _one(some={"ended": 2}, none={"ended": 0}),
    ("get", "/session/{session_id}", "200"): _one(active=_ACTIVE, waiting=_WAITING),
    ("post", "/session/{session_id}/extend", "200"): _one(active=_ACTIVE),
    ("get", "/active-session", "200"): _one(head={"session_id": _SESSION_ID, "status": "active", "position": 0}),
    ("get", "/queue", "200"): _one(
        two=[
            {"position": 0, "status": "active", "token": "ci-core", "purpose": "nightly", "yours": False},
            {"position": 1, "status": "waiting", "token": "ci-edge", "purpose": None, "yours": True},
        ]
    ),
    ("post", "/lab", "200"): _one(booted={"reused": False, "devices": _DEVICES}),
    ("post", "/lab", "202"): _one(starting=_STARTING),
    ("get", "/lab", "200"): _one(running=_RUNNING, starting=_STARTING, none=_NO_LAB),
    ("get", "/lab/log", "text/plain"): _one(
        booted="[CREATED] provider configuration file\n[SUCCESS] Lab devices configured\n"
    ),
    ("get", "/lab/log", "text/event-stream"): _one(
        booting="event: phase\ndata: create\n\nid: 38\ndata: [CREATED] provider\n\n"
    ),
    ("get", "/lab/devices", "200"): _one(pair=_DEVICES),
    ("get", "/lab/ssh-key", "200"): _one(key=_KEY),
    ("get", "/lab/state", "200"): _one(router=_STATE),
    ("get", "/debug/health", "200"): _one(
        well={
            "status": "ok",
            "problem": None,
            "timestamp": 1779885296.5,
            "uptime": 86400.5,
            "sessions": 2,
            "queue_length": 2,
            "slots": 1,
            "labs": [{"slot": 1, "topology": "ospf-pair.yml", "state": "running"}],
            "reaper_age_seconds": 2.5,
            "version": "0.1.0",
            "provider": "netns",
        }
    ),
}
