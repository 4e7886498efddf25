"""The command line: `remote-lab`, and the same commands on `flask --app wsgi`. A file for each group of commands.

Commands read the database themselves, whether a server runs or not (`records.py`), and change things through the server
when one runs, otherwise by doing what it would do (`changes.py`). Rules of the queue and of labs are not here.
"""

from __future__ import annotations

from remote_lab.cli.config import config
from remote_lab.cli.db import db
from remote_lab.cli.doctor import doctor
from remote_lab.cli.group import commands
from remote_lab.cli.history import history
from remote_lab.cli.image import image
from remote_lab.cli.lab import lab
from remote_lab.cli.serve import serve
from remote_lab.cli.session import session
from remote_lab.cli.status import status
from remote_lab.cli.stopped import stopped
from remote_lab.cli.token import token
from remote_lab.cli.topology import topology

__all__ = ["commands"]

for command in (serve, status, token, session, history, lab, topology, doctor, config, db, image, stopped):
    commands.add_command(command)
