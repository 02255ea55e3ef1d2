"""Sends and their answers: claimed, begun before the first byte, and answered once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.domain.model import Order, Send, SendAnswer, SendKind
from closeflow.storage.book import mapping
from closeflow.storage.core.bulk import insert_rows, rows_json, update_rows
from closeflow.storage.core.statements import change, fetch, write
from closeflow.storage.schema import tables

SendKey = tuple[str, str, int]
"""Client order id, kind and number of a send."""

_UNANSWERED: Final = text("""
    SELECT s.client_order_id, s.n, s.sender, w.host, w.pid, w.runs_in, w.process_started, w.exited_at,
           s.begun_at IS NOT NULL AS begun, s.lease_until <= closeflow_now() AS lease_over
    FROM order_sends s
    JOIN orders o ON o.client_order_id = s.client_order_id
    LEFT JOIN senders w ON w.instance_id = s.sender
    WHERE s.answered_at IS NULL AND s.kind = 'submit'
      AND o.status IN ('planned', 'submit_unknown') AND o.account_id = :account_id
    ORDER BY s.lease_until
    LIMIT :most
""")
_INSERT_SENDS: Final = insert_rows(
    tables.order_sends, ["client_order_id", "kind", "n", "sender", "lease_until", "started_at", "begun_at", "probe"]
)
# Whichever of these two comes second finds the row as the first has left it, and does nothing.
_BEGIN: Final = text("""
    UPDATE order_sends SET begun_at = closeflow_now()
    FROM jsonb_populate_recordset(NULL::order_sends, CAST(:rows AS jsonb)) AS r
    WHERE order_sends.client_order_id = r.client_order_id AND order_sends.kind = r.kind AND order_sends.n = r.n
      AND order_sends.sender = r.sender AND order_sends.started_at = r.started_at AND order_sends.answered_at IS NULL
    RETURNING order_sends.client_order_id, order_sends.kind, order_sends.n
""")
_ANSWER_UNBEGUN: Final = text("""
    UPDATE order_sends SET answered_at = closeflow_now(), answer = 'not_sent'
    FROM jsonb_to_recordset(CAST(:rows AS jsonb))
        AS r (client_order_id text, n int, sender text, though_begun boolean)
    WHERE order_sends.client_order_id = r.client_order_id AND order_sends.kind = 'submit' AND order_sends.n = r.n
      AND order_sends.sender = r.sender AND order_sends.answered_at IS NULL
      AND (order_sends.begun_at IS NULL OR r.though_begun)
    RETURNING order_sends.client_order_id
""")
_DUE_NOW: Final = text("""
    UPDATE orders SET next_send_at = closeflow_now(), updated_at = closeflow_now()
    WHERE client_order_id = ANY(CAST(:ids AS text[])) AND status IN ('planned', 'submit_unknown')
""")
_LOCK_ORDERS: Final = text("""
    SELECT client_order_id FROM orders WHERE client_order_id = ANY(CAST(:ids AS text[]))
    ORDER BY client_order_id FOR NO KEY UPDATE
""")
# A claim whose COMMIT was lost may never have been there, and its number may be another claim's by now: that one may be
# on the wire, so it must not take the answer of the first.
# When it was answered is when that is recorded, by the clock that leases and the next send are held against.
_ANSWER: Final = text("""
    UPDATE order_sends s SET answered_at = closeflow_now(), answer = r.answer
    FROM jsonb_populate_recordset(NULL::order_sends, CAST(:rows AS jsonb)) AS r
    WHERE (s.client_order_id, s.kind, s.n, s.sender, s.started_at)
        = (r.client_order_id, r.kind, r.n, r.sender, r.started_at) AND s.answered_at IS NULL
    RETURNING s.client_order_id, s.kind, s.n
""")
_DUE_AGAIN: Final = text("""
    UPDATE orders o
    SET next_send_at = closeflow_now() + make_interval(secs => r.again_in_s), updated_at = closeflow_now()
    FROM unnest(CAST(:ids AS text[]), CAST(:seconds AS float8[])) AS r (client_order_id, again_in_s)
    WHERE o.client_order_id = r.client_order_id
      AND (o.status IN ('planned', 'submit_unknown') OR o.cancel_requested_at IS NOT NULL)
