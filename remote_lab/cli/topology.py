"""`remote-lab topology`: what an upload would get."""

from __future__ import annotations

import logging.config
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from remote_lab.cli import output
from remote_lab.cli.group import Group, json_option
from remote_lab.cli.lab import print_devices
from remote_lab.config import Config
from remote_lab.errors import LabBootFailed, RemoteLabError
from remote_lab.logs import logging_config

if TYPE_CHECKING:
    from remote_lab.netlab.runner import Device, Runner

readable = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(cls=Group)
def topology() -> None:
    """Topology files."""


@topology.command()
@click.argument("file", type=readable)
@click.argument("extra_files", metavar="[EXTRA]...", type=readable, nargs=-1)
@json_option
def check(file: Path, extra_files: tuple[Path, ...], as_json: bool) -> None:
    """Show the devices that FILE would get, or why an upload of it would be refused.

    Nothing boots, nobody's turn is taken, and no server is needed. An EXTRA file keeps its folders below that of FILE.
    """
    try:
        devices = _check(Config.from_environment(), file, extra_files)
    except RemoteLabError as error:
        if not isinstance(error, LabBootFailed):
            phase, log_tail = None, None
        else:
            phase, log_tail = error.phase, error.log_tail
        if as_json:
            refusal = {"detail": error.detail, "code": error.code, "phase": phase, "log_tail": log_tail}
            output.print_json({"accepted": False, "devices": [], **refusal})
        else:
            if log_tail:
                click.echo(output.harmless(log_tail).rstrip("\n"), err=True)
            click.echo(f"Refused ({error.code}): {error.detail}", err=True)
        raise SystemExit(1) from error
    found = [{"name": device.name, "raw": device.raw} for device in devices]
    if as_json:
        output.print_json({"accepted": True, "devices": found})
        return
    print_devices(found, with_address=False)
    click.echo(f"\n{output.plain(file)} would boot {len(found)} device{'' if len(found) == 1 else 's'}.")


def _check(config: Config, file: Path, extra_files: Sequence[Path]) -> list[Device]:
    """Do what an upload does up to its boot, in a state folder of its own, so that no server takes it for its own."""
    from remote_lab.app import create_runner
    from remote_lab.core.workspace import UploadedFile, Workspaces
    from remote_lab.netlab.runner import LabPlace

    with ExitStack() as stack:
        folder = stack.enter_context(_own_state_dir(config))
        uploads = [
            UploadedFile(name, stack.enter_context(opened(path)))
            for name, path in ((file.name, file), *((extra_name(file, extra), extra) for extra in extra_files))
        ]
        workspaces = Workspaces(folder, config.max_upload_bytes, config.max_upload_files)
        for lab_id in workspaces.present():
            workspaces.discard(lab_id)
        upload = workspaces.store(uploads[0], uploads[1:])
        stack.callback(workspaces.discard, upload.lab_id)
        runner = create_runner(replace(config, state_dir=folder))
        stack.enter_context(prepared(runner, config))
        for lab_id in runner.orphans(()):
            runner.end_orphan(lab_id)
        place = LabPlace(
            lab_id=upload.lab_id,
            slot=1,
            directory=workspaces.directory(upload.lab_id),
            topology=upload.topology,
            log=workspaces.log(upload.lab_id),
        )
        return runner.check(place)


@contextmanager
def prepared(runner: Runner, config: Config) -> Iterator[None]:
    """What labs need, also what this kernel lacks is known; undone unless a server has set it up for itself."""
    from remote_lab.core.instance import find_holder

    # Only this is worth a line: building the image takes half a minute.
    logging.config.dictConfig(logging_config("WARNING"))
    logging.getLogger("remote_lab.netlab.image").setLevel("INFO")
    serves = find_holder(config.state_dir) is not None
    runner.prepare()
    try:
        yield
    finally:
        if not serves:
            runner.shutdown()


@contextmanager
def _own_state_dir(config: Config) -> Iterator[Path]:
    """A folder on the file system that labs have theirs on, for one check at a time.

    It is always the same, so that a check finds and ends what an earlier one left that was killed. Where there is no
    state folder that this user may write, it is a temporary one.
    """
    from filelock import FileLock

    folder = config.state_dir / "check"
    if config.state_dir.is_dir() and os.access(config.state_dir, os.W_OK | os.X_OK):
        folder.mkdir(mode=0o700, exist_ok=True)
        with FileLock(folder / "lock"):
            yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="remote-lab-check-") as temporary:
            yield Path(temporary)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file to upload; ClickException when it cannot be read."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {error.strerror}.") from error
    with stream:
        yield stream


def extra_name(file: Path, extra: Path) -> str:
    """The name that an extra file has in the upload: below the topology's folder its path there, else its own name."""
    below = Path(os.path.relpath(extra, file.parent))  # as it is written: links are not followed
    return extra.name if below.parts[0] == os.pardir else str(below)
