"""The state folder as commands read it: who serves it, its database, the sessions and labs that an operator means."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from remote_lab.cli.output import age, plain, short_id
from remote_lab.config import Config
from remote_lab.errors import DatabaseUnavailable, DatabaseUnusable

if TYPE_CHECKING:
    from sqlalchemy.orm import Session as Transaction

    from remote_lab.core.overview import LabRecord, SessionRecord

SHORTEST_BEGINNING = 4
_BEGINNING = re.compile(r"[0-9a-f-]+")


def database_path(config: Config) -> Path:
    """The database file; DatabaseUnusable when the setting names none."""
    from remote_lab.core.db import Database

    return Path(str(Database(config.database).url.database))


def has_database(config: Config) -> bool:
    """Whether anything is on record; DatabaseUnusable when this user may not know."""
    path = database_path(config)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise DatabaseUnusable(
            f"The database {path} cannot be read: {error.strerror}. Become the user that the server runs as."
        ) from error
    return True


@contextmanager
def reading(config: Config) -> Iterator[Transaction]:
    """A read transaction; DatabaseUnusable when there is no database, or one of another version."""
    from sqlalchemy.exc import DBAPIError

    from remote_lab.core.db import Database

    path = database_path(config)
    if not has_database(config):
        raise DatabaseUnusable(
            f"Nothing is on record: {path} does not exist, so no server has run with this state folder. "
            "If one runs with another, name that in REMOTE_LAB_STATE_DIR."
        )
    database = Database(config.database)
    try:
        with database.read() as transaction:
            yield transaction
    except DBAPIError as error:
        raise DatabaseUnusable(
            f"The database {path} cannot be read: {error.orig}. If it is that of an older version, "
            "restart the server, or run `remote-lab db upgrade`."
        ) from error
    except DatabaseUnavailable as fault:
        raise DatabaseUnusable(f"The database {path} cannot be read: {fault}") from fault
    finally:
        database.dispose()


def find_session(transaction: Transaction, wanted: str) -> SessionRecord:
    """The session that an id, or at least four characters of its beginning, means.

    A live one is preferred to ended ones. ClickException when it is none, or not clear which.
    """
    from remote_lab.core import overview

    beginning = wanted.strip().lower()
    if len(beginning) < SHORTEST_BEGINNING or not _BEGINNING.fullmatch(beginning):
        raise click.ClickException(
            f"{wanted!r} is no session id: give it whole, or at least its first {SHORTEST_BEGINNING} characters. "
            "`remote-lab session list` shows them."
        )
    found = overview.sessions_like(transaction, beginning)
    chosen = [session for session in found if session.position is not None] or found
    if not chosen:
        raise click.ClickException(f"No session begins with {wanted!r}. `remote-lab session list --ended` shows all.")
    if len(chosen) > 1:
        ids = ", ".join(session.session_id for session in chosen)
        raise click.ClickException(f"More than one session begins with {wanted!r}: {ids}. Give more of it.")
    return chosen[0]


def find_live_session(transaction: Transaction, wanted: str) -> SessionRecord:
    """The same, but ClickException as well when that session has ended."""
    session = find_session(transaction, wanted)
    if session.position is None:
        raise click.ClickException(
            f"Session {session.session_id} ended {age(session.ended_at)} ago: {plain(session.end_reason)}."
        )
    return session


def find_lab(transaction: Transaction, wanted: str | None) -> LabRecord:
    """The lab that holds a slot and that a slot number, a session, or nothing if it is the only one, means.

    ClickException when it is none, or not clear which.
    """
    from remote_lab.core import overview

    live = overview.live_labs(transaction)
    if wanted is None:
        if not live:
            raise click.ClickException("No lab is up, booting or on its way down.")
        if len(live) > 1:
            raise click.ClickException(f"There is more than one lab: {_listed(live)}. Say which, by its slot.")
        return live[0]
    if wanted.isdecimal() and len(wanted) < SHORTEST_BEGINNING:
        chosen = next((lab for lab in live if lab.slot == int(wanted)), None)
        if chosen is None:
            raise click.ClickException(f"No lab is in slot {wanted}. {_there_are(live)}")
        return chosen
    session = find_session(transaction, wanted)
    if session.lab is None or not session.lab.is_live:
        raise click.ClickException(f"Session {short_id(session.session_id)} has no lab. {_there_are(live)}")
    return session.lab


def find_log(transaction: Transaction, wanted: str | None) -> LabRecord:
    """The same for its boot log: when no lab is up, the last one that there was; of a session, its last one."""
    from remote_lab.core import overview

    if wanted is None and not overview.live_labs(transaction):
        last = overview.last_labs(transaction, 1)
        if not last:
            raise click.ClickException("There has been no lab yet.")
        return last[0]
    if wanted is not None and not (wanted.isdecimal() and len(wanted) < SHORTEST_BEGINNING):
        session = find_session(transaction, wanted)
        if session.lab is not None:
            return session.lab
    return find_lab(transaction, wanted)


def _listed(live: Sequence[LabRecord]) -> str:
    return ", ".join(f"{plain(lab.topology)} in slot {lab.slot}" for lab in live)


def _there_are(live: Sequence[LabRecord]) -> str:
    return f"There is {_listed(live)}." if live else "There is none at all."
