"""Uploads on disk: names that stay inside, limits, one folder for each lab, nothing left behind.

    STATE_DIR/labs/LAB_ID/lab/       netlab's working directory: the topology and its extra files
    STATE_DIR/labs/LAB_ID/boot.log   everything netlab printed
    STATE_DIR/uploads/ID/lab/        the same files as they came with a session that waits, see `uploads.py`

A lab's id is chosen when its upload arrives; an upload that does not become a lab is discarded. What nobody knows (a
server that died in the middle of an upload) is swept.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import yaml

from remote_lab.errors import (
    StorageFull,
    TopologyMalformed,
    TopologyNameInvalid,
    UploadEmpty,
    UploadNameClash,
    UploadNameUnsafe,
    UploadTooLarge,
    UploadTooManyFiles,
)
from remote_lab.identity import lab_identity

MAX_NAME_BYTES = 255
MAX_YAML_DEPTH = 100
MAX_YAML_NODES = 1_000_000
_TOO_DEEP = f"is nested deeper than {MAX_YAML_DEPTH} levels"
_TOO_DEEP_FOR_LIBYAML = "exceeded maximum nesting depth"
"""What PyYAML 6.0.4 says at 1000 levels, which its scanner may reach before we have seen the first of them."""
MIN_FREE_BYTES = 16 * 2**20
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class UploadedFile:
    """One file of an upload as it came over the wire: the name its sender gave it and its bytes."""

    name: str
    stream: BinaryIO


@dataclass(frozen=True)
class Upload:
    """What a lab can be booted from, once it is written."""

    lab_id: str
    topology: str
    identity: str
    size_bytes: int = 0
    unwritten: Mapping[str, bytes] | None = field(default=None, repr=False)
    """Its files, where `store` has left them out."""


def safe_path(name: str) -> PurePosixPath:
    """Return an uploaded name as a path that stays in the working directory; UploadNameUnsafe with the reason."""
    if not name:
        raise UploadNameUnsafe(name, "it is empty")
    if any(not character.isprintable() for character in name):
        raise UploadNameUnsafe(name, "it has control characters")
    if "\N{REPLACEMENT CHARACTER}" in name:
        raise UploadNameUnsafe(name, "it is not UTF-8")
    if "\\" in name or re.match(r"[A-Za-z]:", name):
        raise UploadNameUnsafe(name, "it has a backslash or a drive letter")
    if name.startswith("/"):
        raise UploadNameUnsafe(name, "it is absolute")
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise UploadNameUnsafe(name, "it has an empty part, '.' or '..'")
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts) or len(name.encode()) > 4 * MAX_NAME_BYTES:
        raise UploadNameUnsafe(f"{name[:40]}...", "it is too long")
    return PurePosixPath(*parts)


def topology_path(name: str) -> PurePosixPath:
    """The same for a topology, which lies at the top of the working directory and is a YAML file."""
    path = safe_path(name)
    if path.suffix.lower() not in (".yml", ".yaml"):
        raise TopologyNameInvalid(name)
    if len(path.parts) > 1 or name.startswith("-"):
        raise UploadNameUnsafe(name, "a topology is a plain file name that does not begin with '-'")
    return path


def check_topology(name: str, content: bytes) -> None:
    """Raise TopologyMalformed unless the content is one YAML document with a mapping at its top.

    Only events are read and nothing is built from them, so that neither depth nor aliases cost anything here. Aliases
    that would cost netlab more than `MAX_YAML_NODES` are refused, and those that contain themselves.
    """
    documents = 0
    nodes = _NodeCounter(name)
    try:
        for event in yaml.parse(content, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _malformed(name, "has a second YAML document, keep one", event.start_mark)
            elif isinstance(event, yaml.CollectionEndEvent):
                nodes.end_collection()
            elif isinstance(event, yaml.NodeEvent):
                if nodes.depth == 0 and not isinstance(event, yaml.MappingStartEvent):
                    raise _malformed(name, "must be a mapping such as 'nodes: [r1, r2]'", event.start_mark)
                nodes.add(event)
    except yaml.MarkedYAMLError as error:
        what = _TOO_DEEP if error.problem == _TOO_DEEP_FOR_LIBYAML else f"is not YAML: {error.problem}"
        raise _malformed(name, what, error.problem_mark or error.context_mark) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _malformed(name, f"is not YAML: {error}", None) from error
    if documents == 0:
        raise _malformed(name, "has nothing but comments and blank lines", None)


class _NodeCounter:
    """How deep a document is nested, and how many nodes it would have with every alias written out."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._open: list[tuple[str | None, int]] = []
        self._sizes: dict[str, int] = {}
        self._size = 0

    @property
    def depth(self) -> int:
        return len(self._open)

    def add(self, event: Any) -> None:
        """Count a scalar, an alias, or the beginning of a collection; TopologyMalformed for one too many."""
        size = 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._sizes:
                raise _malformed(self._name, f"has no complete value named {event.anchor!r}", event.start_mark)
            size = self._sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            if event.anchor is not None:
                self._sizes.pop(event.anchor, None)  # an alias of it inside of it is one of nothing complete
            self._open.append((event.anchor, self._size))
            if self.depth > MAX_YAML_DEPTH:
                raise _malformed(self._name, _TOO_DEEP, event.start_mark)
        elif event.anchor is not None:
            self._sizes[event.anchor] = size
        self._size += size
        if self._size > MAX_YAML_NODES:
            what = f"has more than {MAX_YAML_NODES} values, each alias counted in full"
            raise _malformed(self._name, what, event.start_mark)

    def end_collection(self) -> None:
        """The innermost collection is complete."""
        anchor, before = self._open.pop()
        if anchor is not None:
            self._sizes[anchor] = self._size - before


