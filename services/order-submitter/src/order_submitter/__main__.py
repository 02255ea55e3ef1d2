"""Run the order-submitter: `python -m order_submitter`, configured by ORDER_SUBMITTER_* environment variables."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial

from closeflow.broker import Broker
from closeflow.broker.alpaca import ALPACA, AlpacaBroker
from closeflow.broker.budget import CallBudget, show_tokens
from closeflow.clock_and_job_watch import beating
from closeflow.contracts import SUBMIT_ORDER, SubmitOrder
from closeflow.domain.close.plan_order import PlanRules
from closeflow.domain.frozen import replace
from closeflow.domain.model import AssetType
from closeflow.domain.sending.absence import window
from closeflow.kafka import ConsumerProgress, Subscription, open_producer, run_consumer, wait_until_topics_fit
from closeflow.run import run_parts, run_service
from closeflow.settings import load
from closeflow.storage.core.away import Patience, is_away
from closeflow.storage.core.engine import Database, make_engine
from closeflow.storage.schema.fit import database_trouble, wait_until_schema_fits
from closeflow.telemetry import configure_logging, serve_health, traced
from closeflow.unit_of_work import park_unknown_values
from order_submitter.due_orders import DueOrderPoller, poll_until_stopped
from order_submitter.heartbeat import InstanceHeartbeat, Presence, beat_until_stopped, this_process
from order_submitter.look_up import Recovery, Watch
from order_submitter.market import MarketView
from order_submitter.plan_orders import Planner
from order_submitter.sending.breaker import BreakerRules
from order_submitter.sending.hand_overs import HandOvers, path_of
from order_submitter.sending.pool import PoolLimits, SenderPool
from order_submitter.sending.publish import FillPublisher
from order_submitter.sending.send_log import SendLog
from order_submitter.settings import OrderSubmitterSettings


def make_broker(settings: OrderSubmitterSettings, budget: CallBudget) -> AlpacaBroker:
    """The account's broker, with what the desk claims of it; whoever asks for it closes it."""
    capabilities = replace(
        ALPACA,
        client_id_deduplication=settings.broker_deduplication,
        visibility_lag_s=settings.broker_visibility_lag_s,
        refuses_to_exceed=settings.broker_refuses_to_exceed,
    )
    return AlpacaBroker(
        base_url=settings.broker_url,
        market_data_url=settings.market_data_url,
        key_id=settings.broker_key_id.get_secret_value(),
        secret_key=settings.broker_secret_key.get_secret_value(),
        account_id=settings.broker_account_id,
        tls=settings.broker_tls,
        capabilities=capabilities,
        deadline_s=settings.http_deadline_s,
        connections=settings.in_flight,
        budget=budget,
    )


async def serve(settings: OrderSubmitterSettings, stop: asyncio.Event) -> None:
    """Plan, send and recover until asked to stop; then finish what is in flight and sign off."""
    async with AsyncExitStack() as stack:
        database = make_engine(
            settings.dsn,
            pool_size=settings.postgres_pool_size,
            application_name="order-submitter",
            by_index=True,
        )
        stack.push_async_callback(database.dispose)
        budget = CallBudget(settings.rate_per_s)
        show_tokens(budget)
        broker = make_broker(settings, budget)
        stack.push_async_callback(broker.aclose)
        publisher = FillPublisher(await stack.enter_async_context(open_producer(settings.kafka)))
        progress, attending, keeping = ConsumerProgress(), Patience(), Patience()
        presence = this_process()
        hand_overs = HandOvers(path_of(settings.hand_over_folder, presence.instance_id))

        async def readiness() -> Mapping[str, str | None]:
            return {
                "database": await database_trouble(database),
                "consumer": progress.trouble(),
                "attend": attending.trouble,
                "keep": keeping.trouble,
                "hand_overs": hand_overs.trouble,
            }

        await stack.enter_async_context(serve_health(settings.health_host, settings.health_port, readiness))
        if not await wait_until_schema_fits(database, stop):
            return
        if not await wait_until_topics_fit(settings.kafka, "order-submitter", stop):
            return
        await stack.enter_async_context(beating(database, "order-submitter"))
        pool = SenderPool(broker, publisher.publish, _send_log(database, broker), _limits(settings), budget, hand_overs)
        await _work(settings, stop, database, broker, publisher, (progress, attending, keeping), pool, presence)


