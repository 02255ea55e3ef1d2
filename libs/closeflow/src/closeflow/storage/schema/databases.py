"""Databases: where one is, and made and dropped by the administrator of a server that one person runs."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is."""

    host: str
    port: int
    database: str


def address_of(dsn: str) -> Address:
    """Where the database of a DSN is. Raises DriverError for what is none."""
    parts = conninfo_to_dict(dsn)
    return Address(str(parts.get("host", "127.0.0.1")), int(str(parts.get("port", 5432))), str(parts["dbname"]))


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
