"""Every table of the database, as SQLAlchemy Core objects. The migrations are the source; a test holds the two equal.

Signs: `positions.quantity`, `positions.opening_qty` and `position_adjustments.delta` are signed (short < 0); every
other quantity is positive with a `side`. All times are `timestamptz`.
"""

from typing import Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    Computed,
    Date,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Numeric,
    Table,
    UniqueConstraint,
    text,
)

from closeflow.storage.predicates import NOT_ENDED, UNFINISHED
from closeflow.storage.schema.column_types import (
    ASSET_TYPES,
    CLOSE_REQUEST_STATUSES,
    LOT,
    ORDER_STATUSES,
    ORDER_TYPES,
    POSITION_STATUSES,
    SIDES,
    SOURCES,
    STATEMENT_KINDS,
    TIMES_IN_FORCE,
    big,
    document,
    flag,
    identity,
    metadata,
    moment,
    number,
    one_of,
    stamp,
    uuid_,
    whole,
    words,
    xact,
)
from closeflow.storage.schema.operation_tables import (
    account_limits,
    broker_breakers,
    broker_cursors,
    dead_letter_actions,
    execution_charges,
    inbox,
    incidents,
    non_trade_activities,
    operator_actions,
    outbox_audit,
    parked_records,
    status_history,
    trading_controls,
)

__all__ = [
    "account_limits",
    "accounts",
    "broker_breakers",
    "broker_cursors",
    "close_requests",
    "dead_letter_actions",
    "debezium_heartbeat",
    "execution_aliases",
    "execution_charges",
    "executions",
    "inbox",
    "incidents",
    "metadata",
    "non_trade_activities",
    "operator_actions",
    "order_sends",
    "order_statements",
    "orders",
    "outbox_audit",
    "outbox_events",
    "parked_records",
    "position_adjustments",
    "positions",
    "senders",
    "status_history",
    "trading_controls",
    "withheld_executions",
]

accounts: Final = Table(
    "accounts",
    metadata,
    words("account_id", primary_key=True),
    words("broker"),
    words("credentials_ref", nullable=True),
)

positions: Final = Table(
    "positions",
    metadata,
    identity(),  # an import may give its own ids
    words("account_id", ForeignKey("accounts.account_id")),
    words("symbol"),
    one_of("asset_type", ASSET_TYPES),
    number("multiplier", "> 0", server_default=text("1")),
    words("currency", server_default=text("'USD'")),
    number("opening_qty"),
    number("quantity"),
    one_of("status", POSITION_STATUSES, server_default=text("'open'")),
    # No foreign key: close_requests refers to positions already, and REC's repair job owns a disagreement.
    uuid_("active_close_request_id", nullable=True),
    moment("closed_at"),
    moment("reopened_at"),
    big("overfill_of", ForeignKey("positions.id"), nullable=True),
    flag("exposure_unproven", "false"),
    big("version", server_default=text("1")),
    stamp("created_at"),
    stamp("updated_at"),
    CheckConstraint(f"status <> 'closed' OR (abs(quantity) < {LOT} AND closed_at IS NOT NULL)", name="closed"),
)
Index(
    "positions_netted_key",
    positions.c.account_id,
    positions.c.symbol,
    unique=True,
    postgresql_where=text("status <> 'closed' AND overfill_of IS NULL AND reopened_at IS NULL"),
)
Index(None, positions.c.account_id, positions.c.symbol, positions.c.updated_at)
Index(None, positions.c.status, positions.c.account_id, positions.c.id)
Index(None, positions.c.symbol, positions.c.status, positions.c.account_id, positions.c.id)
Index("positions_held_idx", positions.c.account_id, positions.c.symbol, postgresql_where=text("quantity <> 0"))
Index(
    "positions_closing_idx",
    positions.c.id,
    postgresql_where=text("status IN ('closing', 'close_retryable') OR active_close_request_id IS NOT NULL"),
)
Index(
    "positions_overfill_of_key",
    positions.c.overfill_of,
    unique=True,
    postgresql_where=text("overfill_of IS NOT NULL"),
)

position_adjustments: Final = Table(
    "position_adjustments",
    metadata,
    identity(),
    big("position_id", ForeignKey("positions.id"), index=True),
    number("delta", "<> 0"),
    words("reason"),
    words("source"),
    words("by"),
    stamp("at"),
)

