"""The publication audit's view of the outbox, and how far it has come.

The mark of a day is a transaction id: every row below it has been judged. Rows are judged only below
`pg_snapshot_xmin`, because a row of an older transaction that commits late must not fall under the mark.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import TextClause, text

from closeflow.domain.outbox.publication_audit import AuditedDay, Emission, EventKey, OutboxRow
from closeflow.storage.core.bulk import insert_rows, rows_json
from closeflow.storage.core.engine import Transaction
from closeflow.storage.schema.operation_tables import outbox_audit_positions

_XMIN: Final = text("SELECT CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text)")
# By the column and not by the text of the same name, to which 10 000 comes before 9 999.
_UNJUDGED: Final = text("""
    SELECT e.id, e.emission, e.position_id, CAST(e.xact_id AS text) AS xact_id, e.occurred_at FROM outbox_events e
    WHERE e.created_on = :day AND e.xact_id >= CAST(:through AS xid8) AND e.xact_id < CAST(:below AS xid8)
    ORDER BY e.xact_id FETCH FIRST (CAST(:budget AS bigint)) ROWS WITH TIES
""")
_EMISSIONS: Final = """
    SELECT e.id, e.emission, e.position_id, e.topic, e.position_version, CAST(e.xact_id AS text) AS xact_id,
           COALESCE(e.xact_id < a.audited_through, false) AS judged
    FROM outbox_events e LEFT JOIN outbox_audit a ON a.day = e.created_on
"""
# The days are named so that each partition finds the ids through its primary key (created_on, id, emission).
_OF_EVENTS: Final = "WHERE e.created_on = ANY(CAST(:days AS date[])) AND e.id = ANY(CAST(:ids AS uuid[]))"
_EMISSIONS_OF_EVENTS: Final = text(f"{_EMISSIONS} {_OF_EVENTS}")
_EMISSIONS_OF_POSITIONS: Final = text(f"{_EMISSIONS} WHERE e.position_id = ANY(CAST(:positions AS bigint[]))")
_UNJUDGED_AMONG: Final = text(f"""
    SELECT e.id, e.emission FROM outbox_events e LEFT JOIN outbox_audit a ON a.day = e.created_on
    {_OF_EVENTS} AND (a.day IS NULL OR e.xact_id >= a.audited_through)
""")  # noqa: S608 (a constant of ours)
_LOCK_POSITIONS: Final = text("""
    SELECT FROM positions WHERE id = ANY(CAST(:positions AS bigint[])) ORDER BY id FOR NO KEY UPDATE
""")
_LOCK_REQUESTS: Final = text("""
    SELECT FROM close_requests
    WHERE position_id = ANY(CAST(:positions AS bigint[])) AND status IN ('pending', 'submitted', 'retryable')
    ORDER BY id FOR NO KEY UPDATE
""")
_COPY: Final = text("""
    WITH wanted AS (
        SELECT id, emission, n FROM unnest(CAST(:ids AS uuid[]), CAST(:emissions AS integer[])) WITH ORDINALITY
            AS w (id, emission, n)
    )
    INSERT INTO outbox_events (id, emission, topic, key, event_type, schema_version, payload, traceparent,
        close_request_id, attempt, position_id, position_version)
    SELECT e.id, e.emission + 1, e.topic, e.key, e.event_type, e.schema_version,
        e.payload || CASE WHEN e.payload ? 'emission' THEN jsonb_build_object('emission', e.emission + 1) ELSE '{}' END,
        e.traceparent, e.close_request_id, e.attempt, e.position_id, e.position_version
    FROM wanted w JOIN outbox_events e USING (id, emission)
    WHERE e.created_on = ANY(CAST(:days AS date[]))
    ORDER BY w.n
""")
# A request that is emitted again when it is due takes the next number after this.
_COUNT_ON: Final = text("""
    UPDATE close_requests r SET emission = e.emission + 1
    FROM outbox_events e JOIN unnest(CAST(:ids AS uuid[]), CAST(:emissions AS integer[])) AS w (id, emission)
        USING (id, emission)
    WHERE e.created_on = ANY(CAST(:days AS date[])) AND e.topic = 'submit-order'
      AND r.id = e.close_request_id AND r.attempt = e.attempt AND r.emission <= e.emission
      AND r.status IN ('pending', 'submitted', 'retryable')
