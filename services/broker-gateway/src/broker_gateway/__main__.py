"""Run the broker gateway: `python -m broker_gateway`, configured by BROKER_GATEWAY_* environment variables."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial

from broker_gateway.publisher import SERVICE
from broker_gateway.session import Pace, Relay, race
from broker_gateway.settings import BrokerGatewaySettings
from closeflow.broker.alpaca import AlpacaBroker
from closeflow.broker.alpaca.parse import Account
from closeflow.broker.alpaca.stream import StreamTarget, trade_updates
from closeflow.broker.budget import CallBudget, show_tokens
from closeflow.clock_and_job_watch import beating
from closeflow.kafka.topics_at_start import wait_until_topics_fit
from closeflow.run import run_service
from closeflow.settings import load
from closeflow.storage.core.engine import make_engine
from closeflow.storage.schema.fit import database_trouble, wait_until_schema_fits
from closeflow.telemetry import configure_logging, traced
from closeflow.telemetry.health_server import serve_health


async def serve(settings: BrokerGatewaySettings, stop: asyncio.Event) -> None:
    """Listen and backfill until asked to stop."""
    key_id, secret_key = settings.broker_key_id.get_secret_value(), settings.broker_secret_key.get_secret_value()
    engine = make_engine(settings.dsn, pool_size=2, application_name=SERVICE)
    budget = CallBudget(settings.rate_per_s)
    show_tokens(budget)
    broker = AlpacaBroker(
        base_url=settings.broker_url,
        market_data_url=settings.broker_url,
        key_id=key_id,
        secret_key=secret_key,
        account_id=settings.broker_account_id,
        tls=settings.broker_tls,
        deadline_s=settings.http_deadline_s,
        connections=settings.http_connections,
        budget=budget,
    )
    stream = StreamTarget(
        url=settings.broker_stream_url,
        key_id=key_id,
        secret_key=secret_key,
        tls=settings.broker_tls,
        of=Account(broker=broker.name, account_id=broker.account_id),
        ping_interval_s=settings.ping_interval_s,
        ping_timeout_s=settings.ping_timeout_s,
    )
    pace = Pace(
        backfill_interval_s=settings.backfill_interval_s,
        backfill_overlap_s=settings.backfill_overlap_s,
        reconnect_base_s=settings.reconnect_base_s,
        reconnect_cap_s=settings.reconnect_cap_s,
        takeover_poll_s=settings.takeover_poll_s,
    )
    relay = Relay(
        broker=broker,
        stream=partial(trade_updates, stream),
        database=engine,
        lock_dsn=settings.dsn,
        kafka=settings.kafka,
        pace=pace,
    )

    async def until_stopped() -> None:
        await stop.wait()

    async def readiness() -> Mapping[str, str | None]:
        return {**await relay.readiness(), "schema": await database_trouble(engine)}

    try:
        async with serve_health(settings.health_host, settings.health_port, readiness), AsyncExitStack() as working:
            if not await wait_until_schema_fits(engine, stop):
                return
            if not await wait_until_topics_fit(settings.kafka, SERVICE, stop):
                return
            await working.enter_async_context(beating(engine, SERVICE))
            await race(until_stopped(), relay.run())
    finally:
        await broker.aclose()
        await engine.dispose()


def main() -> None:
    """Read the settings (a wrong one is named, exit code 2) and run until SIGTERM or SIGINT."""
    settings = load(BrokerGatewaySettings)
    configure_logging(settings.log_format, SERVICE)
    with traced(settings.otlp_endpoint, SERVICE, ratio=settings.otlp_sample_ratio):
        run_service(lambda stop: serve(settings, stop))


if __name__ == "__main__":
    main()
