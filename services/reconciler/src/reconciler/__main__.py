"""Run the reconciler: `python -m reconciler`, configured by RECONCILER_* environment variables."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from closeflow.broker.alpaca import AlpacaBroker
from closeflow.broker.budget import CallBudget, show_tokens
from closeflow.broker.protocol import IdDeduplication
from closeflow.clock import monotonic
from closeflow.clock_and_job_watch import beating
from closeflow.contracts.topics import BROKER_FILL, SUBMIT_ORDER
from closeflow.domain.outbox.replication_slot import Limits
from closeflow.kafka.producer import Producer, open_producer
from closeflow.kafka.topics_at_start import wait_until_topics_fit
from closeflow.run import run_parts, run_service
from closeflow.settings import load
from closeflow.storage.core.away import Patience
from closeflow.storage.core.engine import Database, make_engine, transaction
from closeflow.storage.job_cycles import register_jobs
from closeflow.storage.schema.fit import database_trouble, wait_until_schema_fits
from closeflow.telemetry import configure_logging, traced
from closeflow.telemetry.health_server import serve_health
from reconciler.connect_client import Connect, open_connect
from reconciler.jobs.ask_quiet_orders import AskQuietOrders, Pauses, Rest
from reconciler.jobs.assemble_evidence import AssembleEvidence
from reconciler.jobs.audit_publication import AUDIT, AuditPublication
from reconciler.jobs.cancel_orphan_orders import CancelOrphanOrders
from reconciler.jobs.compare_orders import CompareOrders
from reconciler.jobs.compare_positions import ComparePositions
from reconciler.jobs.count_dead_letters import CountDeadLetters
from reconciler.jobs.drop_expired import DropExpired
from reconciler.jobs.fill_gaps import FillGaps
from reconciler.jobs.import_non_trades import ImportNonTrades
from reconciler.jobs.keep_partitions import KeepPartitions
from reconciler.jobs.measure_backlog import MeasureBacklog
from reconciler.jobs.release_parked import ReleaseParked
from reconciler.jobs.repair_positions import RepairPositions
from reconciler.jobs.resolve_incidents import ResolveIncidents
from reconciler.jobs.wake_requests import MarketHours, WakeRequests
from reconciler.jobs.watch_deferrals import WatchDeferrals
from reconciler.jobs.watch_replication import WatchReplication
from reconciler.jobs.watch_surroundings import WatchSurroundings
from reconciler.schedule import FAILURES, Job, counted, keep_running, pause, until_stopped
from reconciler.settings import ReconcilerSettings
from reconciler.stalled_jobs import Cycles

log = structlog.get_logger(__name__)


def _seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


@dataclass(frozen=True, slots=True)
class Parts:
    """What jobs are made of."""

    settings: ReconcilerSettings
    database: Database
    broker: AlpacaBroker
    producer: Producer
    connect: Connect
    rest: Rest = field(default_factory=Rest)


def jobs(parts: Parts) -> Iterator[Job]:
    """Every job that runs in cycles. Those that do not hold the lock of their name work on every replica, and are
    counted here."""
    settings, database = parts.settings, parts.database
    wake, repair, resolve = _wake_requests(parts), _repair_positions(parts), ResolveIncidents(database)
    watch = _watch_surroundings(parts)
    yield counted(database, Job("wake_requests", wake.once, settings.requests_interval_s))
    yield counted(database, Job("repair_positions", repair.once, settings.repairs_interval_s))
    yield counted(database, Job("resolve_incidents", resolve.once, settings.resolve_interval_s))
    yield counted(database, Job("watch_deferrals", WatchDeferrals(database).once, settings.deferrals_interval_s))
    yield counted(database, Job("measure_backlog", MeasureBacklog(database).once, settings.backlog_interval_s))
    yield counted(database, Job("watch_surroundings", watch.once, settings.surroundings_interval_s))
    letters = CountDeadLetters(database, settings.kafka, (SUBMIT_ORDER, BROKER_FILL))
    yield counted(database, Job("count_dead_letters", letters.once, settings.dead_letters_interval_s))
    yield Job("ask_quiet_orders", _ask_quiet_orders(parts).once, settings.orders_interval_s)
    yield Job("cancel_orphan_orders", _cancel_orphan_orders(parts).once, settings.orders_interval_s)
    yield Job("compare_orders", _compare_orders(parts).once, settings.histories_interval_s)
    yield Job("fill_gaps", _fill_gaps(parts).once, settings.gaps_interval_s)
    yield Job("compare_positions", _compare_positions(parts).once, settings.holdings_interval_s)
    yield Job("import_non_trades", _import_non_trades(parts).once, settings.non_trades_interval_s)
    yield Job("assemble_evidence", _assemble_evidence(parts).once, settings.evidence_interval_s)
    yield Job("release_parked", _release_parked(parts).once, settings.parked_interval_s)
    yield Job("keep_partitions", _keep_partitions(parts).once, settings.partitions_interval_s)
    yield Job("drop_expired", _drop_expired(parts).once, settings.expiry_interval_s)
    yield Job("watch_replication", _watch_replication(parts).once, settings.watch_interval_s)


def _wake_requests(parts: Parts) -> WakeRequests:
    settings = parts.settings
    return WakeRequests(
        parts.database,
        MarketHours(parts.broker, settings.market_clock_reuse_s),
        _seconds(settings.resend_after_s),
        _seconds(settings.unknown_after_s),
        settings.requests_budget,
    )


def _release_parked(parts: Parts) -> ReleaseParked:
    return ReleaseParked(parts.database, parts.producer, parts.settings.parked_budget)


def _repair_positions(parts: Parts) -> RepairPositions:
    settings = parts.settings
    return RepairPositions(parts.database, _seconds(settings.repairs_grace_s), settings.repairs_budget)


def _ask_quiet_orders(parts: Parts) -> AskQuietOrders:
    settings = parts.settings
    return AskQuietOrders(
        parts.database,
        parts.broker,
        parts.producer,
        _seconds(settings.quiet_after_s),
        settings.orders_budget,
        Pauses(settings.quiet_after_s, settings.ask_again_cap_s),
        parts.rest,
    )


def _cancel_orphan_orders(parts: Parts) -> CancelOrphanOrders:
    settings = parts.settings
    return CancelOrphanOrders(
        parts.database,
        parts.broker,
        parts.producer,
        _seconds(settings.outliving_grace_s),
        settings.orders_budget,
        Pauses(settings.quiet_after_s, settings.ask_again_cap_s),
        parts.rest,
    )


def _compare_orders(parts: Parts) -> CompareOrders:
    settings = parts.settings
    return CompareOrders(
        parts.database,
        parts.broker,
        parts.producer,
        _seconds(settings.settle_after_s),
        settings.broker_deduplication is IdDeduplication.FOREVER,
    )


def _fill_gaps(parts: Parts) -> FillGaps:
    settings = parts.settings
    return FillGaps(
        parts.database,
        parts.broker,
        parts.producer,
        _seconds(settings.gap_grace_s),
        _seconds(settings.gap_incident_after_s),
        settings.gaps_budget,
        settings.executions_pages,
        Pauses(settings.gaps_interval_s, settings.ask_again_cap_s),
        parts.rest,
    )


def _compare_positions(parts: Parts) -> ComparePositions:
    return ComparePositions(parts.database, parts.broker, _seconds(parts.settings.holdings_grace_s))


def _import_non_trades(parts: Parts) -> ImportNonTrades:
    settings = parts.settings
    look_back = timedelta(days=settings.non_trades_look_back_days)
    return ImportNonTrades(parts.database, parts.broker, parts.producer, look_back, settings.non_trades_pages)


def _assemble_evidence(parts: Parts) -> AssembleEvidence:
    settings = parts.settings
    return AssembleEvidence(
        parts.database, parts.broker, parts.producer, settings.evidence_budget, settings.executions_pages
    )


def _keep_partitions(parts: Parts) -> KeepPartitions:
    settings = parts.settings
    return KeepPartitions(parts.database, settings.partitions_days_ahead, settings.outbox_retention_days)


def _drop_expired(parts: Parts) -> DropExpired:
    settings = parts.settings
    keep = {
        "inbox": timedelta(days=settings.inbox_retention_days),
        "status_history": timedelta(days=settings.status_history_retention_days),
        "parked_records": timedelta(days=settings.parked_records_retention_days),
        "incidents": timedelta(days=settings.incidents_retention_days),
    }
    return DropExpired(parts.database, keep, settings.expiry_batch, settings.expiry_batches)


def _watch_replication(parts: Parts) -> WatchReplication:
    settings = parts.settings
    limits = Limits(
        patience=_seconds(settings.watch_patience_s),
        lag_bytes=settings.slot_lag_bytes,
        wal_left_bytes=settings.wal_left_bytes,
        heartbeat_age=_seconds(settings.heartbeat_age_s),
    )
    return WatchReplication(parts.database, parts.connect, settings.replication_slot, limits)


def _watch_surroundings(parts: Parts) -> WatchSurroundings:
    settings = parts.settings
    return WatchSurroundings(
        database=parts.database,
        broker=parts.broker,
        kafka=settings.kafka,
        groups={settings.order_submitter_group: SUBMIT_ORDER, settings.fill_processor_group: BROKER_FILL},
        patience_s=settings.surroundings_patience_s,
    )


async def _keep_auditing(audit: AuditPublication, cycles: Cycles, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await audit.run(stop, lambda: cycles.finished(AUDIT, now=monotonic()))
        except Exception:
            FAILURES.labels(AUDIT).inc()
            log.exception("job_failed", job=AUDIT)
            await pause(stop, audit.interval_s)


async def _register(database: Database, cycles: Cycles, stop: asyncio.Event) -> None:
    """Tell the others which jobs to watch; waits for a database that is away."""
    patience, registered = Patience(), False
    while not registered and not stop.is_set():
        try:
            async with transaction(database) as tx:
                await register_jobs(tx, allowed=cycles.allowed)
            registered = True
        except Exception as error:
            await pause(stop, patience.pause_s(error))


async def serve(settings: ReconcilerSettings, stop: asyncio.Event) -> None:
    """Run the jobs until asked to stop."""
    database = make_engine(
        settings.dsn,
        pool_size=settings.postgres_pool_size,
        application_name="reconciler",
        idle_in_transaction_timeout_ms=60_000,
    )

    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.dispose)
        budget = CallBudget(settings.rate_per_s)
        show_tokens(budget)
        broker = AlpacaBroker(
            base_url=settings.broker_url,
            market_data_url=settings.market_data_url,
            key_id=settings.broker_key_id.get_secret_value(),
            secret_key=settings.broker_secret_key.get_secret_value(),
            account_id=settings.broker_account_id,
            tls=settings.broker_tls,
            budget=budget,
        )
        stack.push_async_callback(broker.aclose)
        producer = await stack.enter_async_context(open_producer(settings.kafka))
        audit = AuditPublication(
            database,
            settings.kafka,
            settings.replication_slot,
            timedelta(seconds=settings.publish_within_s),
            settings.audit_interval_s,
            settings.audit_budget,
            settings.emit_again_budget,
        )
        connect = await stack.enter_async_context(
            open_connect(settings.connect_url, settings.connector, settings.connect_tls)
        )
        parts = Parts(settings, database, broker, producer, connect)
        mine = list(jobs(parts))
        intervals = [*((one.name, one.interval_s) for one in mine), (AUDIT, settings.audit_interval_s)]
        cycles = Cycles(intervals, now=monotonic())

        async def readiness() -> Mapping[str, str | None]:
            return {"database": await database_trouble(database), "jobs": cycles.trouble(now=monotonic())}

        await stack.enter_async_context(serve_health(settings.health_host, settings.health_port, readiness))
        if not await wait_until_schema_fits(database, stop):
            return
        if not await wait_until_topics_fit(settings.kafka, "reconciler", stop):
            return
        await _register(database, cycles, stop)
        delay_s = settings.start_up_delay_s
        looping = {one.name: keep_running(one, cycles, stop, start_up_delay_s=delay_s) for one in mine}
        looping[AUDIT] = _keep_auditing(audit, cycles, stop)
        await stack.enter_async_context(beating(database, "reconciler"))
        await run_parts(stop, {name: until_stopped(stop, part) for name, part in looping.items()})


def main() -> None:
    """Read the settings (a wrong one is named, exit code 2) and run until SIGTERM or SIGINT."""
    settings = load(ReconcilerSettings)
    configure_logging(settings.log_format, "reconciler")
    with traced(settings.otlp_endpoint, "reconciler", ratio=settings.otlp_sample_ratio):
        run_service(lambda stop: serve(settings, stop))


if __name__ == "__main__":
    main()
