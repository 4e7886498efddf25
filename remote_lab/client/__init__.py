"""The thin client: one session on a lab host, its place in the queue, its lab, and the heartbeat that keeps it.

Needs `requests` and the vocabulary; nothing of the server and nothing of pytest may be imported in here.
"""

from remote_lab.client.answers import LabStatusDto
from remote_lab.client.client import RemoteLabClient
from remote_lab.client.devices import DeviceInfoDto
from remote_lab.client.errors import (
    LabAcquisitionTimeout,
    LabBootError,
    RemoteLabHTTPError,
    ServerSilentError,
    ServerUnreachableError,
    SessionGoneError,
)

__all__ = [
    "DeviceInfoDto",
    "LabAcquisitionTimeout",
    "LabBootError",
    "LabStatusDto",
    "RemoteLabClient",
    "RemoteLabHTTPError",
    "ServerSilentError",
    "ServerUnreachableError",
    "SessionGoneError",
]
