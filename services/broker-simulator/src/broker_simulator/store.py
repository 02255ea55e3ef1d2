"""The broker's memory on disk: SQLite, one writer, one transaction per thing that happens.

Everything is committed before an answer or a trade update leaves. `synchronous=OFF` is enough for what is promised:
a commit is in the operating system's hands, so it survives kill -9 of this process (not a power failure), and no
fsync stalls the event loop. The exclusive lock keeps a second simulator off the same file.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from .behaviour import Rule
from .orders import Execution, Order
from .positions import Position

_ORDER: Final = TypeAdapter(Order)
_EXECUTION: Final = TypeAdapter(Execution)
_POSITION: Final = TypeAdapter(Position)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS orders (
    id TEXT PRIMARY KEY, submitted_us INTEGER NOT NULL, state BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS executions (id TEXT PRIMARY KEY, at_us INTEGER NOT NULL, state BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (symbol TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS receipts (
    n INTEGER PRIMARY KEY, client_order_id TEXT, at_us INTEGER NOT NULL, body TEXT NOT NULL, outcome TEXT NOT NULL,
    order_id TEXT);
CREATE INDEX IF NOT EXISTS receipts_client_order_id ON receipts (client_order_id);
CREATE TABLE IF NOT EXISTS rules (id INTEGER PRIMARY KEY, remaining INTEGER, state BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_TABLES: Final = ("orders", "executions", "positions", "receipts", "rules", "settings")


class StateInUse(RuntimeError):
    """Another process holds the state file, or it cannot be opened."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One `POST /v2/orders` as it arrived. `outcome`: accepted, held, or why not."""

    n: int
    client_order_id: str | None
    at_us: int
    body: str
    outcome: str
    order_id: str | None


@dataclass(slots=True)
class Change:
    """All that one event at the broker changes; saved as a whole."""

    orders: dict[str, Order] = field(default_factory=dict)
    executions: list[Execution] = field(default_factory=list)
    positions: dict[str, Position] = field(default_factory=dict)


class Store:
    """All SQL of the simulator. Writes belong inside `transaction()`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=0.5)
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=OFF")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise StateInUse(f"cannot use {path}: {error}. Is another simulator running on it?") from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside is committed at the end, or nothing of it where anything is raised."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Let another process have the file."""
        self._db.close()

    # writing

    def save(self, change: Change) -> None:
        """Write what one event changed, inside `transaction`."""
        for order in change.orders.values():
            self._db.execute(
                "INSERT INTO orders VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state",
                (order.id, order.submitted_us, _ORDER.dump_json(order)),
            )
        for execution in change.executions:
            self._db.execute(
                "INSERT INTO executions VALUES (?, ?, ?)",
                (execution.id, execution.at_us, _EXECUTION.dump_json(execution)),
            )
        for position in change.positions.values():
            self.save_position(position)

    def save_position(self, position: Position) -> None:
        """Keep the position; one of nothing is removed."""
        if position.qty:
            self._db.execute(
                "INSERT OR REPLACE INTO positions VALUES (?, ?)", (position.symbol, _POSITION.dump_json(position))
            )
        else:
            self._db.execute("DELETE FROM positions WHERE symbol = ?", (position.symbol,))

    def clear_positions(self) -> None:
        """Hold nothing."""
        self._db.execute("DELETE FROM positions")

    def add_receipt(self, client_order_id: str | None, at_us: int, body: bytes, outcome: str) -> int:
        """Keep a POST as it arrived, before anything is decided about it; returns its number."""
        cursor = self._db.execute(
            "INSERT INTO receipts (client_order_id, at_us, body, outcome) VALUES (?, ?, ?, ?)",
            (client_order_id, at_us, body.decode("utf-8", "backslashreplace"), outcome),
        )
        return cursor.lastrowid or 0

    def settle_receipt(self, n: int, outcome: str, order_id: str | None) -> None:
        """Say what became of it."""
        self._db.execute("UPDATE receipts SET outcome = ?, order_id = ? WHERE n = ?", (outcome, order_id, n))

    def add_rule(self, rule: Rule) -> int:
        """Keep a rule; returns its id, by which rules are in order."""
        cursor = self._db.execute(
            "INSERT INTO rules (remaining, state) VALUES (?, ?)", (rule.count, rule.model_dump_json())
        )
        return cursor.lastrowid or 0

    def set_rule_remaining(self, rule_id: int, remaining: int) -> None:
        """How many orders get the rule still."""
        self._db.execute("UPDATE rules SET remaining = ? WHERE id = ?", (remaining, rule_id))

    def clear_rules(self) -> None:
        """Forget every rule."""
        self._db.execute("DELETE FROM rules")

    def set_value(self, name: str, value: str) -> None:
        """Keep a setting that was changed while running."""
        self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def wipe(self) -> None:
        """Forget everything, as before the first start."""
        for table in _TABLES:
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - names are the constants above

    # reading

    def value(self, name: str) -> str | None:
        """A setting that was changed while running; None when it was not."""
        row = self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def orders(self) -> Iterator[Order]:
        """Every order, in the order in which they were sent."""
        for (state,) in self._db.execute("SELECT state FROM orders ORDER BY submitted_us"):
            yield _ORDER.validate_json(state)

    def executions(self) -> Iterator[Execution]:
        """Every execution, in the order of time."""
        for (state,) in self._db.execute("SELECT state FROM executions ORDER BY at_us"):
            yield _EXECUTION.validate_json(state)

    def positions(self) -> Iterator[Position]:
        """Every position that is not zero."""
        for (state,) in self._db.execute("SELECT state FROM positions"):
            yield _POSITION.validate_json(state)

    def rules(self) -> Iterator[tuple[int, int | None, Rule]]:
        """Every rule with its id and how often it applies still (None: always), in order."""
        for rule_id, remaining, state in self._db.execute("SELECT id, remaining, state FROM rules ORDER BY id"):
            yield rule_id, remaining, Rule.model_validate_json(state)

    def receipts(self, client_order_id: str | None = None, prefix: str | None = None) -> list[Receipt]:
        """The receipts, oldest first: of one client order id, or of all that begin so."""
        rows = self._db.execute(
            "SELECT n, client_order_id, at_us, body, outcome, order_id FROM receipts"
            " WHERE (?1 IS NULL OR client_order_id = ?1)"
            " AND (?2 IS NULL OR substr(client_order_id, 1, length(?2)) = ?2) ORDER BY n",
            (client_order_id, prefix),
        )
        return [Receipt(*row) for row in rows]
