"""The live table of closes: redrawn on a terminal, a line per change elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from closeflow.domain.text import decimal_text
from closeflow.storage.core.engine import Database, transaction
from closeflow.storage.timeline import list_positions, list_requests

Rows = Sequence[Mapping[str, Any]]
POLL_S: Final = 0.1
FINAL: Final = frozenset({"completed", "failed"})
STYLES: Final = {"closed": "green", "closing": "yellow", "close_retryable": "magenta", "close_failed": "red"}


async def read_rows(database: Database) -> list[dict[str, Any]]:
    """Every position with its newest close request, by position id. Requests are read first: they end in the same
    transaction as their position, so the position of one that is final is never older than that."""
    async with transaction(database) as tx:
        requests = await list_requests(tx, status=None, position_id=None, limit=1000)
        positions = await list_positions(tx, account=None, status=None, after=0, limit=1000)
    newest: dict[int, dict[str, Any]] = {}
    for request in reversed(requests):
        newest[request["position_id"]] = request
    return [{**position, "request": newest.get(position["id"])} for position in positions]


def is_final(rows: Rows) -> bool:
    """Whether every position has a close and each of these is completed or failed."""
    return bool(rows) and all(row["request"] is not None and row["request"]["status"] in FINAL for row in rows)


class Progress:
    """Shows rows as they change, until they are final; `show` may be called as often as one likes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=10) if console.is_terminal else None
        self._told: dict[int, str] = {}

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, rows: Rows) -> None:
        """Redraw the table, or print a line for each position that changed."""
        if self._live is not None:
            self._live.update(_table(rows))
            return
        for row in rows:
            line = _line(row)
            if line != self._told.get(row["id"]):
                self._told[row["id"]] = line
                self._console.print(f"{_elapsed(row):>6}  {line}", highlight=False, soft_wrap=True)
        sys.stdout.flush()


def _table(rows: Rows) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("position", "symbol", "side", "quantity", "state", "attempt", "filled", "elapsed"):
        table.add_column(name, justify="right" if name in ("quantity", "attempt", "filled", "elapsed") else "left")
    for row in rows:
        request = row["request"]
        style = STYLES.get(row["status"], "")
        table.add_row(
            str(row["id"]),
            row["symbol"],
            request["side"] if request else "",
            decimal_text(row["opening_qty"]),
            f"[{style}]{row['status']}[/]" if style else row["status"],
            str(request["attempt"]) if request else "",
            decimal_text(request["filled_qty"]) if request else "",
            _elapsed(row),
        )
    return table


def _line(row: Mapping[str, Any]) -> str:
    request = row["request"]
    if request is None:
        return f"{row['id']} {row['symbol']:20} {decimal_text(row['opening_qty']):>10}  {row['status']}"
    filled = f"{decimal_text(request['filled_qty'])}/{decimal_text(request['target_qty'])}"
    reason = f"  ({request['reason']})" if request["reason"] else ""
    return (
        f"{row['id']} {row['symbol']:20} {request['side']:4} {decimal_text(row['opening_qty']):>10}  "
        f"{row['status']:15} attempt {request['attempt']}  filled {filled}{reason}"
    )


def _elapsed(row: Mapping[str, Any]) -> str:
    request = row["request"]
    if request is None:
        return ""
    end = request["completed_at"] or datetime.fromtimestamp(time.time(), UTC)
    return f"{(end - request['created_at']).total_seconds():.2f}s"
