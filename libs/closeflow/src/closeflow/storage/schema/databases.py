"""Databases of a server that one person runs: made and dropped by the server's administrator."""

from __future__ import annotations

import psycopg
from psycopg import sql


def ensure_database(admin_dsn: str, name: str) -> bool:
    """Create the database unless it exists; returns whether it was made. `admin_dsn` names another database."""
    with psycopg.connect(admin_dsn, autocommit=True, application_name="closeflow-setup") as admin:
        if admin.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchone() is not None:
            return False
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return True


def drop_database(admin_dsn: str, name: str) -> None:
    """Drop the database with every session in it; one that does not exist is fine."""
    with psycopg.connect(admin_dsn, autocommit=True, application_name="closeflow-setup") as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
