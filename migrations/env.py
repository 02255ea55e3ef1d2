"""Runs the migrations over one connection: the one in `config.attributes["connection"]`, or to POSTGRES_ADMIN_DSN.

The second way serves the alembic command line only; everything else calls closeflow.storage.schema.migrate.
"""

import os
from collections.abc import MutableMapping
from typing import Any

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql.base import ischema_names

from closeflow.storage.schema.column_types import Xid8
from closeflow.storage.schema.migrate import admin_engine, migrating
from closeflow.storage.schema.tables import metadata

ischema_names.setdefault("xid8", Xid8)


def is_described(name: str | None, type_: str, parent_names: MutableMapping[Any, Any]) -> bool:
    """The outbox's daily partitions are made by a function, not by a migration; tests read them from the catalog."""
    return not (type_ == "table" and name is not None and name.startswith("outbox_events_"))


def run(connection: Connection) -> None:
    """Run the wanted revisions, each in a transaction of its own, so that one that fails leaves those before it."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_name=is_described,
        compare_type=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with admin_engine(os.environ["POSTGRES_ADMIN_DSN"]) as engine, migrating(engine) as connection:
        run(connection)
