"""Write what decisions changed: one statement per table and set of changed columns, whatever the number of books.

Only changed columns are written, so a service needs no grant on a column that is another's to change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

from sqlalchemy import Table, TextClause
from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.domain.model import Book, Order
from closeflow.domain.position import overfill
from closeflow.domain.transitions import IllegalMove, illegal_moves
from closeflow.storage.book import mapping
from closeflow.storage.book.overfill_positions import Held, hold_overfills
from closeflow.storage.core.bulk import Row, insert_many, rows_json, update_rows
from closeflow.storage.core.statements import write
from closeflow.storage.schema import tables

_K = TypeVar("_K")
_T = TypeVar("_T")
Change = tuple[Book, Book]


class MoveRefused(Exception):
    """A decision tried a move that no row of the transition table allows; nothing was written."""

    def __init__(self, moves: Sequence[IllegalMove]) -> None:
        super().__init__("; ".join(map(str, moves)))
        self.moves = tuple(moves)


async def save_books(tx: AsyncConnection, *, changes: Sequence[Change]) -> Held:
    """Write the difference between each book as loaded and as decided; raises MoveRefused before writing anything.

    What the tagged positions hold afterwards is returned, for `closeflow.unit_of_work` to follow it."""
    refused = [move for before, after in changes for move in illegal_moves(before, after)]
    if refused:
        raise MoveRefused(refused)
    orders = [pair for before, after in changes for pair in _pairs(before.orders, after.orders)]
    requests = [pair for before, after in changes for pair in _pairs(before.requests, after.requests)]
    await _write(tx, tables.close_requests, ("id",), requests, mapping.request_row)
    positions = [(before.position, after.position) for before, after in changes]
    await _write(tx, tables.positions, ("id",), positions, lambda one: {"id": one.id, **mapping.position_row(one)})
    await _write(tx, tables.orders, ("client_order_id",), orders, mapping.order_row)
    await _write_facts(tx, orders)
    beyond = {
        after.position.id: overfill.beyond_zero(after)
        for before, after in changes
        if overfill.beyond_zero(before) != overfill.beyond_zero(after)
    }
    return await hold_overfills(tx, overfills=beyond)


async def _write_facts(tx: AsyncConnection, orders: Sequence[tuple[Order | None, Order]]) -> None:
    executions: list[Row] = []
    aliases: list[Row] = []
    withheld: list[Row] = []
    charges: list[Row] = []
    statements: list[Row] = []
    sends: list[Row] = []
    for before, after in orders:
        known = {one.exec_id for one in before.executions} if before else set()
        executions += [mapping.execution_row(one, order=after) for one in after.executions if one.exec_id not in known]
        brokers = {one.exec_id: one.broker for one in after.executions}
        aliases += [
            {"broker": brokers[exec_id], "account_id": after.account_id, "alias_id": alias, "exec_id": exec_id}
            for alias, exec_id in after.aliases.items()
            if before is None or alias not in before.aliases
        ]
        old_withheld = before.withheld if before else ()
        withheld += [mapping.withheld_row(one, order=after) for one in after.withheld if one not in old_withheld]
        old_charges = before.charges if before else ()
        charges += [mapping.charge_row(one, order=after) for one in after.charges if one not in old_charges]
        old_statements = before.statements if before else ()
        statements += [mapping.statement_row(one, order=after) for one in after.statements if one not in old_statements]
        old_sends = before.sends if before else ()
        sends += [mapping.send_row(one, order=after) for one in after.sends if one not in old_sends]
    await insert_many(tx, tables.executions, executions)
    await insert_many(tx, tables.execution_aliases, aliases)
    await insert_many(tx, tables.withheld_executions, withheld)
    await insert_many(tx, tables.execution_charges, charges)
    await insert_many(tx, tables.order_statements, statements, key=("client_order_id", "kind"))
    await insert_many(tx, tables.order_sends, sends, key=("client_order_id", "kind", "n"))


def _pairs(before: Mapping[_K, _T], after: Mapping[_K, _T]) -> list[tuple[_T | None, _T]]:
    return [(before.get(key), one) for key, one in after.items() if before.get(key) is not one]


async def _write(
    tx: AsyncConnection,
    table: Table,
    key: tuple[str, ...],
    pairs: Iterable[tuple[_T | None, _T]],
    row_of: Callable[[_T], Row],
) -> None:
    """Insert what is new; update what changed, grouped by which columns did."""
    new: list[Row] = []
    changed: defaultdict[tuple[str, ...], list[Row]] = defaultdict(list)
    for before, after in pairs:
        row = row_of(after)
        if before is None:
            new.append(row)
            continue
        old = row_of(before)
        columns = tuple(name for name, value in row.items() if value != old[name])
        if columns:
            changed[columns].append({name: row[name] for name in (*key, *columns)})
    await insert_many(tx, table, new)
    for columns, rows in changed.items():
        await write(tx, _update(table, key, columns), rows_json(rows), exactly=len(rows))


# Which columns change is known only at run time, so these statements are built at first use and kept.
@lru_cache(maxsize=512)
def _update(table: Table, key: tuple[str, ...], columns: tuple[str, ...]) -> TextClause:
    return update_rows(table, key, columns)
