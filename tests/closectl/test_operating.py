"""What an operator does by hand, as the operator's role on a real database: the effect, its record, and refusals.

Closes 1 and 2 are retryable, 3 works at the broker, 4 waits for its first order, 5 failed, 6 is frozen.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import pytest

import devstack
from closectl.import_positions import import_positions
from closectl.positions_file import read_positions
from closeflow.domain.model import BrokerStatus, RejectClass
from closeflow.storage.core.engine import make_engine
from tests.closectl.running import ROLE, Done, answer, closectl
from tests.closectl.seeding import FILE, REQUESTS, Closes, order_id
from tests.conftest import Database as OnTestStack
from tests.conftest import fresh_database
from tests.storage.seeding import Owner, owner


@pytest.fixture(scope="module")
async def portfolio(stack: devstack.Stack, template: str) -> AsyncIterator[OnTestStack]:
    with fresh_database(stack, template) as made:
        engine = make_engine(made.admin_dsn, pool_size=3, application_name="closeflow-tests")
        closes = Closes(engine)
        await import_positions(engine, read_positions(FILE.splitlines()), broker="alpaca")
        for position_id in REQUESTS:
            await closes.accept(position_id)
        for position_id in (1, 2, 3, 5, 6):
            await closes.submit(position_id)
        for position_id in (1, 2):
            await closes.state(position_id, BrokerStatus.CANCELED, cum="0")
        await closes.state(3, BrokerStatus.NEW, cum="0")
        await closes.state(5, BrokerStatus.REJECTED, cum="0", reject_class=RejectClass.TERMINAL)
        await closes.fill(6, "0.25", cum="0.25")
        await closes.fill(6, "0.25", cum="0.25", price="99")
        await engine.dispose()
        yield made


@pytest.fixture(scope="module")
def db(portfolio: OnTestStack) -> Iterator[Owner]:
    with owner(portfolio.admin_dsn) as connection:
        yield connection


def one(db: Owner, query: str, *values: object) -> tuple[Any, ...]:
    row = db.execute(query.encode(), values).fetchone()
    assert row is not None
    return row


def states(db: Owner, position_id: int) -> tuple[Any, ...]:
    return one(
        db,
        "SELECT r.status, r.reason, p.status FROM positions p JOIN close_requests r ON r.position_id = p.id"
        " WHERE p.id = %s",
        position_id,
    )


def act(portfolio: OnTestStack, *arguments: str) -> Done:
    return closectl(*arguments, "--reason", "asked by the desk", "--by", "ann", postgres_dsn=portfolio.dsn(ROLE))


def recorded(portfolio: OnTestStack, subject: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer("actions", "list", "--subject", str(subject), postgres_dsn=portfolio.dsn(ROLE))
    assert {(each["by"], each["reason"]) for each in found} == {("ann", "asked by the desk")}
    return found


def test_a_retryable_close_is_retried_at_once_and_once(portfolio: OnTestStack, db: Owner) -> None:
    request = str(REQUESTS[1])
    assert states(db, 1) == ("retryable", "canceled", "close_retryable")
    done = act(portfolio, "requests", "retry", request)
    assert (done.exit_code, done.stdout) == (0, "pending: attempt 2\n")
    assert states(db, 1) == ("pending", None, "closing")
    emitted = "SELECT count(*), max(payload ->> 'quantity') FROM outbox_events WHERE topic = 'submit-order'"
    emitted += " AND close_request_id = %s AND attempt = 2"
    assert one(db, emitted, request) == (1, "10")
    by = "SELECT by, reason FROM status_history WHERE entity_id = %s ORDER BY id DESC LIMIT 1"
    assert one(db, by, request) == ("ann", "asked by the desk")

    again = act(portfolio, "requests", "retry", request)
    assert (again.exit_code, again.stdout) == (0, "nothing to do: attempt 2 is pending already\n")
    (action,) = recorded(portfolio, request)
    assert (action["action"], action["before"][f"request {request}"]["status"]) == ("retry", "retryable")
    assert action["after"]["position 1"]["status"] == "closing"


def test_an_abandoned_close_leaves_its_position_open(portfolio: OnTestStack, db: Owner) -> None:
    done = act(portfolio, "requests", "abandon", str(REQUESTS[2]))
    assert (done.exit_code, done.stdout) == (0, "abandoned; position 2 is open\n")
    assert states(db, 2) == ("failed", "abandoned", "open")
    assert act(portfolio, "requests", "abandon", str(REQUESTS[2])).stdout.startswith("nothing to do: ")
    refused = act(portfolio, "requests", "retry", str(REQUESTS[2]))
    assert refused.exit_code == 1
    assert "`closectl close 2` closes it under a new key" in refused.stderr


def test_a_position_whose_close_failed_is_opened_again(portfolio: OnTestStack, db: Owner) -> None:
    assert states(db, 5)[2] == "close_failed"
    assert act(portfolio, "requests", "abandon", str(REQUESTS[5])).stdout == "abandoned; position 5 is open\n"
    assert states(db, 5)[2] == "open"
    event = "SELECT event_type, position_version FROM outbox_events WHERE topic = 'position-events' AND position_id = 5"
    assert one(db, f"{event} ORDER BY position_version DESC LIMIT 1")[0] == "POSITION_OPEN"


def test_a_cancel_ends_what_nobody_sent_and_asks_for_the_cancel_of_what_works(
    portfolio: OnTestStack, db: Owner
) -> None:
    assert act(portfolio, "requests", "cancel", str(REQUESTS[4])).exit_code == 0
    assert states(db, 4) == ("failed", "canceled_by_user", "open")
    done = act(portfolio, "requests", "cancel", str(REQUESTS[3]))
    assert done.stdout == f"the cancel is asked for; order {order_id(3)} is pending_cancel\n"
    asked = "SELECT o.cancel_requested_at IS NOT NULL AND r.cancel_requested_at IS NOT NULL, o.status, r.status"
    asked += " FROM orders o JOIN close_requests r ON r.id = o.close_request_id WHERE r.position_id = 3"
    assert one(db, asked) == (True, "pending_cancel", "submitted")
    assert act(portfolio, "requests", "cancel", str(REQUESTS[3])).stdout.startswith("nothing to do: its cancel was")
    assert [each["action"] for each in recorded(portfolio, REQUESTS[3])] == ["cancel"]


def test_a_frozen_close_goes_on_once_every_incident_that_freezes_it_is_closed(
    portfolio: OnTestStack, db: Owner
) -> None:
    dsn = portfolio.dsn(ROLE)
    frozen = "SELECT frozen_reason FROM close_requests WHERE position_id = 6"
    assert one(db, frozen) == ("execution_changed",)
    db.execute(
        "INSERT INTO incidents (kind, severity, client_order_id) VALUES ('poison', 'critical', %s)", (order_id(6),)
    )
    listed = {each["kind"]: each for each in answer("incidents", "list", postgres_dsn=dsn)}
    assert {each["close_request_id"] for each in listed.values()} == {str(REQUESTS[6])}
    changed, poison = (str(listed[kind]["id"]) for kind in ("execution_changed", "poison"))

    done = act(portfolio, "incidents", "close", changed)
    assert done.stdout == f"request {REQUESTS[6]} stays frozen by poison\n"
    assert one(db, frozen) == ("poison",)
    assert act(portfolio, "incidents", "close", poison).exit_code == 0
    assert one(db, frozen) == (None,)
    assert act(portfolio, "incidents", "close", poison).stdout.startswith("nothing to do: ")
    closed = "SELECT closed_by, resolution FROM incidents WHERE id = %s AND closed_at IS NOT NULL"
    assert one(db, closed, int(changed)) == ("ann", "asked by the desk")
    assert answer("incidents", "list", "--kind", "poison", postgres_dsn=dsn) == []
    shown = answer("incidents", "show", poison, postgres_dsn=dsn)
    assert (shown["kind"], shown["closed_by"]) == ("poison", "ann")
    assert (shown["evidence"], shown["runbook"]) == (None, "docs/runbooks/poison.md")
    assert [each["action"] for each in recorded(portfolio, poison)] == ["close_incident"]


def test_an_incident_is_shown_with_its_evidence_and_its_page(portfolio: OnTestStack, db: Owner) -> None:
    evidence = {"assembled_at": "2026-03-02T14:30:00Z", "executions_listed": 0, "position_agrees": True}
    detail = json.dumps({"text": "not found", "evidence": evidence})
    insert = "INSERT INTO incidents (kind, severity, detail) VALUES ('order_not_found', 'critical', %s) RETURNING id"
    (number,) = one(db, insert, detail)
    shown = answer("incidents", "show", str(number), postgres_dsn=portfolio.dsn(ROLE))
    assert (shown["detail"], shown["evidence"]) == ("not found", evidence)
    assert shown["runbook"] == "docs/runbooks/order_not_found.md"


def test_an_incident_of_no_close_is_closed_too(portfolio: OnTestStack, db: Owner) -> None:
    (number,) = one(db, "INSERT INTO incidents (kind, severity) VALUES ('unknown_order', 'warning') RETURNING id")
    done = act(portfolio, "incidents", "close", str(number))
    assert (done.exit_code, done.stdout) == (0, f"incident {number} (unknown_order) is closed\n")
    assert [each["before"] for each in recorded(portfolio, number)] == [{"kind": "unknown_order"}]


def test_an_exit_is_confirmed_of_a_silent_sender_only(portfolio: OnTestStack, db: Owner) -> None:
    db.execute(
        "INSERT INTO senders (instance_id, host, pid, last_seen_at) VALUES ('gone', 'h1', 7, now() - interval '1 min'),"
        " ('alive', 'h2', 8, now())"
    )
    refused = act(portfolio, "senders", "exited", "alive")
    assert refused.exit_code == 1
    assert "sender alive (pid 8 on h2) lives: it was heard of at" in refused.stderr
    done = act(portfolio, "senders", "exited", "gone")
    assert (done.exit_code, done.stdout) == (
        0,
        "sender gone has exited, confirmed; 0 of its sends have no answer\n",
    )
    assert act(portfolio, "senders", "exited", "gone").stdout.startswith("nothing to do: sender gone exited at ")
    senders = answer("senders", "list", postgres_dsn=portfolio.dsn(ROLE))
    assert {each["instance_id"]: each["exited_at"] is not None for each in senders} == {"gone": True, "alive": False}
    assert [each["action"] for each in recorded(portfolio, "gone")] == ["confirm_exit"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("requests", "retry", str(UUID(int=7))), f"there is no close request {UUID(int=7)}"),
        (("incidents", "close", "999"), "there is no incident 999"),
        (("senders", "exited", "nobody"), "there is no sender nobody"),
    ],
)
def test_what_is_not_there_is_told(portfolio: OnTestStack, arguments: tuple[str, ...], told: str) -> None:
    done = act(portfolio, *arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert told in done.stderr


@pytest.mark.parametrize("reason", [(), ("--reason", "  ")])
def test_nothing_is_done_without_a_reason(reason: tuple[str, ...]) -> None:
    done = closectl("requests", "cancel", str(REQUESTS[1]), *reason)
    assert done.exit_code == 2
    assert "--reason" in done.stderr
