"""The tree of domain errors, each with a stable code and a sentence that says what is wrong and what to do.

The domain knows no HTTP: `remote_lab.web.errors` maps a code to a status. A code is never renamed and never reused.

    RemoteLabError
    |-- SessionError
    |   |-- SessionNotFound         session_not_found
    |   |-- SessionWaiting          session_waiting
    |   |-- NoActiveSession         no_active_session
    |   |-- LeaseTooLong            lease_too_long
    |   `-- QueueFull               queue_full
    |-- LabError
    |   |-- LabNotFound             lab_not_found
    |   |-- SshKeyNotFound          ssh_key_not_found
    |   |-- LabBusy                 lab_busy
    |   |-- LabInUse                lab_in_use
    |   |-- LabBootFailed           lab_boot_failed
    |   |-- LabBootCancelled        lab_boot_cancelled
    |   |-- LabTeardownFailed       lab_teardown_failed
    |   |-- LabNotRunning           lab_not_running
    |   `-- TooManyHeldRequests     server_busy
    |-- UploadError
    |   |-- UploadMalformed         upload_malformed
    |   |-- TopologyNameInvalid     topology_name_invalid
    |   |-- TopologyMalformed       topology_malformed
    |   |-- UploadEmpty             upload_empty
    |   |-- UploadNameUnsafe        upload_name_unsafe
    |   |-- UploadNameClash         upload_name_clash
    |   |-- UploadTooManyFiles      upload_too_many_files
    |   |-- UploadTooLarge          upload_too_large
    |   `-- TopologyNotAllowed      topology_not_allowed
    |-- AccessError
    |   |-- TokenRequired           token_required
    |   |-- TokenInvalid            token_invalid
    |   |-- TooManyWrongTokens      too_many_wrong_tokens
    |   |-- RightMissing            right_missing
    |   |-- LimitExceeded           limit_exceeded
    |   |-- TokenNameTaken          token_name_taken
    |   `-- TokenUnknown            token_unknown
    |-- ServerUnhealthy             server_unhealthy
    |   |-- DatabaseUnavailable     database_unavailable
    |   `-- StorageFull             storage_full
    `-- HostError                   (the server does not start)
        |-- SettingInvalid          setting_invalid
        |-- LogConfigInvalid        log_config_invalid
        |-- InstanceRunning         instance_running
        |-- NoTokenYet              no_token_yet
        |-- DatabaseUnusable        database_unusable
        |-- ProviderUnavailable     provider_unavailable
        `-- ImageUnavailable        image_unavailable
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import ClassVar

_FINDINGS_TOLD = 3

_RENAMED = {
    "content_too_large": "request_entity_too_large",
    "uri_too_long": "request_uri_too_long",
    "range_not_satisfiable": "requested_range_not_satisfiable",
    "unprocessable_content": "unprocessable_entity",
}


def transport_code(status_name: str) -> str:
    """The stable code of a refusal that is not the domain's, from the name of its status.

    Python 3.13 renamed four of `http.HTTPStatus`; codes keep the names of 3.11.
    """
    name = status_name.lower()
    return _RENAMED.get(name, name)


class RemoteLabError(Exception):
    """Base of everything that Remote Lab Manager refuses on purpose; `str()` is the sentence for the user."""

    code: ClassVar[str]

    @property
    def detail(self) -> str:
        return str(self)


class SessionError(RemoteLabError):
    """Something about a session or the queue."""


class SessionNotFound(SessionError):
    """No session with that id is waiting or active."""

    code = "session_not_found"

    def __init__(self, session_id: str, ended_at: datetime | None = None, reason: str | None = None) -> None:
        self.ended_at = ended_at
        self.reason = reason
        if ended_at is None:
            message = f"No session {session_id!r}. Open a new one with POST /session."
        else:
            when = ended_at.strftime("%Y-%m-%d %H:%M:%S UTC")
            message = f"Session {session_id!r} ended at {when}: {reason}. Open a new one with POST /session."
        super().__init__(message)


class SessionWaiting(SessionError):
    """The session is still in the queue; labs are for active sessions."""

    code = "session_waiting"

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"Session {session_id!r} is still waiting for its turn. Poll GET /session/{session_id} until it is active."
        )


class NoActiveSession(SessionError):
    """The queue is empty, or its head is somebody else's."""

    code = "no_active_session"

    def __init__(self, is_somebody_elses: bool = False) -> None:
        super().__init__(
            "Somebody else's session is at the head of the queue. GET /queue shows who is before you."
            if is_somebody_elses
            else "No session is active or waiting."
        )


class LeaseTooLong(SessionError):
    """A session was to be active for longer than the server allows."""

    code = "lease_too_long"

    def __init__(self, lease_seconds: float, max_seconds: float) -> None:
        super().__init__(f"A lease of {lease_seconds:g} s is too long: at most {max_seconds:.0f} s are possible now.")


