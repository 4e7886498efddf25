"""Assembles the application from its rooms; starts no thread and opens no file."""

from __future__ import annotations

from flask import Flask

from remote_lab import web
from remote_lab.cli import commands
from remote_lab.config import Config
from remote_lab.core.access import Access, Entry
from remote_lab.core.boots import LabRunner
from remote_lab.core.db import Database
from remote_lab.core.manager import LabManager
from remote_lab.core.reaper import Reaper
from remote_lab.netlab.limits import lab_limits
from remote_lab.netlab.runner import Runner

JSON_BYTES = 64 * 1024
"""Of any body but an upload."""
FORM_OVERHEAD_BYTES = 64 * 1024
FORM_FIELDS = 8


def create_runner(config: Config) -> Runner:
    """The netlab runner that a configuration asks for."""
    return Runner(
        provider=config.provider,
        netlab=config.netlab,
        image=config.image,
        image_dir=config.image_dir,
        image_mirror=config.image_mirror,
        state_dir=config.state_dir,
        management_pool=config.management_pool,
        boot_seconds=config.boot_seconds,
        teardown_seconds=config.teardown_seconds,
        limits=lab_limits(
            slots=config.slots + config.ahead,
            memory_mib=config.lab_memory_mib,
            processes=config.lab_processes,
            disk_mib=config.lab_disk_mib,
        ),
        stream_output=config.stream_output,
    )


def create_app(config: Config | None = None, runner: LabRunner | None = None, entry: Entry | None = None) -> Flask:
    """Return the WSGI application; without arguments the environment configures it, and without `entry` it is open.

    `remote_lab.server` starts the reaper (`app.extensions["remote_lab_reaper"]`) and what else must run beside it.
    """
    config = config or Config.from_environment()
    app = Flask("remote_lab")
    app.json.sort_keys = False  # type: ignore[attr-defined]  # netlab's order of keys is what users compare
    app.config["MAX_CONTENT_LENGTH"] = JSON_BYTES
    app.config["MAX_UPLOAD_LENGTH"] = config.max_upload_bytes + FORM_OVERHEAD_BYTES
    app.config["MAX_FORM_PARTS"] = config.max_upload_files + FORM_FIELDS
    database = Database(config.database)
    manager = LabManager(config, database, runner or create_runner(config), Access(database, entry))
    app.extensions["remote_lab"] = manager
    app.extensions["remote_lab_reaper"] = Reaper(manager)
    web.register(app)
    for command in commands.commands.values():
        app.cli.add_command(command)
    return app
