"""`closectl top` on a database in which closes stand still in every way: what it says of each and of what is around."""

from __future__ import annotations

import asyncio
import io
import re
from typing import Final
from uuid import UUID

import pytest
from rich.console import Console

from closectl.top.command import View
from closectl.top.rendering import OLD_AFTER
from closeflow.domain.operator.waiting import WaitsFor
from closeflow.storage.core.engine import make_engine
from tests.closectl.running import ROLE, Done, closectl
from tests.conftest import Database
from tests.storage.seeding import Owner, add_order, add_position, add_request, owner

ACCOUNT: Final = "acc"


def aged(db: Owner, request_id: UUID, minutes: int, **columns: object) -> UUID:
    """Asked for so long ago, with what else is true of it."""
    columns = {"created_at": _ago(db, minutes), **columns}
    assigned = ", ".join(f"{name} = %s" for name in columns)
    db.execute(f"UPDATE close_requests SET {assigned} WHERE id = %s", (*columns.values(), request_id))  # noqa: S608
    return request_id


def _ago(db: Owner, minutes: int) -> object:
    row = db.execute("SELECT now() - make_interval(mins => %s)", (minutes,)).fetchone()
    assert row is not None
    return row[0]


def waiting(db: Owner, symbol: str, minutes: int, *, status: str = "pending", **columns: object) -> UUID:
    """A close that has no order; a deferral since it was asked for."""
    if "reason" in columns:
        columns |= {"deferred_since": _ago(db, minutes), "next_attempt_at": _ago(db, -1)}
    request_id = add_request(db, add_position(db, symbol), status=status)
    return aged(db, request_id, minutes, symbol=symbol, **columns)


def ordered(db: Owner, symbol: str, minutes: int, status: str, **columns: object) -> UUID:
    """A close whose order is in this state, sent when it was asked for."""
    position_id = add_position(db, symbol)
    request_id = aged(db, add_request(db, position_id, status="submitted"), minutes, symbol=symbol, **columns)
    order_id = add_order(db, request_id, position_id, status=status)
    db.execute("UPDATE orders SET created_at = %s WHERE client_order_id = %s", (_ago(db, minutes), order_id))
    if status != "planned":
        db.execute(
            "INSERT INTO order_sends (client_order_id, kind, n, sender, lease_until, started_at)"
            " VALUES (%s, 'submit', 1, 'sub-1', now(), %s)",
            (order_id, _ago(db, minutes)),
        )
    return request_id


@pytest.fixture(scope="module")
def desk(module_database: Database) -> Database:
    with owner(module_database.admin_dsn) as db:
        ordered(db, "WORK", 90, "partially_filled", filled_qty=4)
        waiting(db, "HOURS", 80, reason="market_closed")
        waiting(db, "QUOTE", 70, reason="no_fresh_quote")
        retried = waiting(db, "HAND", 60, status="retryable", auto_retry=False)
        ordered(db, "UNKNOWN", 50, "submit_unknown")
        waiting(db, "LIMIT", 40, reason="submit_limit_reached")
        waiting(db, "RETRY", 30, status="retryable", next_attempt_at=_ago(db, 20))
        waiting(db, "UNSEEN", 10)
        ordered(db, "FRESH", 0, "new")
        db.execute(
            "INSERT INTO incidents (kind, severity, close_request_id, detail, opened_at)"
            " VALUES ('retry_by_hand', 'critical', %s, %s, now() - interval '60 minutes')",
            (retried, '{"text": "[red]taken\\u001b[31m back[/red]"}'),
        )
        db.execute("INSERT INTO accounts (account_id, broker) VALUES ('other', 'alpaca')")
        db.execute(
            "INSERT INTO broker_breakers (broker, account_id, state, opened_at, probe_at)"
            " VALUES ('alpaca', 'other', 'open', now(), now() + interval '5 s')"
        )
    return module_database


def once(desk: Database, *arguments: str) -> Done:
    done = closectl("top", "--once", *arguments, postgres_dsn=desk.dsn(ROLE))
    assert done.exit_code == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def frame(desk: Database) -> str:
    return once(desk).stdout


def line_of(frame: str, symbol: str) -> str:
    """What the frame says of a close: its line, with those that it goes on in."""
    lines = frame.splitlines()
    at = next(n for n, line in enumerate(lines) if f"{symbol} sell" in line)
    more = next(n for n in range(at + 1, len(lines)) if not lines[n].startswith("     "))
    return " ".join(" ".join(lines[at:more]).split())


def test_closes_are_there_the_longest_waiting_first_and_what_is_only_at_work_is_not(frame: str) -> None:
    shown = re.findall(r"([A-Z]+) sell of acc", frame)
    assert shown == ["WORK", "HOURS", "QUOTE", "HAND", "UNKNOWN", "LIMIT", "RETRY", "UNSEEN"]
    assert "8 stuck" in frame