class QueueFull(SessionError):
    """The queue holds as many sessions as the server allows."""

    code = "queue_full"

    def __init__(self, max_waiting: int) -> None:
        super().__init__(f"The queue is full: {max_waiting} sessions are waiting. Try again later.")


class LabError(RemoteLabError):
    """Something about a lab."""


class LabNotFound(LabError):
    """The session has no lab."""

    code = "lab_not_found"

    def __init__(self) -> None:
        super().__init__("This session has no running lab. Start one with POST /lab.")


class SshKeyNotFound(LabError):
    """The running lab has no login key of its own."""

    code = "ssh_key_not_found"

    def __init__(self, provider: str) -> None:
        super().__init__(
            f"This lab (provider {provider!r}) has no ssh key of its own. Log in with the user and password of its "
            "devices, see GET /lab/devices."
        )


class LabBusy(LabError):
    """The slot's lab is referenced, so that it can neither be shared with this request nor replaced by it."""

    code = "lab_busy"

    def __init__(self, topology: str, ref_count: int) -> None:
        super().__init__(
            f"Lab {topology!r} is in use ({ref_count} references). Release it with POST /lab/release, then try again."
        )


class LabInUse(LabError):
    """A teardown without force met a referenced lab."""

    code = "lab_in_use"

    def __init__(self, topology: str, ref_count: int) -> None:
        super().__init__(
            f"Lab {topology!r} still has {ref_count} references. Release them, or destroy it with force=true."
        )


class LabBootFailed(LabError):
    """netlab could not bring the lab up, or not in time.

    `phase` is the step that failed, `log_tail` the last lines of the boot log.
    """

    code = "lab_boot_failed"

    def __init__(self, phase: str, reason: str, log_tail: str = "") -> None:
        self.phase = phase
        self.reason = reason
        self.log_tail = log_tail
        super().__init__(f"The lab did not boot ({phase}): {reason}")


class LabBootCancelled(LabError):
    """The boot was ended before the lab was up: its session ended, the lab was destroyed, or the server stopped."""

    code = "lab_boot_cancelled"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The boot was ended: {reason}.")


class LabTeardownFailed(LabError):
    """Something of a lab is still on the host after every escalation; the message names it."""

    code = "lab_teardown_failed"


class LabNotRunning(LabError):
    """An operator's netlab command is for a lab of which nothing runs on this host."""

    code = "lab_not_running"

    def __init__(self, lab_id: str, why: str) -> None:
        super().__init__(f"Lab {lab_id} does not run: {why}.")


class TooManyHeldRequests(LabError):
    """So many requests wait for boots that one more would starve the rest of the server."""

    code = "server_busy"

    def __init__(self, held: int) -> None:
        super().__init__(f"{held} such requests are already waiting. Try again in a few seconds.")


class UploadError(RemoteLabError):
    """What was uploaded cannot become a lab."""


class UploadMalformed(UploadError):
    """The upload is not a form that can be read."""

    code = "upload_malformed"

    def __init__(self, why: str) -> None:
        super().__init__(f"The upload cannot be read: {why}. Send multipart/form-data, as curl -F does.")


class UploadNotFound(UploadError):
    """No upload of this identity is kept for whoever asks."""

    code = "upload_not_found"

    def __init__(self, identity: str) -> None:
        super().__init__(f"No upload {identity} of yours is kept any more. Send the topology itself.")


class TopologyNameInvalid(UploadError):
    """The topology's file name is not that of a YAML file."""

    code = "topology_name_invalid"

    def __init__(self, name: str) -> None:
        super().__init__(f"Topology {name!r} must be a .yml or .yaml file.")


class TopologyMalformed(UploadError):
    """The topology is not YAML, or not a mapping at its top level."""

    code = "topology_malformed"


class UploadEmpty(UploadError):
    """An uploaded topology has no bytes."""

    code = "upload_empty"

    def __init__(self, name: str) -> None:
        super().__init__(f"File {name!r} is empty.")


class UploadNameUnsafe(UploadError):
    """A file name would leave the lab's working directory or cannot be a file there."""

    code = "upload_name_unsafe"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"File name {name!r} cannot be used: {why}. Use a relative name such as 'configs/r1.j2'.")


class UploadNameClash(UploadError):
    """Two parts of an upload want the same place."""

    code = "upload_name_clash"

    def __init__(self, name: str, other: str) -> None:
        super().__init__(f"File {name!r} clashes with {other!r} of the same upload. Rename one of them.")


class UploadTooManyFiles(UploadError):
    """More files than the server takes in one upload."""

    code = "upload_too_many_files"

    def __init__(self, max_upload_files: int) -> None:
        super().__init__(f"The upload has more than {max_upload_files} files.")


class UploadTooLarge(UploadError):
    """More bytes than the server takes in one upload."""

    code = "upload_too_large"

    def __init__(self, max_upload_bytes: int) -> None:
        super().__init__(f"The upload is larger than {max_upload_bytes} bytes.")


