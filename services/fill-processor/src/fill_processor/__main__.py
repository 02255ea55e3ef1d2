"""Run the fill-processor: `python -m fill_processor`, configured by FILL_PROCESSOR_* environment variables."""

import asyncio
from collections.abc import Mapping

from closeflow.contracts.broker_fill import BrokerFillV1
from closeflow.contracts.topics import BROKER_FILL
from closeflow.domain.settle import RetryPolicy
from closeflow.kafka.consume import Subscription, run_consumer
from closeflow.run import run_service
from closeflow.settings import load
from closeflow.storage.engine import DatabaseError, make_engine, transaction
from closeflow.storage.filling import database_now
from closeflow.telemetry import configure_logging
from closeflow.telemetry.health import serve_health
from fill_processor.process import Processor
from fill_processor.settings import FillProcessorSettings


async def serve(settings: FillProcessorSettings, stop: asyncio.Event) -> None:
    """Consume `broker-fill` until asked to stop."""
    engine = make_engine(
        settings.postgres_dsn.get_secret_value(),
        pool_size=settings.postgres_pool_size,
        application_name="fill-processor",
    )
    policy = RetryPolicy(
        settle_delay_s=settings.retry_settle_delay_s, base_s=settings.retry_base_s, cap_s=settings.retry_cap_s
    )
    processor = Processor(engine, policy)
    subscription = Subscription(
        topic=BROKER_FILL,
        group=settings.consumer_group,
        model=BrokerFillV1,
        process_batch=processor.process_batch,
        before_dead_letters=processor.freeze_unreadable,
        max_records=settings.batch_max_records,
    )

    async def readiness() -> Mapping[str, str | None]:
        try:
            async with transaction(engine) as tx:
                await database_now(tx)
        except (DatabaseError, OSError) as error:
            return {"database": str(error).splitlines()[0]}
        return {"database": None}

    try:
        async with serve_health(settings.health_host, settings.health_port, readiness):
            await run_consumer(settings.kafka, subscription, stop)
    finally:
        await engine.dispose()


def main() -> None:
    settings = load(FillProcessorSettings)
    configure_logging(settings.log_format, "fill-processor")
    run_service(lambda stop: serve(settings, stop))


if __name__ == "__main__":
    main()