""")
_UNKNOWN: Final = update_rows(tables.orders, ["client_order_id"], ["status"], where="orders.status = 'planned'")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnansweredSend:
    """A submit without an answer, and what is known of its sender."""

    client_order_id: str
    n: int
    sender: str
    host: str | None
    pid: int | None
    exited_at: datetime | None
    runs_in: str | None = None
    process_started: int | None = None
    begun: bool
    """Whether its first byte may have gone."""
    lease_over: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The answer to one send, which `sender` and `started_at` tell from another claim of the same number. The database
    says when: the order is due again so many seconds after the answer is recorded; None leaves that as it is."""

    client_order_id: str
    kind: SendKind
    n: int
    sender: str
    started_at: datetime
    answer: SendAnswer
    again_in_s: float | None = None


async def unanswered_sends(tx: AsyncConnection, *, account_id: str, most: int) -> list[UnansweredSend]:
    """Submits without an answer, of orders whose fate is open, whoever sent them; also while their lease lasts."""
    return [UnansweredSend(**row) for row in await fetch(tx, _UNANSWERED, {"account_id": account_id, "most": most})]


async def insert_sends(tx: AsyncConnection, *, sends: Sequence[tuple[Order, Send]]) -> None:
    """Claim sends: each row is inserted once, under its order's lock; a second claim of one number fails."""
    rows = [mapping.send_row(send, order=order) for order, send in sends]
    if rows:
        await write(tx, _INSERT_SENDS, rows_json(rows))


async def begin_sends(tx: AsyncConnection, *, sends: Sequence[tuple[Order, Send]]) -> set[SendKey]:
    """Say of claims that their first byte may go from the commit on, if they have no answer yet; which of them have
    none. The others must not be written."""
    rows = [mapping.send_row(send, order=order) for order, send in sends]
    return {tuple(row.values()) for row in await fetch(tx, _BEGIN, {"rows": rows_json(rows)})}


async def answer_unbegun(
    tx: AsyncConnection, *, sends: Sequence[UnansweredSend], though_begun: Sequence[UnansweredSend] = ()
) -> list[str]:
    """Answer claims `not_sent` whose first byte cannot have gone and now never will, whatever their sender does next;
    their orders are due at once. Returns those orders' ids. Of `though_begun` it is proven otherwise that nothing left:
    their sender has exited."""
    of = [*((one, False) for one in sends), *((one, True) for one in though_begun)]
    await change(tx, _LOCK_ORDERS, {"ids": sorted({one.client_order_id for one, _ in of})})
    rows = [
        {"client_order_id": one.client_order_id, "n": one.n, "sender": one.sender, "though_begun": proven}
        for one, proven in of
    ]
    ids = [row["client_order_id"] for row in await fetch(tx, _ANSWER_UNBEGUN, {"rows": rows_json(rows)})]
    if ids:
        await change(tx, _DUE_NOW, {"ids": ids})
    return ids


async def record_answers(tx: AsyncConnection, *, answers: Sequence[Answered]) -> set[SendKey]:
    """Answer sends that have no answer yet, set when the orders are due again, and make a planned order whose submit
    had an unknown outcome `submit_unknown` (O4). An order that the broker has spoken about keeps what it says, and an
    answer to a send that is not there, or has its answer, changes nothing. Returns the sends that are answered now."""
    if not answers:
        return set()
    await change(tx, _LOCK_ORDERS, {"ids": sorted({one.client_order_id for one in answers})})
    rows = [
        {
            "client_order_id": one.client_order_id,
            "kind": one.kind,
            "n": one.n,
            "sender": one.sender,
            "started_at": one.started_at,
            "answer": one.answer,
        }
        for one in answers
    ]
    taken: set[SendKey] = {tuple(row.values()) for row in await fetch(tx, _ANSWER, {"rows": rows_json(rows)})}
    answers = [one for one in answers if (one.client_order_id, one.kind, one.n) in taken]
    due = {one.client_order_id: one.again_in_s for one in answers if one.again_in_s is not None}
    if due:
        await change(tx, _DUE_AGAIN, {"ids": list(due), "seconds": list(due.values())})
    unknown = {
        one.client_order_id for one in answers if one.answer is SendAnswer.UNKNOWN and one.kind is SendKind.SUBMIT
    }
    if unknown:
        moved = [{"client_order_id": key, "status": "submit_unknown"} for key in sorted(unknown)]
        await change(tx, _UNKNOWN, {"rows": rows_json(moved)})
    return taken
