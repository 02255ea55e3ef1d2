"""What the tables are made of: the column types, the enumerated values and PostgreSQL's naming of constraints."""

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Integer,
    MetaData,
    Numeric,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.types import UserDefinedType


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id. It arrives from the driver as text and is an int here."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's name in DDL, as SQLAlchemy asks for it."""
        return "XID8"

    def bind_processor(self, dialect: Dialect) -> Callable[[int | None], str | None]:
        """As text: no driver has a type for 64-bit transaction ids."""
        return lambda value: None if value is None else str(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str | None], int | None]:
        """As int, so that ids compare as numbers."""
        return lambda value: None if value is None else int(value)


# PostgreSQL's own naming, so that plain SQL in a migration gets the same names.
metadata: Final = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

LOT: Final = "CASE asset_type WHEN 'option' THEN 1 ELSE 0.000000001 END"
"""The smallest quantity of a position that can be traded, as `closeflow.domain.close.pricing.LOTS` has it."""
SIDES: Final = ("buy", "sell")
ASSET_TYPES: Final = ("stock", "option", "crypto")
ORDER_TYPES: Final = ("limit", "market")
TIMES_IN_FORCE: Final = ("day", "gtc", "ioc")
POSITION_STATUSES: Final = ("open", "closing", "closed", "close_retryable", "close_failed")
CLOSE_REQUEST_STATUSES: Final = ("pending", "submitted", "completed", "retryable", "failed")
ORDER_STATUSES: Final = (
    *("planned", "denied", "submit_unknown", "lost", "new", "partially_filled", "filled"),
    *("pending_cancel", "canceled", "expired", "rejected", "suspended", "done_for_day"),
)
STATEMENT_KINDS: Final = (
    *("new", "partially_filled", "filled", "pending_cancel", "canceled", "expired", "rejected", "replaced"),
    *("suspended", "done_for_day", "cancel_rejected", "refused", "lost"),
)
SOURCES: Final = ("stream", "backfill", "submit", "query", "operator")


def words(name: str, *args: Any, **kw: Any) -> Column[Any]:
    """Text, required unless `nullable` is given."""
    return Column(name, Text, *args, nullable=kw.pop("nullable", False), **kw)


def one_of(name: str, values: tuple[str, ...], **kw: Any) -> Column[Any]:
    """Text with a check constraint on these values, so that a status nobody knows is refused by the database, too."""
    listed = ", ".join(f"'{value}'" for value in values)
    check = CheckConstraint(f"{name} IN ({listed})", name=name)
    return Column(name, Text, check, nullable=kw.pop("nullable", False), **kw)


def number(name: str, *checks: str, **kw: Any) -> Column[Any]:
    """An exact decimal with these conditions, such as "> 0", as check constraints."""
    rules = [CheckConstraint(f"{name} {check}", name=name) for check in checks]
    return Column(name, Numeric, *rules, nullable=kw.pop("nullable", False), **kw)


def whole(name: str, *checks: str, **kw: Any) -> Column[Any]:
    """A 32-bit integer with these conditions as check constraints."""
    rules = [CheckConstraint(f"{name} {check}", name=name) for check in checks]
    return Column(name, Integer, *rules, nullable=kw.pop("nullable", False), **kw)


def big(name: str, *args: Any, **kw: Any) -> Column[Any]:
    """A 64-bit integer."""
    return Column(name, BigInteger, *args, nullable=kw.pop("nullable", False), **kw)


def uuid_(name: str, *args: Any, **kw: Any) -> Column[Any]:
    """A UUID, required unless `nullable` is given."""
    return Column(name, Uuid, *args, nullable=kw.pop("nullable", False), **kw)


def moment(name: str, **kw: Any) -> Column[Any]:
    """A time with its zone, absent unless `nullable=False` is given."""
    return Column(name, DateTime(timezone=True), nullable=kw.pop("nullable", True), **kw)


def stamp(name: str) -> Column[Any]:
    """A time that the database sets at the insert, by its own clock."""
    return moment(name, nullable=False, server_default=text("closeflow_now()"))


def document(name: str, **kw: Any) -> Column[Any]:
    """JSONB, absent unless `nullable=False` is given."""
    return Column(name, JSONB, nullable=kw.pop("nullable", True), **kw)


def flag(name: str, default: str) -> Column[Any]:
    """A boolean that is never absent; `default` is SQL."""
    return Column(name, Boolean, nullable=False, server_default=text(default))


def xact() -> Column[Any]:
    """The transaction that inserted the row: audits order rows by it."""
    return Column("xact_id", Xid8, nullable=False, server_default=text("pg_current_xact_id()"))


def identity() -> Column[Any]:
    """A 64-bit primary key that the database counts."""
    return big("id", Identity(), primary_key=True)
