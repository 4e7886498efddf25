"""Alembic's migrations of the server's database; in a wheel they are `remote_lab.migrations`."""
