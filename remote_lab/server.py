"""Serves the application: gunicorn with one worker, and what begins and ends with it.

The arbiter checks everything that could stop the start, prepares the host for labs and the database, and forks the
worker. The worker takes over what an earlier server left, starts the reaper, and on SIGTERM or SIGINT ends boots, so
that the requests which wait for them are told. Running labs stay: the next server adopts them.
"""

from __future__ import annotations

import gc
import logging
import logging.config
import math
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from flask import Flask
from gunicorn.app.base import BaseApplication

from remote_lab import __version__
from remote_lab.app import create_app, create_runner
from remote_lab.config import NEVER, Config
from remote_lab.connections import connections_for, raise_open_files
from remote_lab.core.access import Entry
from remote_lab.core.db import Database
from remote_lab.core.instance import Instance
from remote_lab.core.manager import LabManager
from remote_lab.core.reaper import Reaper
from remote_lab.core.schema import bring_up_to_date
from remote_lab.entrance import Entrance, close_entrance
from remote_lab.errors import DatabaseUnavailable, InstanceRunning, LogConfigInvalid
from remote_lab.logs import check_logging_config, logging_config
from remote_lab.netlab.runner import Runner
from remote_lab.notify import ServiceManager
from remote_lab.takedown import take_all_down
from remote_lab.web.fast import FastAnswers
from remote_lab.worker import Log, Worker

log = logging.getLogger(__name__)

GRACEFUL_SECONDS = 30
WORKER_SILENCE_SECONDS = 120
BACKLOG = 4096
"""Connections that wait in the kernel to be taken; Linux's own limit (net.core.somaxconn) may be lower."""
STOPPING = "the server is stopping"


