"""Mend everything, then let every part work in turn until nothing is left to do."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Final

from closeflow.domain.model import UNFINISHED, ZERO, BrokerStatus
from closeflow.domain.trading_controls import TradingState
from tests.simulation import actions
from tests.simulation.broker import LIVE
from tests.simulation.ending import unexplained
from tests.simulation.faults import Violation
from tests.simulation.gateway import Gateway
from tests.simulation.keeping import keep
from tests.simulation.queries import due_orders, orders_with_gap
from tests.simulation.reconciler import Reconciler
from tests.simulation.submitter import Submitter
from tests.simulation.world import World

MOST_ROUNDS: Final = 400
PAUSES_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 31.0)
LAST_WAIT_S: Final = 4600.0
"""Longer than a clock was wrong by, plus the time after which an unknown order is given up."""


def heal(world: World) -> None:
    world.faults.over = True
    world.clock.heal()
    world.network.stalled = False
    world.database.trading = TradingState.ACTIVE
    world.database.limits = replace(world.database.limits, submits_per_minute=100)
    for process in world.processes():
        process.paused = False
    world.connector.restart()


def drain(world: World) -> int:
    """Returns how many rounds it took; it is a violation if there is no end."""
    for number in range(MOST_ROUNDS):
        _round(world)
        if is_quiet(world) and _settled(world):
            world.clock.advance(LAST_WAIT_S)
            for _ in range(3):
                _round(world)
            world.audit.once()
            if is_quiet(world) and _settled(world):
                return number
        world.clock.advance(PAUSES_S[min(number // 6, len(PAUSES_S) - 1)])
    left = [str(one.id) for one in world.database.requests() if one.status in UNFINISHED]
    raise Violation(f"13 no silent stuck: no end after {MOST_ROUNDS} rounds; unfinished requests: {left}")


def _round(world: World) -> None:
    for position_id in list(world.database.books):
        world.database.show(position_id)
    while world.connector.publish():
        pass
    world.connector.confirm()
    for submitter in world.submitters:
        _work(world, submitter)
    for _ in range(4):
        for filler in world.fillers:
            actions.run(filler, actions.consume_some)
    while world.network.calls:
        world.network.deliver(world.network.calls[0])
    _trade(world)
    while world.exchange.stream:
        actions.run(world.gateways[0], Gateway.deliver)
    actions.run(world.gateways[0], Gateway.backfill)
    for job in (
        Reconciler.wake_requests,
        Reconciler.ask_quiet_orders,
        Reconciler.fill_gaps,
        Reconciler.cancel_orphan_orders,
    ):
        actions.run(world.reconcilers[0], job)
    world.audit.once()


def _work(world: World, submitter: Submitter) -> None:
    for _ in range(4):
        actions.run(submitter, actions.consume_some)
    actions.run(submitter, Submitter.attend)
    actions.run(submitter, keep)
    for _ in range(8):
        actions.run(submitter, Submitter.send)
        while world.network.calls:
            world.network.deliver(world.network.calls[0])
        actions.run(submitter, Submitter.look_up)


def _trade(world: World) -> None:
    """The broker comes to an end with every order: it fills in parts, is canceled where that was asked, or expires.
    Where it lets orders work they rest after that, and only what cancels them ends them."""
    for order in list(world.exchange.live()):
        if order.status in (BrokerStatus.SUSPENDED, BrokerStatus.DONE_FOR_DAY):
            world.exchange.resume(order)
        if world.lets_work and not order.cancel_asked and not order.cancel_refused:
            if not order.fills and order.leaves > 1:
                world.exchange.fill(order, Decimal(1))
            continue
        world.exchange.fill(order, Decimal(world.random.randint(1, int(order.leaves))))
        if order.leaves and (order.cancel_asked or world.random.random() < 0.3):
            world.exchange.end(order)


def _settled(world: World) -> bool:
    quiet = not unexplained(world.database) and not world.audit.missing
    return quiet and not due_orders(world.database) and not orders_with_gap(world.database)


def is_quiet(world: World) -> bool:
    """Nothing is on its way anywhere."""
    moving = any(one.jobs or one.questions or one.consumer.batch for one in world.submitters)
    moving = moving or any(one.consumer.batch for one in world.fillers)
    moving = moving or bool(world.network.calls or world.exchange.stream or world.submit_group.lag())
    live = any(one.status in LIVE and one.leaves > ZERO for one in world.exchange.orders)
    unsent = world.connector.sent < len(world.database.wal)
    return not (moving or live or unsent or world.fill_group.lag())
