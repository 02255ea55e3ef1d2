"""Runs the migrations over one connection: the one in `config.attributes["connection"]`, or to POSTGRES_ADMIN_DSN.

The second way serves the alembic command line only; everything else calls closeflow.storage.schema.migrate.
"""

import os
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql.base import ischema_names

from closeflow.storage.schema.column_types import Xid8
from closeflow.storage.schema.fit import works_from_comment
from closeflow.storage.schema.migrate import admin_engine, migrating
from closeflow.storage.schema.tables import metadata

ischema_names.setdefault("xid8", Xid8)


def is_described(name: str | None, type_: str, parent_names: MutableMapping[Any, Any]) -> bool:
    """The outbox's daily partitions are made by a function, not by a migration; tests read them from the catalog."""
    return not (type_ == "table" and name is not None and name.startswith("outbox_events_"))


def note_what_still_works(
    ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]
) -> None:
    """A migration that takes away what older code uses says so by its `contract_since`: the revision from which on code
    works without it. The database keeps the highest of those applied, where services look for it (schema/fit.py)."""
    scripts = {one.revision: one.module for one in context.script.walk_revisions()}
    if not any(hasattr(scripts[one], "contract_since") for one in step.up_revision_ids):
        return
    applied = [module for one, module in scripts.items() if one <= max(step.destination_revision_ids, default="")]
    since = [str(module.contract_since) for module in applied if hasattr(module, "contract_since")]
    comment = f"'{works_from_comment(max(since))}'" if since else "NULL"
    if ctx.connection is not None:
        ctx.connection.execute(text(f"COMMENT ON TABLE alembic_version IS {comment}"))


def run(connection: Connection) -> None:
    """Run the wanted revisions, each in a transaction of its own, so that one that fails leaves those before it."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_name=is_described,
        compare_type=True,
        transaction_per_migration=True,
        on_version_apply=note_what_still_works,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with admin_engine(os.environ["POSTGRES_ADMIN_DSN"]) as engine, migrating(engine) as connection:
        run(connection)
