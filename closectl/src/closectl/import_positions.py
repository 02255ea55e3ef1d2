"""`closectl positions import`: bring a file's positions in, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from closectl.symbols import spellings
from closeflow.domain.model import PositionStatus
from closeflow.storage.core.engine import Database, Transaction, retrying
from closeflow.storage.imported_positions import KnownPosition, NewPosition, insert_positions, known_positions


@dataclass(frozen=True, slots=True)
class Imported:
    """How many positions of the file are new, and how many were there already as the file has them."""

    added: int
    unchanged: int


class ImportRefused(Exception):
    """Positions of the file are here already with other content; nothing was written."""

    def __init__(self, conflicts: Sequence[str]) -> None:
        self.conflicts = tuple(conflicts)
        super().__init__("\n".join(conflicts))


def sort_out(rows: Sequence[NewPosition], known: Sequence[KnownPosition]) -> tuple[list[NewPosition], list[str]]:
    """Which rows are new, and which contradict what is here. A row that is here already, as opened, is neither: so the
    same file again changes nothing, whatever became of its positions since."""
    new: list[NewPosition] = []
    conflicts: list[str] = []
    for row in rows:
        found = _match(row, known)
        if found is None:
            new.append(row)
        elif difference := _difference(row, found):
            conflicts.append(f"position {found.id} ({row.account_id} {row.symbol}): {difference}")
    return new, conflicts


async def import_positions(database: Database, rows: Sequence[NewPosition], *, broker: str) -> Imported:
    """Insert what is new in one transaction; raises ImportRefused when anything contradicts what is here."""

    async def work(tx: Transaction) -> Imported:
        names = {(row.account_id, one) for row in rows for one in spellings(row.asset_type, row.symbol)}
        new, conflicts = sort_out(rows, await known_positions(tx, rows=rows, names=names))
        if conflicts:
            raise ImportRefused(conflicts)
        if new:
            await insert_positions(tx, broker=broker, rows=new)
        return Imported(added=len(new), unchanged=len(rows) - len(new))

    return await retrying(database, work)


def _match(row: NewPosition, known: Sequence[KnownPosition]) -> KnownPosition | None:
    if row.position_id is not None:
        by_id = next((one for one in known if one.id == row.position_id), None)
        open_one = _open_of(row, known)
        return by_id or open_one
    same_name = [one for one in known if _named_alike(row, one)]
    return _open_of(row, known) or next((one for one in reversed(same_name) if not _difference(row, one)), None)


def _open_of(row: NewPosition, known: Sequence[KnownPosition]) -> KnownPosition | None:
    for one in known:
        if _named_alike(row, one) and one.status is not PositionStatus.CLOSED:
            return one
    return None


def _named_alike(row: NewPosition, known: KnownPosition) -> bool:
    """One contract under two spellings is one position: some are here from before symbols were rewritten."""
    return row.account_id == known.account_id and known.symbol in spellings(row.asset_type, row.symbol)


def _difference(row: NewPosition, known: KnownPosition) -> str:
    """What of the row is not what is here; empty when all is the same."""
    for name, theirs, ours in (
        ("position_id", row.position_id or known.id, known.id),
        ("account_id", row.account_id, known.account_id),
        ("symbol", known.symbol if _named_alike(row, known) else row.symbol, known.symbol),
        ("asset_type", row.asset_type, known.asset_type),
        ("quantity", row.quantity, known.opening_quantity),
        ("multiplier", row.multiplier, known.multiplier),
        ("currency", row.currency, known.currency),
    ):
        if theirs != ours:
            return f"the file says {name} {theirs}, the position was opened with {ours}"
    return ""