def _malformed(name: str, what: str, mark: Any) -> TopologyMalformed:
    place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    return TopologyMalformed(f"Topology {name!r} {what}{place}.")


def storage_problem(folder: Path) -> str | None:
    """Why nothing more can be written to the disk of a folder, as a sentence; None when it can."""
    disk = os.statvfs(folder)
    if disk.f_flag & os.ST_RDONLY:
        return "The disk of the state folder is read-only: nothing can be recorded. See the host's kernel log."
    if disk.f_bavail * disk.f_frsize < MIN_FREE_BYTES:
        return f"The disk of the state folder has less than {MIN_FREE_BYTES // 2**20} MiB left. Make room on it."
    return None


class Workspaces:
    """The folders of all labs of one server, or of its uploads; safe to use from many threads."""

    def __init__(self, state_dir: Path, max_upload_bytes: int, max_upload_files: int, folder: str = "labs") -> None:
        self._root = state_dir / folder
        self._max_upload_bytes = max_upload_bytes
        self._max_upload_files = max_upload_files
        self._lock = threading.Lock()
        self._uploading: set[str] = set()

    def directory(self, lab_id: str) -> Path:
        """netlab's working directory of a lab."""
        return self._root / lab_id / "lab"

    def log(self, lab_id: str) -> Path:
        """The boot log of a lab."""
        return self._root / lab_id / "boot.log"

    def store(
        self, topology: UploadedFile, extra_files: Sequence[UploadedFile], known_identity: str | None = None
    ) -> Upload:
        """Check an upload and write it to a new folder; nothing stays when it is refused.

        One of the known identity is not written: it is hardly ever needed, and `write` does it then. Raises an
        UploadError that names the file. The caller says `keep` when the upload became a lab, and `release` in any case.
        """
        name = topology_path(topology.name)
        paths = self._extra_paths(name, extra_files)
        topology_bytes, budget = self._read(topology, self._max_upload_bytes)
        if not topology_bytes:
            raise UploadEmpty(topology.name)
        check_topology(topology.name, topology_bytes)
        contents: dict[str, bytes] = {}
        for path, extra in zip(paths, extra_files, strict=True):
            contents[str(path)], budget = self._read(extra, budget)
        identity, size_bytes = lab_identity(topology_bytes, contents), self._max_upload_bytes - budget
        files = {str(name): topology_bytes, **contents}
        upload = Upload(str(uuid.uuid4()), str(name), identity, size_bytes, files)
        if identity == known_identity:
            return upload
        self.write(upload)
        return replace(upload, unwritten=None)

    def write(self, upload: Upload) -> None:
        """Write what `store` has left out, if it has; StorageFull."""
        if upload.unwritten is None:
            return
        with self._lock:
            self._uploading.add(upload.lab_id)
        try:
            self._write(upload.lab_id, upload.unwritten)
        except BaseException as error:
            self.discard(upload.lab_id)
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise StorageFull(os.strerror(error.errno).lower()) from error
            raise

    def fill(self, lab_id: str, files: Path) -> None:
        """Make the folder of a lab that is on record, with a copy of these files; OSError."""
        shutil.copytree(files, self.directory(lab_id))
        self.log(lab_id).touch()

    def keep(self, upload: Upload) -> None:
        """The upload became a lab; from now on it lives as long as the database knows that."""
        with self._lock:
            self._uploading.discard(upload.lab_id)

    def release(self, upload: Upload) -> None:
        """Discard an upload unless it was kept."""
        with self._lock:
            kept = upload.lab_id not in self._uploading
        if not kept:
            self.discard(upload.lab_id)

    def discard(self, lab_id: str, keep_log: bool = False) -> None:
        """Remove a lab's folder, all but the boot log when `keep_log`; fine when it has gone."""
        folder = self.directory(lab_id) if keep_log else self._root / lab_id
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        else:  # or something that was never a lab's
            folder.unlink(missing_ok=True)
        with self._lock:
            self._uploading.discard(lab_id)

    def present(self) -> list[str]:
        """The ids of all labs that have a folder, uploads that are still deciding left out."""
        if not self._root.exists():
            return []
        folders = [folder.name for folder in self._root.iterdir()]
        with self._lock:
            return [name for name in folders if name not in self._uploading]

    def _extra_paths(self, topology: PurePosixPath, extra_files: Sequence[UploadedFile]) -> list[PurePosixPath]:
        if len(extra_files) > self._max_upload_files:
            raise UploadTooManyFiles(self._max_upload_files)
        paths = [safe_path(extra.name) for extra in extra_files]
        taken: set[PurePosixPath] = {topology}
        folders: set[PurePosixPath] = set()
        for path in paths:
            parents = set(path.parents)
            clash = next(iter(({path} & (taken | folders)) | (parents & taken)), None)
            if clash is not None:
                raise UploadNameClash(str(path), str(clash))
            taken.add(path)
            folders |= parents
        return paths

    def _read(self, file: UploadedFile, budget: int) -> tuple[bytes, int]:
        content = file.stream.read(budget + 1)
        if len(content) > budget:
            raise UploadTooLarge(self._max_upload_bytes)
        return content, budget - len(content)

    def _write(self, lab_id: str, files: Mapping[str, bytes]) -> None:
        directory = self.directory(lab_id)
        directory.mkdir(parents=True)
        for name, content in files.items():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        self.log(lab_id).touch()  # so that it can be followed from the first moment