@pytest.mark.parametrize(
    ("symbol", "waits_for", "said"),
    [
        ("WORK", WaitsFor.BROKER, ("1 h 30 min", "4 of 10", "fill the rest", "cancelled", "due since", "broker acts")),
        (
            "HOURS",
            WaitsFor.MARKET_HOURS,
            ("1 h 20 min", "0 of 10", "the market to open", "planned again, in"),
        ),
        ("QUOTE", WaitsFor.QUOTE, ("no fresh quote", "planned again", "closectl show")),
        (
            "HAND",
            WaitsFor.OPERATOR,
            ("took back an execution", "nothing by itself", "operator acts", "requests retry"),
        ),
        ("UNKNOWN", WaitsFor.UNKNOWN_OUTCOME, ("never answered", "looked up", "order-submitter")),
        ("LIMIT", WaitsFor.ACCOUNT_LIMIT, ("submits per minute", "closectl limits show")),
        ("RETRY", WaitsFor.NEXT_ATTEMPT, ("0 of 3 retries used", "next attempt, due since", "reconciler acts")),
        ("UNSEEN", WaitsFor.SERVICE, ("order-submitter to plan", "its event is sent again", "order-submitter acts")),
    ],
)
def test_each_says_what_it_waits_for_what_follows_who_acts_and_what_is_safe(
    frame: str, symbol: str, waits_for: WaitsFor, said: tuple[str, ...]
) -> None:
    line = line_of(frame, symbol)
    assert waits_for.replace("_", " ").upper() in line
    for words in said:
        assert words in line


def test_every_kind_of_wait_is_on_the_screen(frame: str) -> None:
    assert [one for one in WaitsFor if one.replace("_", " ").upper() not in frame] == []


def test_account_instance_time_states_incidents_and_lights_are_named(frame: str, desk: Database) -> None:
    assert f"{desk.name} at " in frame
    assert "every account" in frame
    assert re.search(r"data as of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$", frame.splitlines()[0])
    assert re.search(r"to be planned +4 ", frame)
    assert re.search(r"at the broker +3 ", frame)
    assert re.search(r"to be retried +2 ", frame)
    assert "1 open incidents" in frame
    for light in ("connector", "slot", "lag", "breaker"):
        assert re.search(rf"● {light} (green|amber|red)", frame)
    assert "open for other" in frame


def test_somebody_elses_text_is_text(frame: str) -> None:
    assert "[red]taken\\x1b[31m back[/red]" in frame
    assert "\x1b" not in frame


def test_another_account_has_nothing_of_this_one_and_one_that_is_not_there_is_told(desk: Database) -> None:
    other = once(desk, "--account", "other").stdout
    assert "account other" in other
    assert "nothing is stuck" in other
    assert "acc," not in other
    missing = closectl("top", "--once", "--account", "nobody", postgres_dsn=desk.dsn(ROLE))
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "there is no account nobody; there are: acc, other" in missing.stderr


def test_a_frame_that_gets_old_says_so_in_red_and_keeps_what_it_knew(desk: Database) -> None:
    async def shown() -> tuple[str, str]:
        database = make_engine(desk.dsn(ROLE), pool_size=1, application_name="closeflow-tests")
        try:
            view = await View(instance="here", slot="none", accounts=frozenset({ACCOUNT})).one(database)
        finally:
            await database.dispose()
        fresh = text_of(view)
        view.read_at -= OLD_AFTER.total_seconds() + 60
        view.trouble = "the database cannot be asked"
        return fresh, text_of(view)

    fresh, old = asyncio.run(shown())
    assert "OLD" not in fresh
    assert re.search(r"[1-9]\d* min \d+ s OLD", old.splitlines()[0])
    assert "the database cannot be asked" in old.splitlines()[0]
    assert "1;31mdata as of" in old.splitlines()[0]
    assert line_of(re.sub(r"\x1b\[[0-9;]*m", "", old), "WORK") != ""


def text_of(view: View) -> str:
    """As a terminal gets it, colours and all."""
    out = io.StringIO()
    Console(file=out, width=250, force_terminal=True, color_system="standard").print(view.show(most=10))
    return out.getvalue()


def test_of_more_closes_than_fit_the_rest_is_counted(desk: Database) -> None:
    few = once(desk, "--limit", "2").stdout
    assert len(re.findall(r" sell of acc", few)) == 2
    assert "and 6 more" in few


def test_a_database_that_is_away_is_told_in_one_line() -> None:
    done = closectl("top", "--once", postgres_dsn="postgresql://nobody:x@127.0.0.1:1/none?connect_timeout=2")
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
