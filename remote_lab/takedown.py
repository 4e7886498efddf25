"""Takes down every lab of a state folder on which no server works: on record while that is possible, then in any case.

Whether labs are to go is decided by whoever calls this: `server.py` and `cli/stopped.py`.
"""

from __future__ import annotations

import logging

from sqlalchemy.exc import SQLAlchemyError

from remote_lab.app import create_app, create_runner
from remote_lab.config import Config
from remote_lab.core.instance import Instance
from remote_lab.core.manager import LabManager
from remote_lab.errors import LabTeardownFailed, RemoteLabError

log = logging.getLogger(__name__)

MARGIN_SECONDS = 10.0


def take_all_down(config: Config, reason: str) -> bool:
    """End all labs of this state folder, by the records and by what they are; False when something is left.

    Sessions go on without their labs. A database that cannot be used keeps no lab up: the next start finds it dead.
    """
    try:
        _take_down_on_record(config, reason)
    except (RemoteLabError, SQLAlchemyError, OSError) as error:
        log.error("Labs are ended without a record of it: %s", error)
    runner = create_runner(config)
    is_all_down = True
    for lab_id in runner.orphans(()):
        log.warning("Ending lab %s, which is not on record", lab_id)
        try:
            runner.end_orphan(lab_id)
        except LabTeardownFailed as error:
            log.error("%s", error)
            is_all_down = False
    runner.shutdown()
    return is_all_down


def _take_down_on_record(config: Config, reason: str) -> None:
    with Instance(config.state_dir).worker():
        manager: LabManager = create_app(config).extensions["remote_lab"]
        manager.boots.end_from_now_on(reason)
        try:
            manager.desk.take_down_all(reason)
        finally:
            manager.boots.end_all(reason, config.teardown_seconds + MARGIN_SECONDS)
            manager.database.dispose()