class TopologyNotAllowed(UploadError):
    """No sandbox holds labs on this server, and the upload is more than plain data.

    `findings` are what is not allowed, as `{"line": 3, "column": 1, "what": ...}`.
    """

    code = "topology_not_allowed"

    def __init__(self, name: str, findings: Sequence[Mapping[str, int | str]]) -> None:
        self.findings = findings
        told = [f"line {one['line']}, column {one['column']}: {one['what']}" for one in findings[:_FINDINGS_TOLD]]
        more = len(findings) - len(told)
        if more > 0:
            told.append(f"{more} more")
        super().__init__(
            f"Topology {name!r} cannot run on this server, where no sandbox holds labs: {'; '.join(told)}. "
            "Leave that out, or ask whoever runs the server for a token with the right 'trusted'."
        )


class AccessError(RemoteLabError):
    """Something about who calls, and what they may."""


class TokenRequired(AccessError):
    """The call came without a token."""

    code = "token_required"

    def __init__(self) -> None:
        super().__init__(
            "This server asks for a token. Set REMOTE_LAB_TOKEN, or send 'Authorization: Bearer TOKEN', or put it "
            "into the URL as https://ci:TOKEN@HOST. Whoever runs the server makes one with `remote-lab token create`."
        )


class TokenInvalid(AccessError):
    """The token is wrong, has expired, or was revoked."""

    code = "token_invalid"

    def __init__(self, why: str) -> None:
        super().__init__(f"{why} Whoever runs the server makes a new one with `remote-lab token create`.")


class TooManyWrongTokens(AccessError):
    """So many wrong tokens came lately that this one was not listened to any more."""

    code = "too_many_wrong_tokens"

    def __init__(self, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(
            f"The token is wrong, and too many wrong ones came before it. Correct it; try again in "
            f"{retry_after_seconds} s."
        )


class RightMissing(AccessError):
    """The token is good, but not for this."""

    code = "right_missing"

    def __init__(self, name: str | None, right: str, rights: Iterable[str]) -> None:
        has = ", ".join(rights) or "none"
        super().__init__(f"Token {name!r} may not do this: it needs the right {right!r} and has {has}.")


class LimitExceeded(AccessError):
    """The token has had as much as the server gives to each; the message names the setting that says how much."""

    code = "limit_exceeded"

    def __init__(self, what: str, variable: str, limit: int, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(
            f"This token {what}: {variable} allows {limit}. Try again in {retry_after_seconds} s, "
            "or ask whoever runs the server."
        )


class TokenNameTaken(AccessError):
    """A token has that name, or had it."""

    code = "token_name_taken"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"There is a token {name!r} already, or was one: names are not given twice, because records go by them. "
            f"Choose another, such as {name[:61]}-2."
        )


class TokenUnknown(AccessError):
    """No token has that name."""

    code = "token_unknown"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no token {name!r}. `remote-lab token list` shows all.")


class ServerUnhealthy(RemoteLabError):
    """The server runs but cannot do its work; the message says which part of it is dead."""

    code = "server_unhealthy"


class DatabaseUnavailable(ServerUnhealthy):
    """The database is locked, full, read-only, damaged or gone: nothing was changed, and the next try may do."""

    code = "database_unavailable"


class StorageFull(ServerUnhealthy):
    """The server's disk has no room for an upload; nothing of it was kept."""

    code = "storage_full"

    def __init__(self, why: str) -> None:
        super().__init__(f"The upload cannot be stored: {why}. Try again when the server's operator has made room.")


class HostError(RemoteLabError):
    """The host or its configuration cannot run the server; the server does not start."""


class SettingInvalid(HostError):
    """An environment variable has a value that cannot be used."""

    code = "setting_invalid"

    def __init__(self, variable: str, value: str, expected: str) -> None:
        super().__init__(f"{variable}={value!r} cannot be used: expected {expected}.")


class LogConfigInvalid(HostError):
    """The file given with --log-config cannot be used."""

    code = "log_config_invalid"

    def __init__(self, source: str, why: str) -> None:
        super().__init__(f"The log configuration {source!r} cannot be used: {why}. docs/operations.rst has an example.")


class InstanceRunning(HostError):
    """Another server works on the same state folder, or holds the port."""

    code = "instance_running"


class NoTokenYet(HostError):
    """The server would ask for tokens, there is none, and nobody would see a first one."""

    code = "no_token_yet"

    def __init__(self, address: str) -> None:
        super().__init__(
            f"On {address} this server asks for tokens, there is none yet, and what it prints goes into a log, where "
            "none belongs. Make one with `remote-lab token create NAME --right use --right admin` and start it again, "
            "or start it with --auth=open (REMOTE_LAB_AUTH=open) if whoever reaches the address may do everything."
        )


class DatabaseUnusable(HostError):
    """The database cannot be opened, written or upgraded."""

    code = "database_unusable"


class ProviderUnavailable(HostError):
    """This host cannot run labs with the wanted provider; the message says what is missing and how to get it."""

    code = "provider_unavailable"


class ImageUnavailable(HostError):
    """The root file system that labs run on is not there and could not be built."""

    code = "image_unavailable"