""")
_DAYS_OF_POSITION: Final = text("""
    SELECT DISTINCT created_on FROM outbox_events WHERE position_id = :position_id ORDER BY created_on
""")
# An import makes version 1 in silence.
_DROPPED: Final = text("""
    SELECT (SELECT p.version - 1 FROM positions p WHERE p.id = :position_id)
           - (SELECT count(DISTINCT e.position_version) FROM outbox_events e
              WHERE e.position_id = :position_id AND e.topic = 'position-events')
           + (SELECT count(*) FROM executions x
              WHERE x.position_id = :position_id
                AND NOT EXISTS (SELECT FROM outbox_events e
                                WHERE e.position_id = :position_id AND e.topic = 'execution-events'
                                  AND e.payload ->> 'exec_id' = x.exec_id)) AS dropped
""")
_POSITIONS_READ: Final = text('SELECT topic, partition, "offset", read_up_to, last_ms FROM outbox_audit_positions')
_SAVE_POSITIONS: Final = insert_rows(
    outbox_audit_positions,
    ("topic", "partition", "offset", "read_up_to", "last_ms"),
    conflict="""(topic, partition) DO UPDATE SET "offset" = EXCLUDED."offset",
        read_up_to = EXCLUDED.read_up_to, last_ms = EXCLUDED.last_ms
        WHERE COALESCE(
            CAST(:before AS jsonb) -> EXCLUDED.topic -> CAST(EXCLUDED.partition AS text) = jsonb_build_array(
                outbox_audit_positions."offset", outbox_audit_positions.read_up_to, outbox_audit_positions.last_ms),
            true)""",
)
_READ_ALL_AGAIN: Final = text('UPDATE outbox_audit_positions SET "offset" = 0, read_up_to = NULL, last_ms = NULL')
_JUDGE_ALL_AGAIN: Final = text("UPDATE outbox_audit SET audited_through = '0'")
_MARK: Final = text("""
    INSERT INTO outbox_audit (day, audited_through, missing)
    SELECT day, audited_through, missing FROM jsonb_populate_recordset(NULL::outbox_audit, CAST(:rows AS jsonb))
    ON CONFLICT (day) DO UPDATE SET audited_through = EXCLUDED.audited_through, missing = EXCLUDED.missing
    WHERE outbox_audit.audited_through = CAST(CAST(:before AS jsonb) ->> CAST(EXCLUDED.day AS text) AS xid8)
