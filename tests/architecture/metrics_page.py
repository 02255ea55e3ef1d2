"""docs/metrics.md, made from the metrics that the sources define and from what an operator does about each."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .markdown import link, table
from .repository import REPOSITORY

HEAD: Final = """# Metrics

Every metric that the services serve at `/metrics` on their port, beside `process_*` and `python_*` of the client
library. Name, type, labels, who has it and what it tells come from the sources; `python -m tests.architecture.pages`
writes this page, and a test fails while it is not what that writes, or while a metric is not explained. What needs a
person is an [incident](operations.md#incidents) in any case; these figures show it coming.
"""
TYPES: Final = frozenset({"Counter", "Gauge", "Histogram", "Summary", "Info", "Enum"})
SERVICES: Final = ("close-api", "order-submitter", "broker-gateway", "fill-processor", "reconciler")
SHARED: Final[Mapping[str, str]] = {
    "closeflow_kafka_records_total": "run_consumer",
    "closeflow_kafka_batch_seconds": "run_consumer",
    "closeflow_kafka_lag_records": "run_consumer",
    "closeflow_kafka_published_total": "open_producer",
    "closeflow_clock_skew_seconds": "beating",
    "closeflow_broker_stream_messages_total": "trade_updates",
}
"""A metric of the library is there in the services that call this."""
ODD: Final[Mapping[str, str]] = {
    "close_api_batch_size": "always at the largest: closes come faster than the database commits them",
    "close_api_closes_total": (
        "`overloaded`, `unavailable`: look at `close_api_waiting_closes` and the database; `internal_error`: the log "
        "has `request_failed` with the trace id"
    ),
    "close_api_commits_unknown_total": "rises while the database fails over; if it goes on, look at the network to it",
    "close_api_grpc_calls_total": (
        "`unauthenticated` rises: tokens expire or a key is gone; `malformed_body`, `invalid_fields`: a caller that is "
        "made for another version; `internal_error`: the log has `call_failed` with the trace id"
    ),
    "close_api_tokens_refused_total": (
        "`no_keys`: the issuer's key set is away (`key_set_given_up` in the log); `unknown_key`, `issuer`, `audience`: "
        "a caller with tokens of another issuer; `signature`: somebody tries"
    ),
    "close_api_verifying_keys": "0: every token is refused; the log has `key_set_not_read` or `key_not_used`",
    "close_api_waiting_closes": "grows: the database is slow; at `CLOSE_API_QUEUE_CAPACITY` come `overloaded`",
    "close_api_watchers": "near 1000: more calls wait for changes than one process takes; they get `overloaded`",
    "closeflow_broker_answers_total": (
        "`Unanswered` rises: the broker or the network (each is looked up); `NotAccepted`: its rate limit, or the key; "
        "`Refused`: the closes' `reason`, see [refusals](operations.md#refusals)"
    ),
    "closeflow_broker_call_seconds": "near `ORDER_SUBMITTER_HTTP_DEADLINE_S`: the broker is slow (`Unanswered`)",
    "closeflow_broker_stream_messages_total": (
        "`unreadable`, `unknown_event`: the log has the message; a backfill asks for what it said"
    ),
    "closeflow_broker_updates_total": (
        "`Quarantined`: an incident and a frozen close each; `Repeated` is normal after restarts and backfills"
    ),
    "closeflow_clock_skew_seconds": "beyond ±1: set the host's clock (`clock_skew`)",
    "closeflow_connector_restarts_total": "rises: the cause is in the connector's status and the worker's log",
    "closeflow_connector_running": "0: the open incident says why (`connector_stopped`, `connector_task_failed`)",
    "closeflow_gateway_active": "0 on every instance of an account: nobody hears its broker; 1 on two: never",
    "closeflow_gateway_backfill_failures_total": "rises: the log has `backfill_failed`; it is tried again",
    "closeflow_gateway_listening": "0 on the active instance: its `/readyz` and log say why",
    "closeflow_gateway_published_total": "`backfill` rises while the stream is subscribed: it loses messages",
    "closeflow_gateway_reconnects_total": "rises: the log has `session_ended` with the reason",
    "closeflow_heartbeat_age_seconds": "above 60 while the connector runs: `heartbeat_stale`",
    "closeflow_kafka_batch_seconds": "near 30: the database is slow; a longer batch ends the process",
    "closeflow_kafka_lag_records": "grows: the service is slower than what comes, or stands (`consumer_stalled`)",
    "closeflow_kafka_published_total": "stands while there is something to say: Kafka is away (`kafka_away`)",
    "closeflow_kafka_records_total": "`dead_lettered` rises: `closectl dlq list`; `parked`: `closectl parked list`",
    "closeflow_look_ups_total": "`NotFound` rises: orders whose sends were not answered, soon `order_not_found`",
    "closeflow_outbox_emitted_again_total": "rises: the slot was lost or moved on",
    "closeflow_outbox_missing_events": "above 0: `event_not_published`; look at the connector and the slot",
    "closeflow_plans_total": "`Defer` only: the closes' `reason`, see [prices](operations.md#prices)",
    "closeflow_reconciler_cycle_seconds": "near five intervals of the job: `job_stalled` is next; lower its budget",
    "closeflow_reconciler_failures_total": "rises: the log has `job_failed` with the error; the job is run again",
    "closeflow_reconciler_repairs_total": "`repair_positions` above 0: somebody wrote to the tables (`repaired`)",
    "closeflow_replication_slot_active": "0 while the connector runs: `slot_inactive`",
    "closeflow_replication_slot_lag_bytes": "grows: the connector does not get through (`slot_lag`)",
    "closeflow_replication_slot_wal_left_bytes": "falls: make room for WAL before it is 0 and the slot is lost",
    "closeflow_sends_in_flight": "stays at `ORDER_SUBMITTER_IN_FLIGHT`: the broker answers too slowly",
    "closeflow_slot_recoveries_total": "rises: find out who drops the slot (`slot_lost`)",
}
"""By metric: what of it is odd, and what to look at then."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as its constructor is called in `file`."""

    name: str
    type: str
    tells: str
    labels: tuple[str, ...]
    file: Path


def page() -> str:
    """The whole page."""
    rows = [
        (
            link(f"`{one.name}`", one.file),
            one.type,
            ", ".join(f"`{label}`" for label in one.labels),
            ", ".join(services(one)),
            one.tells,
            ODD.get(one.name, ""),
        )
        for one in metrics()
    ]
    return "\n".join(
        [HEAD, table(("metric", "type", "labels", "service", "what it tells", "odd, and what to do"), rows)]
    )


def metrics() -> list[Metric]:
    """Every metric of the library and the services, by name."""
    roots = (REPOSITORY / "libs", REPOSITORY / "services")
    files = [file for root in roots for file in root.glob("*/src/**/*.py")]
    return sorted((one for file in files for one in _defined(file)), key=lambda one: one.name)


def services(metric: Metric) -> list[str]:
    """Whose `/metrics` has it: the service whose code defines it, or those that call what keeps it."""
    if metric.name not in SHARED:
        return [metric.file.relative_to(REPOSITORY / "services").parts[0]]
    return [one for one in SERVICES if SHARED[metric.name] in _names(one)]


def _names(service: str) -> set[str]:
    """What the service imports by name."""
    return {
        alias.name
        for file in (REPOSITORY / "services" / service / "src").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _defined(file: Path) -> Iterator[Metric]:
    tree = ast.parse(file.read_text())
    from_client = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "prometheus_client"
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TYPES & from_client:
            name, tells, *labels = (ast.literal_eval(one) for one in node.args)
            yield Metric(name, node.func.id.lower(), tells, tuple(labels[0]) if labels else (), file)
