"""`remote-lab serve`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from remote_lab.cli.group import Command
from remote_lab.config import AUTH_MODES, Config

LOG_LEVELS = click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False)


@click.command(cls=Command)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port to serve on.")
@click.option("--log-level", default="INFO", show_default=True, type=LOG_LEVELS, help="What to log, on stderr.")
@click.option(
    "--log-config", type=click.Path(path_type=Path), metavar="FILE", help="Log as this YAML file says (logging.config)."
)
@click.option(
    "--auth",
    type=click.Choice(AUTH_MODES, case_sensitive=False),
    help="Who may call: holders of a token, everybody (open), or as REMOTE_LAB_AUTH says.",
)
@click.option("--debug", is_flag=True, help="Log everything, and what netlab prints.")
def serve(host: str, port: int, log_level: str, log_config: Path | None, auth: str | None, debug: bool) -> None:
    """Serve sessions and labs until SIGTERM or Ctrl-C.

    On loopback it is open to everybody until the first token is made; elsewhere it asks for tokens, and prints the
    first one when there is none.

    Running labs stay for the next start.
    """
    from remote_lab import server

    config = Config.from_environment()
    if auth is not None:
        config = replace(config, auth=auth.lower())
    server.serve(config, host, port, log_level.upper(), log_config, debug)