def serve(
    config: Config,
    host: str,
    port: int,
    log_level: str = "INFO",
    log_config: Path | None = None,
    debug: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT; raises a HostError, before the host is touched, when that cannot work.

    `log_config` is a YAML file for `logging.config` and takes the place of `log_level`. `debug` logs everything, and
    what netlab prints as it comes.
    """
    set_up_logging("DEBUG" if debug else log_level, log_config)
    if debug:
        config = replace(config, stream_output=True)
    connections = connections_for(raise_open_files(), config.threads)
    arbiter = os.getpid()
    service_manager = ServiceManager.from_environment()
    runner = create_runner(config)
    database = Database(config.database)
    instance = Instance(config.state_dir)
    instance.take(f"{host}:{port}")
    has_begun = False
    try:
        with instance.worker():
            listener = bind(host, port)
            entrance = Entrance(config, listener.getsockname()[:2])
            provider = runner.prepare()
            bring_up_to_date(database)
            entry = entrance.open(database)
            database.dispose()  # connections must not go over the fork
        log.info("Remote Lab Manager %s on http://%s:%d, labs by %s", __version__, host, port, provider)
        has_begun = True
        _spare_the_collector()
        Server(config, runner, instance, listener, connections, service_manager, entry).run()
    finally:
        if os.getpid() == arbiter:  # the forked worker leaves through here as well
            if has_begun and config.keep_labs == NEVER:
                take_all_down(config, STOPPING)
            runner.shutdown()
            close_entrance(config)
            instance.give_back()


def _spare_the_collector() -> None:
    """Let the garbage collector, disabled so far by `main`, look at what comes from now on, and never at what stays.

    The pages of what it does not touch remain those of arbiter and worker (docs.python.org/3/library/gc.html, freeze).
    """
    gc.freeze()
    gc.enable()


def set_up_logging(level: str, log_config: Path | None) -> None:
    """Log as the YAML file says, or everything from a level on to stderr; LogConfigInvalid with the reason."""
    if log_config is None:
        logging.config.dictConfig(logging_config(level))
        return
    source = str(log_config)
    try:
        settings = check_logging_config(source, yaml.safe_load(log_config.read_bytes()))
        logging.config.dictConfig(settings)
    except OSError as error:
        raise LogConfigInvalid(source, f"{error.strerror} ({error.filename})") from error
    except yaml.YAMLError as error:
        raise LogConfigInvalid(source, f"it is not YAML: {' '.join(str(error).split())}") from error
    except (ValueError, TypeError, AttributeError, ImportError) as error:
        reasons = f"{error}: {error.__cause__}" if error.__cause__ else str(error)
        raise LogConfigInvalid(source, reasons) from error


def bind(host: str, port: int) -> socket.socket:
    """Take the address without listening yet; InstanceRunning when somebody has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise InstanceRunning(
            f"Cannot serve on {host}:{port}: {error.strerror}. Choose another address with --host and --port."
        ) from error
    return listener


class Service:
    """What runs beside the application in the worker, from its first moment to its last."""

    def __init__(self, app: Flask, instance: Instance, service_manager: ServiceManager) -> None:
        self._manager: LabManager = app.extensions["remote_lab"]
        self._reaper: Reaper = app.extensions["remote_lab_reaper"]
        self._instance = instance
        self._service_manager = service_manager
        self._held = ExitStack()
        self.stopping = threading.Event()
        self._stopper = threading.Thread(target=self._stop, name="stopper", daemon=True)

    def start(self) -> None:
        """Take over what an earlier server left, begin the background work, and say that requests may come."""
        self._held.enter_context(self._instance.worker())
        self._reaper.recover()
        self._service_manager.ready()
        self._reaper.start(self._report, (self._service_manager.watchdog_seconds or math.inf) / 2)
        self._stopper.start()

    def _report(self) -> None:
        if self._service_manager.address is None:
            return
        try:
            now = self._manager.health()
            status = f"{len(now.labs)} of {now.slots} slots have a lab, queue length {now.queue_length}"
        except Exception as error:  # noqa: BLE001 - whatever is wrong is in the log and in /healthz; it does not end the loop
            status = f"The database does not answer ({type(error).__name__})"
        self._service_manager.alive(status)

    def join(self) -> None:
        """Wait until everything has ended after `stopping` was set, and let the next server begin."""
        self.stopping.set()
        self._stopper.join(GRACEFUL_SECONDS)
        names = self._manager.inspection.running_labs()
        if names and self._manager.config.keep_labs != NEVER:
            log.info(
                "These labs keep running until the next start adopts them, or `remote-lab lab destroy --all`: %s",
                ", ".join(names),
            )
        self._manager.database.dispose()
        self._held.close()

    def announce_end(self) -> None:
        """The worker is about to end: whoever waits for a boot is told."""
        self.stopping.set()

    def _stop(self) -> None:
        self.stopping.wait()
        self._service_manager.stopping()
        self._manager.database.changes.close()
        self._reaper.stop()
        self._manager.boots.end_all(STOPPING, GRACEFUL_SECONDS)
        with suppress(DatabaseUnavailable):
            self._manager.access.write_uses(at_once=True)


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn, configured by our settings alone: no second worker (it would be a second reaper), no preloading."""

    def __init__(
        self,
        config: Config,
        runner: Runner,
        instance: Instance,
        listener: socket.socket,
        connections: int,
        service_manager: ServiceManager,
        entry: Entry,
    ) -> None:
        self._config = config
        self._entry = entry
        self._runner = runner
        self._instance = instance
        self._service_manager = service_manager
        self._settings: dict[str, Any] = {
            "bind": f"fd://{listener.fileno()}",
            "workers": 1,
            "worker_class": Worker,
            "threads": config.threads,
            "worker_connections": connections,
            "backlog": BACKLOG,
            "graceful_timeout": GRACEFUL_SECONDS,
            "timeout": WORKER_SILENCE_SECONDS,
            "sendfile": False,  # it passes by those who watch how an answer is taken
            "logger_class": Log,
            "proc_name": "remote-lab",
            "post_worker_init": self._worker_began,
            "worker_exit": self._worker_ends,
        }
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._settings.items():
            self.cfg.set(name, value)

    def load(self) -> Callable[..., Any]:
        return create_app(self._config, self._runner, self._entry)

    def _worker_began(self, worker: Worker) -> None:
        signal.signal(signal.SIGINT, worker.handle_exit)
        worker.service = Service(self.wsgi(), self._instance, self._service_manager)
        worker.service.start()
        worker.fast = FastAnswers(self.wsgi())
        _spare_the_collector()
        if self._config.spare_sandbox:
            self._runner.keep_spare()

    def _worker_ends(self, _server: Any, worker: Worker) -> None:
        if worker.service is not None:
            worker.service.join()
        self._runner.drop_spare()
