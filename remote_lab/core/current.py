"""The lab that each active session has, asked of the database once for each change of labs.

The board counts those changes. So a call for a lab that runs finds out for no query whose it is and what runs there;
what it does about it is decided by the database, as ever.
"""

from __future__ import annotations

from dataclasses import dataclass

from remote_lab.core import labs, sessions
from remote_lab.core.board import Board
from remote_lab.core.db import Database
from remote_lab.states import LabState


@dataclass(frozen=True)
class CurrentLab:
    """A lab that boots or runs."""

    topology: str
    identity: str
    is_running: bool


class CurrentLabs:
    """Safe to ask from many threads."""

    def __init__(self, database: Database, board: Board) -> None:
        self._database = database
        self._board = board
        self._known: tuple[int, dict[str, CurrentLab | None]] = (0, {})
        """What was found since the last change of labs or of who is active, by session; and the number of that."""

    def of(self, session_id: str) -> CurrentLab | None:
        """The session's lab; SessionNotFound or SessionWaiting unless it may use labs now."""
        sight = self._board.sight(session_id)
        turn, known = self._known
        if sight is not None and sight.entry.is_active and turn == sight.turn and session_id in known:
            return known[session_id]
        with self._database.read() as transaction:
            lab = labs.of_session(transaction, sessions.get_active(transaction, session_id))
            found = None if lab is None else CurrentLab(lab.topology, lab.identity, lab.state == LabState.RUNNING)
        if sight is not None:
            # What was read is as new as what the board has shown before, or newer.
            if turn != sight.turn:
                known = {}
                self._known = (sight.turn, known)
            known[session_id] = found
        return found
