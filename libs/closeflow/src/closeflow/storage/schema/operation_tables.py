"""The tables around the trade: receipts, parked records, history, incidents, controls and cursors."""

from typing import Final

from sqlalchemy import Column, Computed, Date, ForeignKey, Index, LargeBinary, Table, text

from closeflow.storage.schema.column_types import (
    SOURCES,
    Xid8,
    big,
    document,
    identity,
    metadata,
    moment,
    number,
    one_of,
    stamp,
    uuid_,
    whole,
    words,
)

inbox: Final = Table(
    "inbox",
    metadata,
    words("consumer", primary_key=True),
    uuid_("event_id", primary_key=True),
    stamp("received_at"),
    one_of("outcome", ("applied", "parked", "ignored")),
)
Index(None, inbox.c.event_id)
Index(None, inbox.c.received_at)

execution_charges: Final = Table(
    "execution_charges",
    metadata,
    words("broker", primary_key=True),
    words("account_id", primary_key=True),
    words("charge_id", primary_key=True),
    words("exec_id"),
    words("client_order_id", ForeignKey("orders.client_order_id"), index=True),
    number("commission"),
    number("fees"),
    words("currency", nullable=True),
    moment("occurred_at", nullable=False),
    one_of("source", SOURCES),
    stamp("recorded_at"),
)

parked_records: Final = Table(
    "parked_records",
    metadata,
    words("topic", primary_key=True),
    whole("partition", primary_key=True, autoincrement=False),
    big("offset", primary_key=True, autoincrement=False),
    Column("key", LargeBinary),
    document("headers"),
    Column("bytes", LargeBinary),
    words("reason"),
    words("client_order_id", nullable=True),
    stamp("parked_at"),
    moment("released_at"),
)
Index(None, parked_records.c.client_order_id, postgresql_where=text("released_at IS NULL"))
Index(None, parked_records.c.parked_at)

# The letters that an operator has replayed or discarded; `appended_at` is the time that Kafka has of the letter.
dead_letter_actions: Final = Table(
    "dead_letter_actions",
    metadata,
    words("topic", primary_key=True),
    whole("partition", primary_key=True, autoincrement=False),
    big("offset", primary_key=True, autoincrement=False),
    moment("appended_at", primary_key=True, nullable=False),
    one_of("action", ("replayed", "discarded")),
    words("by"),
    words("reason"),
    stamp("at"),
)

# Written by triggers only (migration 0005): every change of status of the three entities, an insert being from NULL.
status_history: Final = Table(
    "status_history",
    metadata,
    identity(),
    one_of("entity", ("position", "close_request", "order")),
    words("entity_id"),
    words("from_status", nullable=True),
    words("to_status"),
    words("reason", nullable=True),
    words("event_id", nullable=True),
    words("by"),
    stamp("at"),
)
Index(None, status_history.c.entity, status_history.c.entity_id, status_history.c.id)

incidents: Final = Table(
    "incidents",
    metadata,
    identity(),
    words("kind"),
    one_of("severity", ("info", "warning", "critical")),
    big("position_id", nullable=True),
    uuid_("close_request_id", nullable=True),
    words("client_order_id", nullable=True),
    document("detail", nullable=False, server_default=text("'{}'::jsonb")),
    # What it is about, the most specific first; detail->>'subject' names what is none of them.
    words(
        "subject",
        Computed(
            "COALESCE(client_order_id, close_request_id::text, position_id::text, detail ->> 'subject', '')",
            persisted=True,
        ),
        nullable=True,
    ),
    stamp("opened_at"),
    stamp("last_seen_at"),
    whole("count", ">= 1", server_default=text("1")),
    moment("closed_at"),
    words("closed_by", nullable=True),
    words("resolution", nullable=True),
)
# A writer reports with ON CONFLICT (kind, subject) WHERE closed_at IS NULL DO UPDATE: count + 1, last_seen_at.
Index(
    "incidents_open_key",
    incidents.c.kind,
    incidents.c.subject,
    unique=True,
    postgresql_where=text("closed_at IS NULL"),
)
Index(None, incidents.c.close_request_id)
Index(None, incidents.c.position_id)
Index(None, incidents.c.closed_at, postgresql_where=text("closed_at IS NOT NULL"))

