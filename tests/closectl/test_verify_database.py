"""Each invariant that the database shows by itself: a violation is planted, and must be found by its number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest
from sqlalchemy import text

from closectl.verifying.report import INVARIANTS, Finding, Looked, Violation
from closectl.verifying.run import check_database
from closeflow.storage.core.engine import Database, Transaction
from closeflow.storage.verify.compared_state import load_state
from closeflow.storage.verify.snapshot import snapshot, work_in_flight
from tests.closectl.plants import PLANTS as OF_BOOKS
from tests.closectl.plants import named, statements
from tests.closectl.plants_of_progress import PROGRESS_PLANTS, WAITING
from tests.closectl.plants_of_sends import SEND_PLANTS

PLANTS: Final = OF_BOOKS | SEND_PLANTS | PROGRESS_PLANTS
RARE: Final = {"audited days", "breaches of a limit", "halts", "operator actions", "sends that followed another"}
"""What these closes have none of."""


def violations(findings: Sequence[Finding]) -> list[Violation]:
    return sorted({one for part in findings if isinstance(part, Looked) for one in part.violations})


async def plant(tx: Transaction, text_of_it: str) -> None:
    for statement in statements(text_of_it):
        await tx.execute(text(statement))


async def test_closes_in_every_state_break_nothing(closes: Database) -> None:
    async with snapshot(closes) as tx:
        state, findings = await check_database(tx)
    assert violations(findings) == []
    assert [one.busy for one in state.positions] == [False, False, True, True, False, False]
    assert {one.invariant for one in findings} == set(INVARIANTS) - {22}
    for one in findings:
        assert isinstance(one, Looked)
        assert one.count > 0 or one.what in RARE


async def test_a_lost_order_that_was_found_may_live_until_its_cancel_is_through(closes: Database) -> None:
    lost = """INSERT INTO order_statements (client_order_id, kind, stated_at, source)
        VALUES ('$O3', 'lost', $long_ago, 'operator')"""
    async with closes.connect() as tx:
        await plant(tx, f"{PLANTS['second live order of a request'][2]}; {lost}")
        _, findings = await check_database(tx)
        without_a_cancel = [one for one in violations(findings) if one.invariant == 3]
        await plant(tx, "UPDATE orders SET cancel_requested_at = closeflow_now() WHERE client_order_id = '$O3'")
        _, findings = await check_database(tx)
        await tx.rollback()
    assert [one.subject for one in without_a_cancel] == [named("close request $R3")]
    assert [one for one in violations(findings) if one.invariant == 3] == []


async def test_it_is_not_quiet_while_an_event_is_missing_in_kafka(closes: Database) -> None:
    async with closes.connect() as tx:
        before = (await work_in_flight(tx)).missing
        await plant(tx, PLANTS["event that the audit misses"][2])
        missed = (await work_in_flight(tx)).missing
        await tx.execute(
            text(
                "UPDATE outbox_audit SET missing = jsonb_build_array(jsonb_build_object('id', e.id, 'emission', 0))"
                " FROM (SELECT id FROM outbox_events LIMIT 1) e"
            )
        )
        emitted_again = (await work_in_flight(tx)).missing
        await tx.rollback()
    assert (before, missed, emitted_again) == (0, 1, 0)


async def test_time_stands_still_in_the_snapshot(closes: Database) -> None:
    """What is committed while the checks run is not seen, so nothing gets late meanwhile."""
    async with snapshot(closes) as tx:
        opened_at = (await tx.execute(text("SELECT closeflow_now()"))).scalar_one()
        await tx.execute(text("SELECT pg_sleep(0.01)"))
        assert (await load_state(tx)).at <= opened_at


@pytest.mark.parametrize("name", PLANTS)
async def test_a_planted_violation_is_found(closes: Database, name: str) -> None:
    invariant, subject, planted = PLANTS[name]
    async with closes.connect() as tx:
        await plant(tx, planted)
        _, findings = await check_database(tx)
        await tx.rollback()
    found = [one for one in violations(findings) if one.invariant == invariant]
    assert any(one.subject.startswith(named(subject)) for one in found), violations(findings)


def test_every_invariant_is_planted() -> None:
    planted = {invariant for invariant, _, _ in PLANTS.values()}
    assert planted | {22} == set(INVARIANTS)  # Offsets are Kafka's; test_verify_consumed.py plants there.


@pytest.mark.parametrize(
    ("planted", "subject"),
    [
        (
            """UPDATE close_requests SET frozen_reason = 'poison' WHERE id = '$R4';
                INSERT INTO incidents (kind, severity, close_request_id) VALUES ('poison', 'critical', '$R4')""",
            "close request $R4",
        ),
        (
            """UPDATE orders SET quantity = 9, stated_cum_qty = 10 WHERE client_order_id = '$O1';
                INSERT INTO incidents (kind, severity, client_order_id) VALUES ('overfill', 'critical', '$O1')""",
            "order $O1",
        ),
    ],
    ids=["frozen", "overfill"],
)
async def test_an_incident_says_what_would_be_a_violation(closes: Database, planted: str, subject: str) -> None:
    async with closes.connect() as tx:
        await plant(tx, planted)
        _, findings = await check_database(tx)
        await tx.rollback()
    found = [one for one in violations(findings) if one.invariant in (10, 13)]
    assert [one for one in found if one.subject == named(subject)] == []


HARMLESS: Final = {
    "fills that were told when the order was done": """
        UPDATE executions SET cum_qty = 10 WHERE client_order_id = '$O1'""",
    "halt that was over before": """INSERT INTO operator_actions (by, action, subject, reason, before, after, at) VALUES
        ('me', 'halt', 'main', 'r', '{"state": "active"}', '{"state": "halted"}', $long_ago),
        ('me', 'release', 'main', 'r', '{"state": "halted"}', '{"state": "active"}',
         closeflow_now() - interval '50 minutes')""",
    "halt of another account": """INSERT INTO trading_controls (scope, state, reason, by, at)
        VALUES ('other', 'halted', 'r', 'me', $long_ago)""",
    "halt a moment ago": """INSERT INTO operator_actions (by, action, subject, reason, before, after, at) VALUES
        ('me', 'halt', 'global', 'r', '{"state": "active"}', '{"state": "halted"}', closeflow_now())""",
    "limit that was lowered later": """UPDATE account_limits SET max_order_qty = 1;
        INSERT INTO operator_actions (by, action, subject, reason, before, after, at) VALUES
        ('me', 'limits', 'main', 'r',
         '{"max_order_qty": "1000", "max_order_notional": "1000000", "submits_per_minute": 1000}',
         '{"max_order_qty": "1", "max_order_notional": "1000000", "submits_per_minute": 1000}', closeflow_now())""",
    "limit that was changed between the plan by a clock ahead and the send by the right one": """
        UPDATE orders SET created_at = closeflow_now() + interval '1 hour' WHERE client_order_id = '$O1';
        INSERT INTO operator_actions (by, action, subject, reason, before, after, at) VALUES
        ('me', 'limits', 'main', 'r',
         '{"max_order_qty": "1000", "max_order_notional": "1000000", "submits_per_minute": 1000}',
         '{"max_order_qty": "999", "max_order_notional": "1000000", "submits_per_minute": 1000}',
         closeflow_now() + interval '50 minutes')""",
    "cancel again after a clock ahead was set back": """
        UPDATE orders SET cancel_requested_at = closeflow_now() WHERE client_order_id = '$O3';
        INSERT INTO order_sends (client_order_id, kind, n, sender, started_at, lease_until) VALUES
        ('$O3', 'cancel', 1, 'sub-1', closeflow_now() + interval '1 hour', closeflow_now() + interval '61 minutes'),
        ('$O3', 'cancel', 2, 'sub-1', closeflow_now(), closeflow_now() + interval '1 minute')""",
    "send again after an unknown answer": """UPDATE order_sends
        SET answer = 'unknown', answered_at = started_at + interval '1 s' WHERE client_order_id = '$O3';
        INSERT INTO order_sends (client_order_id, kind, n, sender, started_at, lease_until)
        SELECT client_order_id, kind, 2, 'sub-2', lease_until + interval '1 s', lease_until + interval '1 hour'
        FROM order_sends WHERE client_order_id = '$O3'""",
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_was_allowed_at_its_time_breaks_nothing(closes: Database, name: str) -> None:
    async with closes.connect() as tx:
        await plant(tx, HARMLESS[name])
        _, findings = await check_database(tx)
        await tx.rollback()
    assert violations(findings) == []


_STATED: Final = """UPDATE order_statements s
    SET cum_qty = 5, stated_at = o.created_at - interval '$late', heard_at = o.created_at + interval '$late'
    FROM orders o WHERE s.client_order_id = '$O2' AND s.kind = 'canceled' AND o.client_order_id = '$O2_2'"""


@pytest.mark.parametrize(("late", "found"), [("1 hour", False), ("-1 hour", True)])
async def test_a_gap_counts_from_when_it_was_heard_whatever_the_clock_of_the_broker(
    closes: Database, late: str, found: bool
) -> None:
    async with closes.connect() as tx:
        await plant(tx, _STATED.replace("$late", late))
        _, findings = await check_database(tx)
        await tx.rollback()
    told = [one for one in violations(findings) if one.invariant == 8 and one.subject == named("order $O2_2")]
    assert bool(told) is found


@pytest.mark.parametrize("name", WAITING)
async def test_what_waits_for_a_reason_is_not_stuck(closes: Database, name: str) -> None:
    async with closes.connect() as tx:
        await plant(tx, WAITING[name])
        _, findings = await check_database(tx)
        await tx.rollback()
    assert [one for one in violations(findings) if one.invariant == 13] == []


async def test_a_cancel_that_was_asked_for_may_be_seen_later_in_the_status(closes: Database) -> None:
    async with closes.connect() as tx:
        await plant(tx, "UPDATE orders SET cancel_requested_at = closeflow_now() WHERE client_order_id = '$O3'")
        _, findings = await check_database(tx)
        await tx.rollback()
    assert violations(findings) == []
