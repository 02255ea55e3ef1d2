"""Every metric of the services: the one list from which they are made, and from which docs/metrics.md is written.

A metric is made by `closeflow.telemetry.metrics`, which knows those of this list alone. `process_*` and `python_*` of
the client library come beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Buckets for everything between a local transaction and the deadline of a batch."""
STAGES: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
"""Buckets for a stage of a close, of which the longest waits for the market."""
RECORDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Buckets for how many items go through one transaction."""


class Type(StrEnum):
    """What Prometheus makes of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as it is declared."""

    type: Type
    meaning: str
    odd: str
    """What of it is odd, and what to look at then."""
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Of a histogram; none: those of the client library."""


METRICS: Final[Mapping[str, Metric]] = {
    "close_api_batch_size": Metric(
        Type.HISTOGRAM,
        "Closes decided in one transaction",
        "always at the largest: closes come faster than the database commits them",
        buckets=RECORDS,
    ),
    "close_api_closes_total": Metric(
        Type.COUNTER,
        "Calls to close a position, by the answer",
        (
            "`overloaded`, `unavailable`: look at `close_api_waiting_closes` and the database; `internal_error`: the "
            "log has `request_failed` with the trace id"
        ),
        ("answer",),
    ),
    "close_api_commits_unknown_total": Metric(
        Type.COUNTER,
        "Transactions whose end was not heard",
        "rises while the database fails over; if it goes on, look at the network to it",
    ),
    "close_api_grpc_calls_total": Metric(
        Type.COUNTER,
        "Calls over gRPC, by method and by how they ended",
        (
            "`unauthenticated` rises: tokens expire or a key is gone; `malformed_body`, `invalid_fields`: a caller "
            "that is made for another version; `internal_error`: the log has `call_failed` with the trace id"
        ),
        ("method", "answer"),
    ),
    "close_api_tokens_refused_total": Metric(
        Type.COUNTER,
        "Calls without a usable bearer token",
        (
            "`no_keys`: the issuer's key set is away (`key_set_given_up` in the log); `unknown_key`, `issuer`, "
            "`audience`: a caller with tokens of another issuer; `signature`: somebody tries"
        ),
        ("reason",),
    ),
    "close_api_verifying_keys": Metric(
        Type.GAUGE,
        "Public keys that tokens are checked with now",
        "0: every token is refused; the log has `key_set_not_read` or `key_not_used`",
    ),
    "close_api_waiting_closes": Metric(
        Type.GAUGE,
        "Closes in the queue that no batch has taken yet",
        "grows: the database is slow; at `CLOSE_API_QUEUE_CAPACITY` come `overloaded`",
    ),
    "close_api_watchers": Metric(
        Type.GAUGE,
        "Calls that wait for a close request to change",
        "near 1000: more calls wait for changes than one process takes; they get `overloaded`",
    ),
    "closeflow_backlog_measured_timestamp_seconds": Metric(
        Type.GAUGE,
        "When this reconciler last counted closes, incidents and parked records, as Unix time",
        "stands: what they show is old; the log has `job_failed` with `measure_backlog`",
    ),
    "closeflow_broker_answers_total": Metric(
        Type.COUNTER,
        "Answers to sends, by what they prove",
        (
            "`Unanswered` rises: the broker or the network (each is looked up); `NotAccepted`: its rate limit, or the "
            "key; `Refused`: the closes' `reason`, see [refusals](operations.md#refusals)"
        ),
        ("kind", "answer"),
    ),
    "closeflow_broker_breaker_open": Metric(
        Type.GAUGE,
        "1 while the circuit breaker of the account is not closed, else 0",
        "1: the broker does not answer, refuses order after order, or refuses the key; one order at a time is tried",
        ("account",),
    ),
    "closeflow_broker_call_seconds": Metric(
        Type.HISTOGRAM,
        "Duration of a call to the broker",
        "near `ORDER_SUBMITTER_HTTP_DEADLINE_S`: the broker is slow (`Unanswered`)",
        ("kind",),
    ),
    "closeflow_broker_rate_tokens": Metric(
        Type.GAUGE,
        "Calls to the broker that this process may make at once; 0 while the broker wants none",
        "stays below 1: this process asks more than its share of the rate limit",
    ),
    "closeflow_broker_stream_messages_total": Metric(
        Type.COUNTER,
        (
            "Messages of the broker's trade-update stream: read, of an unknown event, unreadable, or foreign and "
            "unreadable"
        ),
        "`unreadable`, `unknown_event`: the log has the message; a backfill asks for what it said",
        ("outcome",),
    ),
    "closeflow_broker_updates_total": Metric(
        Type.COUNTER,
        "Broker updates, by what was decided",
        "`Quarantined`: an incident and a frozen close each; `Repeated` is normal after restarts and backfills",
        ("verdict",),
    ),
    "closeflow_clock_skew_seconds": Metric(
        Type.GAUGE,
        "The host's clock against the database's, positive when ahead",
        "beyond ±1: set the host's clock (`clock_skew`)",
    ),
    "closeflow_close_stage_seconds": Metric(
        Type.HISTOGRAM,
        (
            "How long a stage of a close took. `accept`: from the call to the answer; `publish`: from the accepted "
            "close to Kafka's time of its event; `plan`: from there to the committed order; `send`: from the order to "
            "the broker's answer; `first_fill`: from the order to its first booked execution; `closed`: from the "
            "accepted close to the last"
        ),
        (
            "the stage that has grown is where to look: `accept` the database, `publish` the connector, `plan` "
            "order-submitter and quotes, `send` and `first_fill` the broker"
        ),
        ("stage",),
        buckets=STAGES,
    ),
    "closeflow_closes": Metric(
        Type.GAUGE,
        (
            "Closes that are not over, by status and by what they wait for: `plan`, `quote`, `broker`, "
            "`market_closed`, `trading_halted`, `fill`, `unknown_outcome`, `retry`, `person`"
        ),
        "`person`: nothing goes on by itself; `unknown_outcome`: the order is looked up",
        ("status", "waits_for"),
    ),
    "closeflow_connector_restarts_total": Metric(
        Type.COUNTER,
        "Restarts of a connector or task that had failed",
        "rises: the cause is in the connector's status and the worker's log",
    ),
    "closeflow_connector_running": Metric(
        Type.GAUGE,
        "1 while the connector and all its tasks are RUNNING",
        "0: the open incident says why (`connector_stopped`, `connector_task_failed`)",
    ),
    "closeflow_consumer_lag_records": Metric(
        Type.GAUGE,
        "Records that wait for a consumer group, as Kafka tells the reconciler",
        "grows: the group is slower than what comes",
        ("group", "topic"),
    ),
    "closeflow_consumer_still_seconds": Metric(
        Type.GAUGE,
        "For how long a group has not moved on a partition although records wait; 0 while all move",
        "above 30: `consumer_stalled`",
        ("group", "topic"),
    ),
    "closeflow_database_pool_wait_seconds": Metric(
        Type.HISTOGRAM,
        "From asking for a connection to having it",
        "near 5: every connection of the pool is in use, or none can be made",
        buckets=SECONDS,
    ),
    "closeflow_dead_letters": Metric(
        Type.GAUGE,
        "Records of a dead letter topic that were neither replayed nor discarded",
        "above 0: `closectl dlq list`",
        ("topic",),
    ),
    "closeflow_event_loop_lag_seconds": Metric(
        Type.HISTOGRAM,
        "How late the event loop comes back to a task that slept",
        "above 0.1 often: something computes for long in it, or the host has no time for it",
        buckets=SECONDS,
    ),
    "closeflow_gateway_active": Metric(
        Type.GAUGE,
        "1 while this instance holds its account's lock, else 0",
        "0 on every instance of an account: nobody hears its broker; 1 on two: never",
        ("account",),
    ),
    "closeflow_gateway_backfill_failures_total": Metric(
        Type.COUNTER,
        "Backfills that did not get everything",
        "rises: the log has `backfill_failed`; it is tried again",
    ),
    "closeflow_gateway_listening": Metric(
        Type.GAUGE,
        "1 while the broker's stream is subscribed, else 0",
        "0 on the active instance: its `/readyz` and log say why",
        ("account",),
    ),
    "closeflow_gateway_published_total": Metric(
        Type.COUNTER,
        "Broker updates acknowledged by Kafka",
        "`backfill` rises while the stream is subscribed: it loses messages",
        ("source",),
    ),
    "closeflow_gateway_reconnects_total": Metric(
        Type.COUNTER,
        "Sessions with the broker that ended by an error",
        "rises: the log has `session_ended` with the reason",
    ),
    "closeflow_heartbeat_age_seconds": Metric(
        Type.GAUGE,
        "Age of Debezium's last heartbeat; -1 before the first",
        "above 60 while the connector runs: `heartbeat_stale`",
    ),
    "closeflow_incidents_open": Metric(
        Type.GAUGE,
        "Open incidents, by kind",
        "above 0: the kind's row in [incidents](operations.md#incidents)",
        ("kind", "severity"),
    ),
    "closeflow_job_still_ratio": Metric(
        Type.GAUGE,
        "Time since a job of the reconciler was seen to finish a cycle, as a share of what it may take",
        "1 and above: `job_stalled`",
        ("reconciler_job",),
    ),
    "closeflow_kafka_batch_records": Metric(
        Type.HISTOGRAM,
        "Records handled in one batch",
        "always at the largest: records come faster than they are handled",
        ("topic",),
        buckets=RECORDS,
    ),
    "closeflow_kafka_batch_seconds": Metric(
        Type.HISTOGRAM,
        "From a batch read to its offsets committed",
        "near 30: the database is slow; a longer batch ends the process",
        ("topic",),
        buckets=SECONDS,
    ),
    "closeflow_kafka_lag_records": Metric(
        Type.GAUGE,
        "Records behind the end of a partition, seen at the last batch",
        "grows: the service is slower than what comes, or stands (`consumer_stalled`)",
        ("topic", "partition"),
    ),
    "closeflow_kafka_published_total": Metric(
        Type.COUNTER,
        "Records acknowledged by Kafka",
        "stands while there is something to say: Kafka is away (`kafka_away`)",
        ("topic",),
    ),
    "closeflow_kafka_records_total": Metric(
        Type.COUNTER,
        "Records read, by what became of them",
        "`dead_lettered` rises: `closectl dlq list`; `parked`: `closectl parked list`",
        ("topic", "outcome"),
    ),
    "closeflow_look_ups_total": Metric(
        Type.COUNTER,
        "Look-ups of orders with an unknown fate",
        "`NotFound` rises: orders whose sends were not answered, soon `order_not_found`",
        ("answer",),
    ),
    "closeflow_oldest_close_seconds": Metric(
        Type.GAUGE,
        "Age of the oldest of these since it was accepted; 0 without any",
        "grows: `closectl list` names it, `closectl show` says what it waits for",
        ("status", "waits_for"),
    ),
    "closeflow_outbox_emitted_again_total": Metric(
        Type.COUNTER,
        "Events that the publication audit emitted again",
        "rises: the slot was lost or moved on",
    ),
    "closeflow_outbox_missing_events": Metric(
        Type.GAUGE,
        "Outbox rows past their time that are not in Kafka",
        "above 0: `event_not_published`; look at the connector and the slot",
    ),
    "closeflow_outbox_unpublished_age_seconds": Metric(
        Type.GAUGE,
        "Age of the oldest outbox row that is not in Kafka; 0 when all are",
        "grows: look at the connector and the slot",
    ),
    "closeflow_parked_records": Metric(
        Type.GAUGE,
        "Records that wait for what they name; without those of foreign orders",
        "above 0 for long: `closectl parked list`",
        ("topic",),
    ),
    "closeflow_plans_total": Metric(
        Type.COUNTER,
        "Attempts planned, by what was decided",
        "`Defer` only: the closes' `reason`, see [prices](operations.md#prices)",
        ("plan",),
    ),
    "closeflow_reconciler_cycle_seconds": Metric(
        Type.GAUGE,
        "How long the last cycle took",
        "near five intervals of the job: `job_stalled` is next; lower its budget",
        ("job",),
    ),
    "closeflow_reconciler_failures_total": Metric(
        Type.COUNTER,
        "Cycles that failed and will be tried again",
        "rises: the log has `job_failed` with the error; the job is run again",
        ("job",),
    ),
    "closeflow_reconciler_repairs_total": Metric(
        Type.COUNTER,
        "What the jobs did",
        "`repair_positions` above 0: somebody wrote to the tables (`repaired`)",
        ("job",),
    ),
    "closeflow_replication_slot_active": Metric(
        Type.GAUGE,
        "1 while Debezium reads from the slot",
        "0 while the connector runs: `slot_inactive`",
    ),
    "closeflow_replication_slot_lag_bytes": Metric(
        Type.GAUGE,
        "WAL that the slot has not confirmed; -1 without a slot",
        "grows: the connector does not get through (`slot_lag`)",
    ),
    "closeflow_replication_slot_wal_left_bytes": Metric(
        Type.GAUGE,
        "WAL that may come before the slot is lost; -1: no limit",
        "falls: make room for WAL before it is 0 and the slot is lost",
    ),
    "closeflow_sends_in_flight": Metric(
        Type.GAUGE,
        "Claimed sends without a recorded answer in this process",
        "stays at `ORDER_SUBMITTER_IN_FLIGHT`: the broker answers too slowly",
    ),
    "closeflow_slot_recoveries_total": Metric(
        Type.COUNTER,
        "Recoveries of a lost slot that ended with a new one",
        "rises: find out who drops the slot (`slot_lost`)",
    ),
    "closeflow_spans_total": Metric(
        Type.COUNTER,
        "Spans of traces, by what became of them; there is none where tracing is off",
        "`dropped`: more come than the collector takes, sample fewer; `failed`: it is away (`spans_not_exported`)",
        ("outcome",),
    ),
}