async def _work(
    settings: OrderSubmitterSettings,
    stop: asyncio.Event,
    database: Database,
    broker: Broker,
    publisher: FillPublisher,
    watched: tuple[ConsumerProgress, Patience, Patience],
    pool: SenderPool,
    presence: Presence,
) -> None:
    progress, attending, keeping = watched
    watch = Watch(settings.lease_s)
    recovery = Recovery(
        database=database,
        broker=broker,
        publisher=publisher,
        pool=pool,
        watch=watch,
        instance_id=presence.instance_id,
        lease_s=settings.lease_s,
        absent_for=window(settings.broker_visibility_lag_s, settings.absence_window_s),
    )
    attendant = DueOrderPoller(
        database=database,
        account_id=settings.broker_account_id,
        pool=pool,
        recovery=recovery,
        watch=watch,
        policy=settings.retry_policy,
        instance_id=presence.instance_id,
        lease_s=settings.lease_s,
    )
    keeper = InstanceHeartbeat(
        database=database,
        broker_name=broker.name,
        account_id=broker.account_id,
        presence=presence,
        pool=pool,
        recovery=recovery,
        watch=watch,
        hand_overs=settings.hand_over_folder,
        says_it_closes=settings.broker_refuses_to_exceed,
    )
    market = _market(settings, broker)
    planner = _planner(settings, database, market, pool, presence.instance_id)
    subscription = _subscription(settings, planner)
    await keeper.register()
    try:
        pool.hand_overs.open()
        await run_parts(
            stop,
            {
                "consumer": run_consumer(settings.kafka, subscription, stop, progress=progress),
                "attend": poll_until_stopped(attendant, stop, interval_s=settings.poll_interval_s, patience=attending),
                "keep": beat_until_stopped(keeper, stop, interval_s=settings.watch_interval_s, patience=keeping),
            },
        )
    finally:
        await market.aclose()
        await recovery.stop()
        await pool.drain(settings.http_deadline_s + 1)
        await keeper.sign_off()
        pool.hand_overs.close()


def _send_log(database: Database, broker: Broker) -> SendLog:
    return SendLog(database, broker=broker.name, account_id=broker.account_id)


def _market(settings: OrderSubmitterSettings, broker: Broker) -> MarketView:
    return MarketView(
        broker=broker,
        quote_reuse_s=settings.quote_reuse_s,
        quote_max_age_s=settings.quote_max_age_s,
        clock_reuse_s=settings.clock_reuse_s,
    )


def _planner(
    settings: OrderSubmitterSettings, database: Database, market: MarketView, pool: SenderPool, instance_id: str
) -> Planner:
    return Planner(
        database=database,
        market=market,
        pool=pool,
        account_id=settings.broker_account_id,
        rules=PlanRules(
            quote=settings.quote_rules,
            grids=settings.price_ticks,
            quote_max_age_s=settings.quote_max_age_s,
            standing_quote_max_age_s={
                AssetType.STOCK: settings.standing_quote_stock_s,
                AssetType.OPTION: settings.standing_quote_option_s,
                AssetType.CRYPTO: settings.standing_quote_crypto_s,
            },
            retry_s=settings.deferral_s,
            halted_s=settings.halt_deferral_s,
        ),
        policy=settings.retry_policy,
        instance_id=instance_id,
        lease_s=settings.lease_s,
        visible_within_s=settings.request_visible_within_s,
    )


def _subscription(settings: OrderSubmitterSettings, planner: Planner) -> Subscription[SubmitOrder]:
    return Subscription(
        topic=SUBMIT_ORDER,
        group=settings.consumer_group,
        model=SubmitOrder,
        process_batch=planner.plan_batch,
        before_dead_letters=planner.report_unreadable,
        park=partial(park_unknown_values, planner.database),
        on_lost_tail=partial(planner.report_lost_tail, settings.consumer_group),
        again_after=is_away,
        max_records=settings.batch_max_records,
    )


def _limits(settings: OrderSubmitterSettings) -> PoolLimits:
    return PoolLimits(
        in_flight=settings.in_flight,
        rate_per_s=settings.rate_per_s,
        lease_s=settings.lease_s,
        breaker=BreakerRules(
            failures=settings.breaker_failures,
            refusals=settings.breaker_refusals,
            probe_s=settings.breaker_probe_s,
        ),
    )


def main() -> None:
    """Read the settings (a wrong one is named, exit code 2) and run until SIGTERM or SIGINT."""
    settings = load(OrderSubmitterSettings)
    configure_logging(settings.log_format, "order-submitter")
    with traced(settings.otlp_endpoint, "order-submitter", ratio=settings.otlp_sample_ratio):
        run_service(lambda stop: serve(settings, stop))


if __name__ == "__main__":
    main()
