"""By alert, what makes it fire and what is near it and does not: series as promtool writes them, one value a minute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Series = Mapping[str, str]
AT: Final = "25m"
OLDEST: Final = "closeflow_oldest_close_seconds"
CLOSES: Final = "close_api_closes_total"
ANSWERS: Final = "closeflow_broker_answers_total"
POOL: Final = 'closeflow_database_pool_wait_seconds_bucket{job="close-api", instance="a"'
LOOP: Final = 'closeflow_event_loop_lag_seconds_bucket{job="close-api", instance="a"'
JOBS: Final = ("close-api", "order-submitter", "broker-gateway", "fill-processor", "reconciler", "close-board")


@dataclass(frozen=True, slots=True)
class Case:
    """`fires` and `quiet` are looked at `at` after their first values."""

    fires: Series
    quiet: Series
    at: str = AT


def stays(value: str) -> str:
    """The same value for half an hour."""
    return f"{value}+0x30"


def grows(a_minute: float, minutes: int = 30) -> str:
    """A counter."""
    return f"0+{a_minute}x{minutes}"


def two_replicas(metric: str, watching: str) -> Series:
    """One that watches, and one that does not."""
    nan = " ".join(["NaN"] * 31)
    return {f'{metric}{{instance="a"}}': nan, f'{metric}{{instance="b"}}': stays(watching)}


CASES: Final[Mapping[str, Case]] = {
    "ClosePendingTooLong": Case(
        {f'{OLDEST}{{status="pending", waits_for="plan"}}': stays("200")},
        {
            f'{OLDEST}{{status="pending", waits_for="plan"}}': stays("20"),
            f'{OLDEST}{{status="pending", waits_for="market_closed"}}': stays("90000"),
        },
    ),
    "CloseSubmittedTooLong": Case(
        {f'{OLDEST}{{status="submitted", waits_for="unknown_outcome"}}': stays("950")},
        {f'{OLDEST}{{status="submitted", waits_for="fill"}}': stays("600")},
    ),
    "CloseRetryableTooLong": Case(
        {f'{OLDEST}{{status="retryable", waits_for="retry"}}': stays("950")},
        {
            f'{OLDEST}{{status="retryable", waits_for="retry"}}': stays("600"),
            f'{OLDEST}{{status="retryable", waits_for="trading_halted"}}': stays("90000"),
        },
    ),
    "CloseWaitsForPerson": Case(
        {f'{OLDEST}{{status="submitted", waits_for="person"}}': stays("400")},
        {f'{OLDEST}{{status="submitted", waits_for="person"}}': stays("0")},
    ),
    "SequenceGap": Case(
        {'closeflow_incidents_open{kind="gap", severity="critical"}': stays("1")},
        {'closeflow_incidents_open{kind="slot_lag", severity="warning"}': stays("1")},
    ),
    "OutboxEventUnpublished": Case(
        two_replicas("closeflow_outbox_unpublished_age_seconds", "90"),
        two_replicas("closeflow_outbox_unpublished_age_seconds", "3"),
    ),
    "ConnectorNotRunning": Case(
        two_replicas("closeflow_connector_running", "0"), two_replicas("closeflow_connector_running", "1")
    ),
    "ReplicationSlotMissing": Case(
        two_replicas("closeflow_replication_slot_lag_bytes", "-1"),
        two_replicas("closeflow_replication_slot_lag_bytes", "0"),
    ),
    "ReplicationSlotInactive": Case(
        {
            **two_replicas("closeflow_replication_slot_active", "0"),
            **two_replicas("closeflow_replication_slot_lag_bytes", "4096"),
        },
        {
            **two_replicas("closeflow_replication_slot_active", "0"),
            **two_replicas("closeflow_replication_slot_lag_bytes", "-1"),
        },
    ),
    "ReplicationSlotLag": Case(
        two_replicas("closeflow_replication_slot_lag_bytes", "2000000000"),
        two_replicas("closeflow_replication_slot_lag_bytes", "1000000"),
    ),
    "ReplicationSlotWalAtRisk": Case(
        {"closeflow_replication_slot_wal_left_bytes": "9000000000-200000000x30"},
        two_replicas("closeflow_replication_slot_wal_left_bytes", "-1"),
    ),
    "DebeziumHeartbeatStale": Case(
        {
            **two_replicas("closeflow_heartbeat_age_seconds", "100"),
            **two_replicas("closeflow_connector_running", "1"),
        },
        {
            **two_replicas("closeflow_heartbeat_age_seconds", "100"),
            **two_replicas("closeflow_connector_running", "0"),
        },
    ),
    "ConsumerStalled": Case(
        {'closeflow_consumer_still_seconds{group="fill-processor", topic="broker-fill"}': stays("70")},
        {'closeflow_consumer_still_seconds{group="fill-processor", topic="broker-fill"}': stays("20")},
    ),
    "DeadLettersWaiting": Case(
        {'closeflow_dead_letters{topic="broker-fill.dlq"}': stays("2")},
        {'closeflow_dead_letters{topic="broker-fill.dlq"}': stays("0")},
    ),
    "RecordsParked": Case(
        {'closeflow_parked_records{topic="broker-fill"}': stays("2")},
        {'closeflow_parked_records{topic="broker-fill"}': "0 2 2 2 2 0+0x26"},
    ),
    "IncidentOpen": Case(
        {'closeflow_incidents_open{kind="overfill", severity="critical"}': stays("1")},
        {'closeflow_incidents_open{kind="gap", severity="critical"}': stays("1")},
    ),
    "BrokerBreakerOpen": Case(
        {'closeflow_broker_breaker_open{account="main"}': stays("1")},
        {'closeflow_broker_breaker_open{account="main"}': stays("0")},
    ),
    "BrokerNotAnswering": Case(
        {
            f'{ANSWERS}{{kind="submit", answer="Unanswered"}}': grows(5),
            f'{ANSWERS}{{kind="submit", answer="Acknowledged"}}': grows(5),
        },
        {
            f'{ANSWERS}{{kind="submit", answer="Unanswered"}}': grows(1),
            f'{ANSWERS}{{kind="submit", answer="Acknowledged"}}': grows(100),
        },
    ),
    "BrokerRefusesOrders": Case(
        {
            f'{ANSWERS}{{kind="submit", answer="Refused"}}': grows(5),
            f'{ANSWERS}{{kind="submit", answer="Acknowledged"}}': grows(1),
        },
        {f'{ANSWERS}{{kind="submit", answer="Refused"}}': grows(0.1)},
    ),
    "BrokerRateTokensExhausted": Case(
        {'closeflow_broker_rate_tokens{job="reconciler"}': stays("0.2")},
        {'closeflow_broker_rate_tokens{job="reconciler"}': " ".join(["0", "40"] * 15)},
    ),
    "GatewayNotListening": Case(
        {
            'closeflow_gateway_listening{account="main", instance="a"}': stays("0"),
            'closeflow_gateway_listening{account="other", instance="c"}': stays("1"),
        },
        {
            'closeflow_gateway_listening{account="main", instance="a"}': stays("0"),
            'closeflow_gateway_listening{account="main", instance="b"}': stays("1"),
        },
    ),
    "GatewayActiveTwice": Case(
        {f'closeflow_gateway_active{{account="main", instance="{one}"}}': stays("1") for one in "ab"},
        {f'closeflow_gateway_active{{account="{one}", instance="{one}"}}': stays("1") for one in "ab"},
    ),
    "ServiceDown": Case(
        {'up{job="reconciler", instance="a"}': stays("0")},
        {'up{job="reconciler", instance="a"}': stays("1"), 'up{job="something-else", instance="a"}': stays("0")},
    ),
    "ServiceNotThere": Case(
        {f'up{{job="{job}", instance="a"}}': stays("1") for job in JOBS[1:]},
        {f'up{{job="{job}", instance="a"}}': stays("1") for job in JOBS},
    ),
    "BacklogNotMeasured": Case(
        {"closeflow_backlog_measured_timestamp_seconds": stays("60")},
        {"closeflow_backlog_measured_timestamp_seconds": grows(60)},
    ),
    "ClockSkew": Case(
        {'closeflow_clock_skew_seconds{job="close-api", instance="a"}': stays("-1.5")},
        {'closeflow_clock_skew_seconds{job="close-api", instance="a"}': stays("0.4")},
    ),
    "JobStalled": Case(
        {'closeflow_job_still_ratio{reconciler_job="fill_gaps"}': stays("1.2")},
        {'closeflow_job_still_ratio{reconciler_job="fill_gaps"}': stays("0.5")},
    ),
    "CloseApiOverloaded": Case(
        {f'{CLOSES}{{answer="overloaded"}}': grows(10), f'{CLOSES}{{answer="accepted"}}': grows(100)},
        {f'{CLOSES}{{answer="overloaded"}}': grows(10), f'{CLOSES}{{answer="accepted"}}': grows(10_000)},
    ),
    "CloseApiErrorBudgetBurnsFast": Case(
        {f'{CLOSES}{{answer="internal_error"}}': grows(2, 130), f'{CLOSES}{{answer="accepted"}}': grows(50, 130)},
        {f'{CLOSES}{{answer="internal_error"}}': grows(1, 130), f'{CLOSES}{{answer="accepted"}}': grows(99, 130)},
        at="2h",
    ),
    "CloseApiErrorBudgetBurnsSlowly": Case(
        {f'{CLOSES}{{answer="unavailable"}}': grows(1, 430), f'{CLOSES}{{answer="accepted"}}': grows(99, 430)},
        {f'{CLOSES}{{answer="unavailable"}}': grows(1, 430), f'{CLOSES}{{answer="accepted"}}': grows(999, 430)},
        at="7h",
    ),
    "DatabasePoolExhausted": Case(
        {f'{POOL}, le="0.5"}}': grows(0), f'{POOL}, le="2.5"}}': grows(60), f'{POOL}, le="+Inf"}}': grows(60)},
        {f'{POOL}, le="0.5"}}': grows(60), f'{POOL}, le="2.5"}}': grows(60), f'{POOL}, le="+Inf"}}': grows(60)},
    ),
    "EventLoopBlocked": Case(
        {f'{LOOP}, le="0.5"}}': grows(90), f'{LOOP}, le="2.5"}}': grows(120), f'{LOOP}, le="+Inf"}}': grows(120)},
        {f'{LOOP}, le="0.5"}}': grows(120), f'{LOOP}, le="2.5"}}': grows(120), f'{LOOP}, le="+Inf"}}': grows(120)},
    ),
}
NEVER_QUIET: Final = frozenset({"Watchdog"})
"""Fires without any series: that it does is looked at beside every case."""