close_requests: Final = Table(
    "close_requests",
    metadata,
    uuid_("id", primary_key=True),
    big("position_id", ForeignKey("positions.id")),
    words("account_id"),
    words("idempotency_key"),
    words("fingerprint"),
    words("requested_by"),
    words("requested_reason", nullable=True),
    one_of("status", CLOSE_REQUEST_STATUSES, server_default=text("'pending'")),
    words("reason", nullable=True),
    words("symbol"),
    one_of("side", SIDES),
    one_of("asset_type", ASSET_TYPES),
    number("target_qty", "> 0"),
    number("filled_qty", ">= 0", server_default=text("0")),
    Column("remaining_qty", Numeric, Computed("GREATEST(target_qty - filled_qty, 0)", persisted=True)),
    whole("attempt", ">= 1", server_default=text("1")),
    whole("retry_count", ">= 0", server_default=text("0")),
    whole("max_retries", ">= 0", server_default=text("3")),
    one_of("order_type", ORDER_TYPES, server_default=text("'limit'")),
    number("limit_price", "> 0", nullable=True),
    whole("max_slippage_bps", ">= 0", nullable=True),
    one_of("time_in_force", TIMES_IN_FORCE),
    whole("working_timeout_s", "> 0", server_default=text("60")),
    moment("deadline_at"),
    moment("next_attempt_at"),
    moment("deferred_since"),
    whole("emission", ">= 1", server_default=text("1")),
    flag("auto_retry", "true"),
    words("frozen_reason", nullable=True),
    xact(),
    moment("cancel_requested_at"),
    words("traceparent", nullable=True),
    stamp("created_at"),
    moment("submitted_at"),
    moment("completed_at"),
    stamp("updated_at"),
    UniqueConstraint("position_id", "idempotency_key"),
)
Index("close_requests_active_key", close_requests.c.position_id, unique=True, postgresql_where=UNFINISHED)
Index("close_requests_unfinished_idx", close_requests.c.status, close_requests.c.id, postgresql_where=UNFINISHED)
Index(None, close_requests.c.next_attempt_at, postgresql_where=UNFINISHED)
Index(None, close_requests.c.account_id, close_requests.c.id)
Index(None, close_requests.c.status, close_requests.c.account_id, close_requests.c.id)

outbox_events: Final = Table(
    "outbox_events",
    metadata,
    Column("created_on", Date, primary_key=True, server_default=text("(closeflow_now() AT TIME ZONE 'UTC')::date")),
    uuid_("id", primary_key=True),
    whole("emission", ">= 1", primary_key=True, server_default=text("1")),
    words("topic"),
    words("key"),
    words("event_type"),
    # The payload's schema by its released name, such as submit-order.v1: the header ce_dataschema.
    words("schema_version"),
    document("payload", nullable=False),
    words("traceparent", nullable=True),
    stamp("occurred_at"),
    uuid_("close_request_id", nullable=True),
    whole("attempt", nullable=True),
    big("position_id", nullable=True),
    big("position_version", nullable=True),
    xact(),
    words("specversion", server_default=text("'1.0'")),
    CheckConstraint(r"schema_version ~ '^(urn:closeflow:)?[a-z][a-z-]*\.v[0-9]+$'", name="schema_version"),
    postgresql_partition_by="RANGE (created_on)",
)
Index(None, outbox_events.c.close_request_id)
Index(None, outbox_events.c.position_id)
Index(None, outbox_events.c.xact_id)

debezium_heartbeat: Final = Table(
    "debezium_heartbeat",
    metadata,
    whole("id", primary_key=True, autoincrement=False),
    stamp("at"),
)

orders: Final = Table(
    "orders",
    metadata,
    words("client_order_id", primary_key=True),
    uuid_("close_request_id", ForeignKey("close_requests.id")),
    whole("attempt", ">= 1"),
    big("position_id", ForeignKey("positions.id"), index=True),
    words("account_id"),
    words("symbol"),
    one_of("side", SIDES),
    number("quantity", "> 0"),
    one_of("order_type", ORDER_TYPES),
    number("limit_price", "> 0", nullable=True),
    one_of("time_in_force", TIMES_IN_FORCE),
    document("quote"),
    one_of("status", ORDER_STATUSES, server_default=text("'planned'")),
    words("broker_order_id", nullable=True),
    number("executed_qty", ">= 0", server_default=text("0")),
    number("stated_cum_qty", ">= 0", server_default=text("0")),
    number("avg_price", nullable=True),
    number("overfill_qty", ">= 0", server_default=text("0")),
    big("broker_update_seq", nullable=True),
    moment("last_broker_update_at"),
    whole("reconcile_not_found_count", ">= 0", server_default=text("0")),
    moment("next_send_at"),
    moment("cancel_requested_at"),
    words("reject_code", nullable=True),
    one_of("reject_class", ("retryable", "terminal"), nullable=True),
    stamp("created_at"),
    stamp("updated_at"),
    UniqueConstraint("close_request_id", "attempt"),
    # Invariant 7: the id is a function of (request, attempt), also for a hand-made row.
    CheckConstraint(
        "client_order_id = 'cf-' || replace(close_request_id::text, '-', '') || '-' || attempt::text",
        name="client_order_id",
    ),
)
Index(
    "orders_account_id_broker_order_id_key",
    orders.c.account_id,
    orders.c.broker_order_id,
    unique=True,
    postgresql_where=text("broker_order_id IS NOT NULL"),
)
Index(None, orders.c.account_id, orders.c.symbol, orders.c.created_at)
Index("orders_working_idx", orders.c.status, orders.c.client_order_id, postgresql_where=NOT_ENDED)
Index(None, orders.c.next_send_at, postgresql_where=text("status IN ('planned', 'submit_unknown')"))
Index("orders_gap_idx", orders.c.client_order_id, postgresql_where=text("stated_cum_qty > executed_qty"))

