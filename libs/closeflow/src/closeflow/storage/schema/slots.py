"""The connector's replication slot, for whoever registers or removes a connector; services ask `replication_slot`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

_ACTIVE: Final = "SELECT active FROM pg_replication_slots WHERE slot_name = %s AND database = %s"
_COPIES_SLOTS: Final = 170_000


@contextmanager
def slot_looks(dsn: str, *, slot: str, database: str) -> Iterator[Callable[[], bool | None]]:
    """Ask again and again, over one connection of any login: whether the slot is active, None when it is not there.
    Raises DriverError."""
    with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:

        def look() -> bool | None:
            found = connection.execute(_ACTIVE, (slot, database)).fetchone()
            return None if found is None else bool(found[0])

        yield look


def copies_slots(dsn: str) -> bool:
    """Whether the server can copy logical slots to standbys, as those of PostgreSQL 17 on. Raises DriverError."""
    with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
        return connection.info.server_version >= _COPIES_SLOTS


@contextmanager
def slot_dropping(dsn: str, *, slot: str, database: str) -> Iterator[Callable[[], bool]]:
    """Try to drop the slot, again and again, as the database's owner: true when it is gone. Raises DriverError."""
    with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:

        def gone() -> bool:
            found = connection.execute(_ACTIVE, (slot, database)).fetchone()
            if found is not None and not found[0]:
                try:
                    connection.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
                except psycopg.errors.ObjectInUse:
                    pass  # taken again by a task that is just stopping: look again
            return found is None

        yield gone
