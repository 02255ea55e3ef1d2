"""Run the reconciler: `python -m reconciler`, configured by RECONCILER_* environment variables."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import datetime, timedelta

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from prometheus_client import Counter

from closeflow.broker.alpaca import AlpacaBroker
from closeflow.kafka.producer import Producer, open_producer
from closeflow.run import run_service
from closeflow.settings import load
from closeflow.storage.engine import Database, DatabaseError, make_engine, transaction
from closeflow.storage.filling import database_now
from closeflow.telemetry import configure_logging
from closeflow.telemetry.health import serve_health
from reconciler.orders import AskQuietOrders, FillGaps
from reconciler.publication import AuditPublication, KeepPartitions
from reconciler.requests import WakeRequests
from reconciler.settings import ReconcilerSettings

FAILURES = Counter("closeflow_reconciler_failures_total", "Cycles that failed and will be tried again", ["job"])
DONE = Counter("closeflow_reconciler_repairs_total", "What the jobs did", ["job"])

log = structlog.get_logger(__name__)
Once = Callable[[], Awaitable[int]]


def schedule(
    settings: ReconcilerSettings, database: Database, broker: AlpacaBroker, producer: Producer
) -> AsyncIOScheduler:
    """Every job with its interval; a cycle that is still running when the next is due is not joined by a second."""

    def seconds(value: float) -> timedelta:
        return timedelta(seconds=value)

    wake = WakeRequests(
        database, seconds(settings.resend_after_s), seconds(settings.unknown_after_s), settings.requests_budget
    )
    ask = AskQuietOrders(
        database,
        broker,
        producer,
        seconds(settings.quiet_after_s),
        settings.ask_again_cap_s,
        settings.orders_budget,
    )
    gaps = FillGaps(
        database,
        broker,
        producer,
        seconds(settings.gap_grace_s),
        seconds(settings.gap_incident_after_s),
        settings.gaps_budget,
    )
    partitions = KeepPartitions(database, settings.partitions_days_ahead, settings.outbox_retention_days)
    jobs: tuple[tuple[str, Once, float], ...] = (
        ("wake_requests", wake.once, settings.requests_interval_s),
        ("ask_quiet_orders", ask.once, settings.orders_interval_s),
        ("fill_gaps", gaps.once, settings.gaps_interval_s),
        ("keep_partitions", partitions.once, settings.partitions_interval_s),
    )
    scheduler = AsyncIOScheduler()
    first = datetime.now().astimezone() + seconds(settings.start_up_delay_s)
    for name, once, interval_s in jobs:
        scheduler.add_job(
            _guarded(name, once),
            "interval",
            seconds=interval_s,
            id=name,
            next_run_time=first,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )
    return scheduler


def _guarded(name: str, once: Once) -> Callable[[], Awaitable[None]]:
    """A cycle that fails is counted and logged; the next one starts from the database again."""

    async def cycle() -> None:
        try:
            DONE.labels(name).inc(await once())
        except Exception:
            FAILURES.labels(name).inc()
            log.exception("job_failed", job=name)

    return cycle


async def _keep_auditing(audit: AuditPublication, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await audit.run(stop)
        except Exception:
            FAILURES.labels("audit_publication").inc()
            log.exception("job_failed", job="audit_publication")
            await asyncio.wait([asyncio.create_task(stop.wait())], timeout=audit.interval_s)


async def serve(settings: ReconcilerSettings, stop: asyncio.Event) -> None:
    """Run the jobs until asked to stop."""
    database = make_engine(
        settings.postgres_dsn.get_secret_value(),
        pool_size=settings.postgres_pool_size,
        application_name="reconciler",
        idle_in_transaction_timeout_ms=60_000,
    )

    async def readiness() -> Mapping[str, str | None]:
        try:
            async with transaction(database) as tx:
                await database_now(tx)
        except (DatabaseError, OSError) as error:
            return {"database": str(error).splitlines()[0]}
        return {"database": None}

    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.dispose)
        broker = AlpacaBroker(
            base_url=settings.broker_url,
            market_data_url=settings.market_data_url,
            key_id=settings.broker_key_id.get_secret_value(),
            secret_key=settings.broker_secret_key.get_secret_value(),
            account_id=settings.broker_account_id,
        )
        stack.push_async_callback(broker.aclose)
        producer = await stack.enter_async_context(open_producer(settings.kafka))
        await stack.enter_async_context(serve_health(settings.health_host, settings.health_port, readiness))
        audit = AuditPublication(
            database,
            settings.kafka,
            timedelta(seconds=settings.publish_within_s),
            settings.audit_interval_s,
            settings.audit_budget,
        )
        auditing = asyncio.create_task(_keep_auditing(audit, stop))
        scheduler = schedule(settings, database, broker, producer)
        scheduler.start()
        await stop.wait()
        scheduler.shutdown(wait=False)
        await auditing


def main() -> None:
    settings = load(ReconcilerSettings)
    configure_logging(settings.log_format, "reconciler")
    run_service(lambda stop: serve(settings, stop))


if __name__ == "__main__":
    main()
