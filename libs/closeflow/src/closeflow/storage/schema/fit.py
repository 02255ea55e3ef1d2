"""Whether a database's schema is one that this code works with: for readiness, and for waiting at the start.

Code works with the schema it was written for and with newer ones, until a migration takes away what it uses. Such a
migration (its `contract_since`) leaves in the database from which revision on code must have been written to go on.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

import structlog
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from closeflow.storage.core.away import is_away, reason
from closeflow.storage.core.engine import CommitUnknown, Database, DatabaseError, Transaction, sqlstate, transaction
from closeflow.tasks import GrowingPause

HEAD: Final = "0039"
"""The revision this code is written for: a constant, so that readiness needs no migration files."""

_UNDEFINED_TABLE: Final = "42P01"
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 5.0
_WORKS_FROM: Final = "works with releases from revision "
_LOOK: Final = text("SELECT version_num, obj_description('alembic_version'::regclass) FROM alembic_version")

log = structlog.get_logger(__name__)


def works_from_comment(revision: str) -> str:
    """What a migration that takes something away writes on the table alembic_version."""
    return f"{_WORKS_FROM}{revision}"


def misfit(revision: str | None, comment: str | None, *, head: str = HEAD) -> str | None:
    """Why code written for `head` cannot work with a schema at `revision`, with what mends it; None where it can."""
    if revision is None or revision < head:
        return f"the schema is at {revision or 'no revision'} and this release needs {head}; run the migrations first"
    found = re.fullmatch(f"{_WORKS_FROM}(\\w+)", comment or "")
    if found is not None and head < found[1]:
        return (
            f"the schema is at {revision}, which works with releases from {found[1]} on, and this one is of {head}; "
            "deploy a newer release"
        )
    return None


async def schema_trouble(tx: Transaction) -> str | None:
    """Why this code cannot work with the database of the transaction; None where it can."""
    try:
        row = (await tx.execute(_LOOK)).one_or_none()
    except ProgrammingError as error:
        if sqlstate(error) != _UNDEFINED_TABLE:
            raise
        return misfit(None, None)
    return misfit(*row) if row is not None else misfit(None, None)


async def database_trouble(database: Database) -> str | None:
    """What is wrong with the database; None when it answers and its schema fits."""
    try:
        async with transaction(database) as tx:
            return await schema_trouble(tx)
    except (DatabaseError, CommitUnknown, OSError) as error:
        return reason(error)


async def wait_until_schema_fits(database: Database, stop: asyncio.Event) -> bool:
    """True once the database answers and its schema fits; False when asked to stop before. A service that begins its
    work only then is started before the migrations without harm. Raises an error that does not pass by itself."""
    told: str | None = None
    pause = GrowingPause(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
    while not stop.is_set():
        try:
            async with transaction(database) as tx:
                trouble = await schema_trouble(tx)
        except Exception as error:
            if not is_away(error):
                raise
            trouble = reason(error)
        if trouble is None:
            return True
        if trouble != told:
            log.error("schema_awaited", reason=trouble)
            told = trouble
        try:
            async with asyncio.timeout(pause.next_s()):
                await stop.wait()
        except TimeoutError:
            continue
    return False