# From when on a table that loses its old rows is whole, written by what drops them (migration 0020).
retention_horizons: Final = Table(
    "retention_horizons", metadata, words("kept_in", primary_key=True), moment("since", nullable=False)
)

operator_actions: Final = Table(
    "operator_actions",
    metadata,
    identity(),
    words("by"),
    words("action"),
    words("subject"),
    words("reason"),
    document("before"),
    document("after"),
    stamp("at"),
    words("account_id", nullable=True),  # NULL where no account alone is concerned
    words("trace_id", nullable=True),
)
Index(None, operator_actions.c.subject, operator_actions.c.id)
Index(None, operator_actions.c.account_id, operator_actions.c.id)

trading_controls: Final = Table(
    "trading_controls",
    metadata,
    words("scope", primary_key=True),  # 'global' or an account id
    one_of("state", ("active", "reducing", "halted")),
    words("reason"),
    words("by"),
    stamp("at"),
)

account_limits: Final = Table(
    "account_limits",
    metadata,
    words("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    # Finite from the account's first moment: a trigger on accounts makes the row (migration 0008).
    number("max_order_qty", "> 0", server_default=text("1000000")),
    number("max_order_notional", "> 0", server_default=text("100000000")),
    whole("submits_per_minute", "> 0", server_default=text("6000")),
    moment("window_started_at"),
    whole("window_count", ">= 0", server_default=text("0")),
)

broker_cursors: Final = Table(
    "broker_cursors",
    metadata,
    words("broker", primary_key=True),
    words("account_id", primary_key=True),
    words("feed", primary_key=True),
    words("position"),
    stamp("at"),
)

broker_breakers: Final = Table(
    "broker_breakers",
    metadata,
    words("broker", primary_key=True),
    words("account_id", primary_key=True),
    one_of("state", ("closed", "open", "half_open"), server_default=text("'closed'")),
    whole("failures", ">= 0", server_default=text("0")),
    whole("refusals", ">= 0", server_default=text("0")),
    moment("opened_at"),
    moment("probe_at"),
)

job_cycles: Final = Table(
    "job_cycles",
    metadata,
    words("job", primary_key=True),
    big("cycles", server_default=text("0")),
    whole("allowed_s", "> 0", nullable=True),  # NULL for a job that is no more
    moment("finished_at"),
)

# The history of the database (closeflow_history()) in which the account's orders are known to be, and when it was seen.
account_histories: Final = Table(
    "account_histories",
    metadata,
    words("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    words("history"),
    stamp("seen_at"),
)

# One row per day of the outbox: every event whose xact_id is below audited_through is in Kafka, unless it is listed in
# missing as {"id": ..., "emission": ...}.
outbox_audit: Final = Table(
    "outbox_audit",
    metadata,
    Column("day", Date, primary_key=True),
    Column("audited_through", Xid8, nullable=False),
    document("missing", nullable=False, server_default=text("'[]'::jsonb")),
)

# From where on the audit has to read each topic: what lies before is of no use to a mark that has still to be moved.
# The last record that it read lies before `read_up_to`, and Kafka gave it the time `last_ms`.
outbox_audit_positions: Final = Table(
    "outbox_audit_positions",
    metadata,
    words("topic", primary_key=True),
    whole("partition", primary_key=True, autoincrement=False),
    big("offset"),
    big("read_up_to", nullable=True),
    big("last_ms", nullable=True),
)

non_trade_activities: Final = Table(
    "non_trade_activities",
    metadata,
    words("broker", primary_key=True),
    words("account_id", primary_key=True),
    words("activity_id", primary_key=True),
    words("kind"),
    words("symbol", nullable=True),
    number("quantity", nullable=True),
    one_of("outcome", ("ended", "told")),
    stamp("at"),
)