""")


async def snapshot_xmin(tx: Transaction) -> int:
    """Every transaction below it has ended."""
    return int((await tx.execute(_XMIN)).scalar_one())


async def unjudged_rows(tx: Transaction, *, day: date, through: int, below: int, budget: int) -> list[OutboxRow]:
    """The day's rows from the mark on, below the snapshot's xmin, in the order of their transactions: whole ones, until
    there are `budget` rows or more."""
    parameters = {"day": day, "through": str(through), "below": str(below), "budget": budget}
    return [
        OutboxRow((row.id, row.emission), row.position_id, int(row.xact_id), row.occurred_at)
        for row in await tx.execute(_UNJUDGED, parameters)
    ]


async def emissions_of(tx: Transaction, *, days: Collection[date], ids: Collection[UUID]) -> list[Emission]:
    """Every emission of some events in the outbox of those days."""
    return await _emissions(tx, _EMISSIONS_OF_EVENTS, {"days": list(days), "ids": list(ids)})


async def locked_emissions(tx: Transaction, *, positions: Collection[int]) -> list[Emission]:
    """Every emission of every event of some positions. Nobody adds one until this transaction ends: it takes the locks
    of rule R7, which whoever writes an event of a position holds."""
    named = {"positions": list(positions)}
    await tx.execute(_LOCK_POSITIONS, named)
    await tx.execute(_LOCK_REQUESTS, named)
    return await _emissions(tx, _EMISSIONS_OF_POSITIONS, named)


async def _emissions(tx: Transaction, statement: TextClause, parameters: Mapping[str, object]) -> list[Emission]:
    return [
        Emission((row.id, row.emission), row.position_id, row.topic, row.position_version, int(row.xact_id), row.judged)
        for row in await tx.execute(statement, parameters)
    ]


async def copy_events(tx: Transaction, *, days: Collection[date], keys: Sequence[EventKey]) -> int:
    """Emit again what `keys` name, in their order: the same event with the next emission, a fresh time and today's day.

    Each key has to be the highest emission of its event; returns how many were copied.
    """
    parameters = {"days": list(days), "ids": [key[0] for key in keys], "emissions": [key[1] for key in keys]}
    await tx.execute(_COUNT_ON, parameters)
    return (await tx.execute(_COPY, parameters)).rowcount


async def days_of_position(tx: Transaction, *, position_id: int) -> list[date]:
    """The days of the outbox that have an event of the position."""
    return list((await tx.execute(_DAYS_OF_POSITION, {"position_id": position_id})).scalars())


async def events_dropped(tx: Transaction, *, position_id: int) -> int:
    """How many versions and executions of the position the outbox has no event of any more."""
    return int((await tx.execute(_DROPPED, {"position_id": position_id})).scalar_one())


async def unjudged_among(tx: Transaction, *, days: Collection[date], keys: Collection[EventKey]) -> frozenset[EventKey]:
    """Which of the keys have a row that the marks have not passed: the others are of no more use to the audit."""
    found = await tx.execute(_UNJUDGED_AMONG, {"days": list(days), "ids": [key[0] for key in keys]})
    return frozenset((row.id, row.emission) for row in found)


class AuditPosition(NamedTuple):
    """How far the audit is in a partition: what lies before `offset` is of no use to it any more. It has read up to
    `read_up_to`, and Kafka gave the last of those records the time `last_ms` (milliseconds since 1970)."""

    offset: int
    read_up_to: int | None = None
    last_ms: int | None = None


async def read_positions(tx: Transaction) -> dict[tuple[str, int], AuditPosition]:
    """By topic and partition, from where on it has to be read; empty when it never was."""
    return {(row.topic, row.partition): AuditPosition(*row[2:]) for row in await tx.execute(_POSITIONS_READ)}


async def judge_all_again(tx: Transaction) -> None:
    """Take every mark back to the beginning, of the rows and of the topics: what was seen may be gone."""
    await tx.execute(_READ_ALL_AGAIN)
    await tx.execute(_JUDGE_ALL_AGAIN)


class AuditedElsewhere(Exception):
    """Another process has moved a mark: this one no longer audits alone."""


async def save_positions(
    tx: Transaction,
    *,
    positions: Mapping[tuple[str, int], AuditPosition],
    before: Mapping[tuple[str, int], AuditPosition],
) -> None:
    """By topic and partition, how far the audit is; the next one begins there. Raises AuditedElsewhere when one that
    was known is not where it was `before` any more: somebody else may have found that the topic lost records."""
    rows = [
        {"topic": topic, "partition": number, **one._asdict()}
        for (topic, number), one in sorted(positions.items())
        if before.get((topic, number)) != one
    ]
    if not rows:
        return
    known: defaultdict[str, dict[int, AuditPosition]] = defaultdict(dict)
    for (topic, number), one in before.items():
        known[topic][number] = one
    saved = await tx.execute(_SAVE_POSITIONS, {"rows": rows_json(rows), "before": json.dumps(known)})
    if saved.rowcount != len(rows):
        raise AuditedElsewhere(f"{len(rows) - saved.rowcount} of {len(rows)} positions were moved by another process")


async def save_marks(tx: Transaction, *, days: Sequence[AuditedDay], before: Mapping[date, int]) -> None:
    """Move marks from where they were `before`; raises AuditedElsewhere when one of them is not there any more.

    A mark that somebody else took back would have rows judged again that its owner has forgotten seeing.
    """
    rows = [
        {
            "day": one.day.isoformat(),
            "audited_through": str(one.through),
            "missing": [{"id": str(event_id), "emission": emission} for event_id, emission in sorted(one.missing)],
        }
        for one in days
    ]
    if not rows:
        return
    marks = json.dumps({day.isoformat(): str(through) for day, through in before.items()})
    saved = await tx.execute(_MARK, {"rows": rows_json(rows), "before": marks})
    if saved.rowcount != len(rows):
        raise AuditedElsewhere(f"{len(rows) - saved.rowcount} of {len(rows)} marks were moved by another process")
