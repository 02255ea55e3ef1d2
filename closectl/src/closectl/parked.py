"""`closectl parked`: records that consumers keep until what they are about is in the database."""

from __future__ import annotations

from typing import Annotated

import typer

from closectl.arguments import AsJson, Limit, named
from closectl.command_line import examples
from closectl.environment import with_database
from closectl.output import print_json, print_rows
from closeflow.storage.core.engine import Database, transaction
from closeflow.storage.core.statements import Row
from closeflow.storage.parked_records import list_parked

parked = typer.Typer(no_args_is_help=True, help="Parked records: kept until their order, request or values are known.")


@parked.command("list", epilog=examples("parked list --topic broker-fill"))
def list_(
    topic: Annotated[str | None, named("Only records of this topic, such as broker-fill.")] = None,
    released: Annotated[bool, typer.Option("--released", help="Also those that were published again.")] = False,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List parked records, the newest first.

    The reconciler publishes them again by itself: once their order or request is in the database, once the incident is
    closed where the database refused them, and once it knows the value that a newer writer gave them.
    """

    async def work(database: Database) -> list[Row]:
        async with transaction(database) as tx:
            return await list_parked(tx, topic=topic, released=released, limit=limit)

    rows = with_database(work)
    if as_json:
        print_json(rows)
        return
    columns = ("topic", "partition", "offset", "parked_at", "client_order_id", "reason")
    print_rows(rows, (*columns, "released_at") if released else columns)
