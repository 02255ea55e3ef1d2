"""What arguments and options may be; what is wrong with one is told in words that say how to mend it."""

from __future__ import annotations

import getpass
import math
import re
from collections.abc import Callable, Collection
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final

import typer

LARGEST_ID: Final = 2**63 - 1
LARGEST_PARTITION: Final = 2**31 - 1
LARGEST_NUMBER: Final = Decimal(10) ** 15
FRACTION_DIGITS: Final = 18
LONGEST_NAME: Final = 128
LONGEST_SUBJECT: Final = 300
LONGEST_REASON: Final = 2000
LONGEST_WAIT_S: Final = 86_400
FORWARD: Final = timedelta(days=1)
"""More than any clock of a host is wrong by: a slip of the pen. The database's clock decides what has passed."""
_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,64}(\.[0-9]{0,64})?|\.[0-9]{1,64})")
_KEY: Final = re.compile(r"[!-~]([ -~]{0,98}[!-~])?")
_SHOWN: Final = 40


def shown(value: str) -> str:
    """Somebody's input as it can be printed: quoted, escaped, cut."""
    return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")


def _text(value: str, *, most: int, also: str = "") -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter(f"{shown(value)} is not UTF-8") from None
    if not value.strip():
        raise typer.BadParameter("must not be empty")
    if len(value) > most:
        raise typer.BadParameter(f"has {len(value)} characters, and may have {most}")
    if any((ord(one) < 0x20 or ord(one) == 0x7F) and one not in also for one in value):
        raise typer.BadParameter(f"{shown(value)} has control characters")
    return value


def proper_name(value: str | None) -> str | None:
    """A callback: a name without control characters, if there is one."""
    return None if value is None else _text(value, most=LONGEST_NAME)


def subject(value: str | None) -> str | None:
    """A callback: what an action was about, which may be the place of a record."""
    return None if value is None else _text(value, most=LONGEST_SUBJECT)


def _given(reason: str) -> str:
    if not reason.strip():
        raise typer.BadParameter("say why; it is kept with what was done")
    return _text(reason.strip(), most=LONGEST_REASON, also="\n\t")


def _actor(by: str) -> str:
    """Who acts: as given, else the login's name."""
    if by.strip():
        return _text(by.strip(), most=LONGEST_NAME)
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise typer.BadParameter("this login has no name; say who you are") from None


def number(text: str) -> Decimal:
    """A decimal number as people write it."""
    if not _NUMBER.fullmatch(text):
        raise typer.BadParameter(f"{shown(text)} must be a decimal number such as 12.5")
    value = Decimal(text)
    if value.copy_abs() >= LARGEST_NUMBER:
        raise typer.BadParameter(f"{shown(text)} must be below {LARGEST_NUMBER:f} in size")
    if -int(value.as_tuple().exponent) > FRACTION_DIGITS:
        raise typer.BadParameter(f"{shown(text)} has more than {FRACTION_DIGITS} digits after the point")
    return value


def amount(text: str) -> Decimal:
    """A quantity: a decimal above 0. Raises typer.BadParameter."""
    value = number(text)
    if value <= 0:
        raise typer.BadParameter(f"{shown(text)} must be greater than 0")
    return value


def price(text: str) -> Decimal:
    """A price: a decimal, 0 included, because a right may be worth nothing. Raises typer.BadParameter."""
    value = number(text)
    if value < 0:
        raise typer.BadParameter(f"{shown(text)} must not be below 0")
    return value


def _moment(text: str) -> datetime:
    """RFC 3339, or without an offset for UTC."""
    try:
        value = datetime.fromisoformat(text)
        value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{shown(text)} must be a time such as 2026-03-02T14:30:00Z") from None
    if value.year < 1970 or value > datetime.now(UTC) + FORWARD:
        raise typer.BadParameter(f"{shown(text)} must be a time since 1970 that has passed")
    return value


def _day(text: str) -> date:
    try:
        value = date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{shown(text)} must be a day such as 2026-03-02") from None
    if not date(1970, 1, 1) <= value <= (datetime.now(UTC) + FORWARD).date():
        raise typer.BadParameter(f"{shown(text)} must be a day since 1970 that has begun")
    return value


def _key(value: str | None) -> str | None:
    if value is not None and not _KEY.fullmatch(value):
        raise typer.BadParameter(f"{shown(value)} must be 1 to 100 printable ASCII characters, without spaces around")
    return value


def _seconds(value: float) -> float:
    if not (math.isfinite(value) and 0 <= value <= LONGEST_WAIT_S):
        raise typer.BadParameter(f"{value} must be a number of seconds from 0 to {LONGEST_WAIT_S}")
    return value


def pairs(given: list[str] | None, option: str, *, known: Collection[str] | None = None) -> dict[str, str] | None:
    """`name=value` of an option that may be repeated; None when it is not given. The last = divides, because a
    broker's column may have one in its name."""
    if not given:
        return None
    found: dict[str, str] = {}
    for one in given:
        name, divided, value = (part.strip() for part in one.rpartition("="))
        if not (name and divided and value):
            raise typer.BadParameter(f"{option} {shown(one)} must be name=value")
        if name in found or (known is not None and name not in known):
            told = "is given twice" if name in found else f"names none of {', '.join(known or ())}"
            raise typer.BadParameter(f"{option} {shown(one)} {told}")
        found[name] = value
    return found


def named(help_: str) -> Any:
    """An option that takes a name without control characters."""
    return typer.Option(callback=proper_name, help=help_)


def numbered(help_: str, *, kind: Callable[..., Any] = typer.Argument) -> Any:
    """An argument or option that takes an id of the database: 1 to 2^63 - 1."""
    return kind(min=1, max=LARGEST_ID, help=help_)


PositionId = Annotated[int, numbered("The position.")]
IncidentId = Annotated[int, numbered("The incident's number.")]
OrderId = Annotated[str, typer.Argument(callback=proper_name, help="The client order id, cf-….")]
Number = Annotated[Decimal, typer.Option(parser=number, metavar="NUMBER")]
Amount = Annotated[Decimal | None, typer.Option(parser=amount, metavar="NUMBER")]
Moment = Annotated[
    datetime | None,
    typer.Option(parser=_moment, metavar="TIME", help="When it was executed, in UTC; now if it is not known."),
]
FirstDay = Annotated[
    date | None, typer.Option("--since", parser=_day, metavar="DAY", help="Only from this day (UTC) on.")
]
LastDay = Annotated[
    date | None, typer.Option("--until", parser=_day, metavar="DAY", help="Only up to this day (UTC), it included.")
]
Key = Annotated[str | None, typer.Option(callback=_key, help="Idempotency key; a repeated call with it closes once.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")]
Reason = Annotated[str, typer.Option(callback=_given, help="Why, for whoever reads it in a year. It is kept.")]
By = Annotated[str, typer.Option(callback=_actor, show_default="the login's name", help="Who does it.")]
"""Give it the default "", which becomes the name of the login."""
Yes = Annotated[bool, typer.Option("--yes", help="Do it. Without this, what would be done is only shown.")]


def seconds(help_: str) -> Any:
    """For an option that is a time to wait."""
    return typer.Option(callback=_seconds, metavar="SECONDS", help=help_)