order_sends: Final = Table(
    "order_sends",
    metadata,
    words("client_order_id", ForeignKey("orders.client_order_id"), primary_key=True),
    one_of("kind", ("submit", "cancel"), primary_key=True),
    whole("n", ">= 1", primary_key=True),
    words("sender"),
    moment("lease_until", nullable=False),
    stamp("started_at"),
    # By default a claim may have written: whoever claims knowing of this column says NULL.
    moment("begun_at", server_default=text("closeflow_now()")),
    moment("answered_at"),
    one_of("answer", ("accepted", "rejected", "not_sent", "not_accepted", "unknown"), nullable=True),
    flag("probe", "false"),
    CheckConstraint("(answered_at IS NULL) = (answer IS NULL)", name="answered"),
)
Index(None, order_sends.c.lease_until, postgresql_where=text("answered_at IS NULL"))

senders: Final = Table(
    "senders",
    metadata,
    words("instance_id", primary_key=True),
    words("host"),
    whole("pid"),
    stamp("started_at"),
    stamp("last_seen_at"),
    moment("exited_at"),
    words("runs_in", nullable=True),
    big("process_started", nullable=True),
    flag("says_it_closes", "false"),
)

order_statements: Final = Table(
    "order_statements",
    metadata,
    words("client_order_id", ForeignKey("orders.client_order_id"), primary_key=True),
    one_of("kind", STATEMENT_KINDS, primary_key=True),
    words("broker_order_id", nullable=True),
    big("broker_seq", nullable=True),
    number("cum_qty", ">= 0", nullable=True),
    number("leaves_qty", ">= 0", nullable=True),
    moment("stated_at", nullable=False),
    one_of("source", SOURCES),
    document("detail"),
    moment("heard_at"),
)

executions: Final = Table(
    "executions",
    metadata,
    words("broker", primary_key=True),
    words("account_id", primary_key=True),
    words("exec_id", primary_key=True),
    words("client_order_id", ForeignKey("orders.client_order_id"), index=True),
    big("position_id", ForeignKey("positions.id"), index=True),
    one_of("kind", ("trade", "bust", "correct")),
    words("ref_exec_id", nullable=True),
    one_of("side", SIDES),
    number("quantity", "> 0", nullable=True),
    number("price", ">= 0", nullable=True),
    number("cum_qty", ">= 0", nullable=True),
    big("broker_seq", nullable=True),
    moment("occurred_at", nullable=False),
    one_of("source", SOURCES),
    stamp("recorded_at"),
    # A bust may arrive before what it busts, so it need not know the quantity.
    CheckConstraint("kind = 'bust' OR (quantity IS NOT NULL AND price IS NOT NULL)", name="traded"),
    CheckConstraint("(kind = 'trade') = (ref_exec_id IS NULL)", name="ref_exec_id"),
)

withheld_executions: Final = Table(
    "withheld_executions",
    metadata,
    words("broker", primary_key=True),
    words("account_id", primary_key=True),
    words("exec_id", primary_key=True),
    words("client_order_id", ForeignKey("orders.client_order_id"), index=True),
    one_of("side", SIDES),
    number("quantity", "> 0"),
    number("price", ">= 0"),
    number("cum_qty", ">= 0", nullable=True),
    big("broker_seq", nullable=True),
    moment("occurred_at", nullable=False),
    one_of("source", SOURCES),
    stamp("recorded_at"),
)

execution_aliases: Final = Table(
    "execution_aliases",
    metadata,
    words("broker", primary_key=True),
    words("account_id", primary_key=True),
    words("alias_id", primary_key=True),
    words("exec_id"),
    ForeignKeyConstraint(
        ["broker", "account_id", "exec_id"], ["executions.broker", "executions.account_id", "executions.exec_id"]
    ),
)
