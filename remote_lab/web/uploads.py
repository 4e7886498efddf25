"""Files that come with a request: let in before anything of them is read, and handed on as the core takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from flask import current_app, request
from werkzeug.datastructures import FileStorage

from remote_lab.callers import USE
from remote_lab.core.workspace import UploadedFile
from remote_lab.web.auth import caller, require
from remote_lab.web.gate import manager


def admit_upload() -> None:
    """Before anything of an upload is read: let it be as long as uploads may be, as far as its sender has any left."""
    request.max_content_length = current_app.config["MAX_UPLOAD_LENGTH"]
    require(USE)
    manager().uploads.take_bytes(caller(), request.content_length)


def uploaded(topology: FileStorage, extra_files: Sequence[FileStorage]) -> tuple[UploadedFile, list[UploadedFile]]:
    """The topology and its extra files, counted against what their sender may upload."""
    manager().uploads.take_files(caller(), 1 + len(extra_files))
    return _file(topology), [_file(part) for part in extra_files]


def _file(part: FileStorage) -> UploadedFile:
    return UploadedFile(part.filename or "", cast(Any, part.stream))
