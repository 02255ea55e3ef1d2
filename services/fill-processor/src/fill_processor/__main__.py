"""Run the fill-processor: `python -m fill_processor`, configured by FILL_PROCESSOR_* environment variables."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial

from closeflow.clock_and_job_watch import beating
from closeflow.contracts.broker_fill import BrokerFillV1
from closeflow.contracts.topics import BROKER_FILL
from closeflow.kafka.consume import Subscription, run_consumer
from closeflow.kafka.consumer_progress import ConsumerProgress
from closeflow.kafka.topics_at_start import wait_until_topics_fit
from closeflow.run import run_parts, run_service
from closeflow.settings import load
from closeflow.storage.core.away import is_away
from closeflow.storage.core.engine import make_engine
from closeflow.storage.schema.fit import database_trouble, wait_until_schema_fits
from closeflow.telemetry import configure_logging, traced
from closeflow.telemetry.health_server import serve_health
from closeflow.unit_of_work import park_unknown_values
from fill_processor.batch_transaction import Processor
from fill_processor.settings import FillProcessorSettings


async def serve(settings: FillProcessorSettings, stop: asyncio.Event) -> None:
    """Consume `broker-fill` until asked to stop."""
    engine = make_engine(
        settings.dsn,
        pool_size=settings.postgres_pool_size,
        application_name="fill-processor",
        by_index=True,
    )
    processor = Processor(engine, settings.retry_policy)
    subscription = Subscription(
        topic=BROKER_FILL,
        group=settings.consumer_group,
        model=BrokerFillV1,
        process_batch=processor.process_batch,
        before_dead_letters=processor.freeze_unreadable,
        park=partial(park_unknown_values, engine),
        on_lost_tail=partial(processor.report_lost_tail, settings.consumer_group),
        again_after=is_away,
        max_records=settings.batch_max_records,
    )
    progress = ConsumerProgress()

    async def readiness() -> Mapping[str, str | None]:
        return {"database": await database_trouble(engine), "consumer": progress.trouble()}

    try:
        async with serve_health(settings.health_host, settings.health_port, readiness), AsyncExitStack() as working:
            if not await wait_until_schema_fits(engine, stop):
                return
            if not await wait_until_topics_fit(settings.kafka, "fill-processor", stop):
                return
            await working.enter_async_context(beating(engine, "fill-processor"))
            await run_parts(stop, {"consumer": run_consumer(settings.kafka, subscription, stop, progress=progress)})
    finally:
        await engine.dispose()


def main() -> None:
    """Read the settings (a wrong one is named, exit code 2) and run until SIGTERM or SIGINT."""
    settings = load(FillProcessorSettings)
    configure_logging(settings.log_format, "fill-processor")
    with traced(settings.otlp_endpoint, "fill-processor", ratio=settings.otlp_sample_ratio):
        run_service(lambda stop: serve(settings, stop))


if __name__ == "__main__":
    main()
