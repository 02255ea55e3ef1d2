"""Every step a run can take: each does one small thing to the world, or says that there was nothing to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import accumulate
from typing import Final, TypeVar

from closeflow.domain.model import ZERO, OrderStatus, PositionStatus, RequestStatus
from closeflow.domain.trading_controls import TradingState
from tests.simulation.faults import Crashed, Fault
from tests.simulation.filler import Filler
from tests.simulation.gateway import Gateway
from tests.simulation.keeping import keep
from tests.simulation.operator import Operator
from tests.simulation.process import Process
from tests.simulation.reconciler import Reconciler
from tests.simulation.submitter import Submitter
from tests.simulation.trading import broker_busts, broker_corrects, broker_ends, broker_fills, broker_pauses
from tests.simulation.world import MOST_AT_ONCE, World, hold

Action = Callable[[World], bool]
TIME_PASSES: Final = "time_passes"
P = TypeVar("P", bound=Process)


def run(process: P, step: Callable[[P], bool]) -> bool:
    """Let a process take a step, unless it is paused; one that crashes in it is started again."""
    if process.paused:
        return False
    try:
        return step(process)
    except Crashed:
        process.start()
        return True


def close(world: World) -> bool:
    """A new close of all or of a part; now and then of a position that is being closed, or closed, already."""
    books = list(world.database.books.values())
    idle = [one for one in books if one.position.status in (PositionStatus.OPEN, PositionStatus.CLOSE_FAILED)]
    if not idle and world.random.random() < 0.9:
        return False
    position = world.random.choice(idle or books).position
    size = int(abs(position.quantity))
    part = Decimal(world.random.randint(1, size)) if size and world.random.random() < 0.4 else None
    return run(world.api, lambda api: api.close(position.id, f"k{api.asked}", part))


def close_again(world: World) -> bool:
    """A key that was used before, with the same body or another."""
    if not world.api.keys:
        return False
    position_id, key, quantity = world.random.choice(world.api.keys)
    if world.random.random() < 0.3:
        quantity = Decimal(world.random.randint(1, 20))
    return run(world.api, lambda api: api.close(position_id, key, quantity))


def position_opens(world: World) -> bool:
    """Another position, while few are left to close."""
    left = [one for one in world.database.books.values() if one.position.quantity != ZERO]
    if len(left) >= MOST_AT_ONCE:
        return False
    hold(world)
    return True


def operator_acts(world: World) -> bool:
    requests = list(world.database.requests())
    working = [one for one in requests if one.unfinished]
    if not requests or (not working and world.random.random() < 0.8):
        return False
    verb = world.random.choice((Operator.cancel, Operator.retry, Operator.abandon))
    sent = [one for one in working if one.status is RequestStatus.SUBMITTED and verb is Operator.cancel]
    request = world.random.choice(sent or working or requests)
    return run(world.operator, lambda operator: verb(operator, request))


def operator_clears_up(world: World) -> bool:
    """Ask the broker about an order of which nobody knows anything; later declare it lost, if the evidence holds.

    That nothing of it is still on its way, or taken a moment ago and not shown yet, is assumed of the network and the
    broker (R6), so it is not asked for before.
    """
    yet_to_show = {call.job.order.client_order_id for call in world.network.calls} | world.exchange.hidden()
    unknown = [one for one in world.database.orders() if one.status is OrderStatus.SUBMIT_UNKNOWN]
    found = [one for one in unknown if one.not_found_count and one.client_order_id not in yet_to_show]
    if not found:
        return False
    order = world.random.choice(found)
    if order.client_order_id in world.operator.asked:
        return run(world.operator, lambda operator: operator.declares_lost(order))
    return run(world.operator, lambda operator: operator.asks(order))


def controls_change(world: World) -> bool:
    """The kill switch is thrown or released; the account's limits become tight, or wide again."""
    database, faults = world.database, world.faults
    if database.trading is not TradingState.ACTIVE and world.random.random() < 0.5:
        database.trading = TradingState.ACTIVE
    elif faults.strikes(Fault.HALTED):
        state = world.random.choice((TradingState.HALTED, TradingState.HALTED, TradingState.REDUCING))
        if state is TradingState.HALTED and database.trading is not state:
            faults.saw(Fault.HALTED, world.closes_in_flight())
            database.halted_at = world.clock.elapsed
        database.trading = state
    elif faults.strikes(Fault.LIMITED):
        most = world.random.choice((1, 2, 100))
        if most < database.limits.submits_per_minute:
            faults.saw(Fault.LIMITED, world.closes_in_flight())
        database.limits = replace(database.limits, submits_per_minute=most, window_count=0)
    else:
        return False
    return True


def commit_shows(world: World) -> bool:
    hidden = sorted(set(world.database.hidden.values()))
    if not hidden:
        return False
    world.database.show(world.random.choice(hidden))
    return True


def consume_some(process: Submitter | Filler) -> bool:
    """Poll, process and commit are three steps, so that anything may come in between."""
    if process.consumer.batch and process.consumer.done:
        process.group.commit(process.consumer)  # type: ignore[arg-type]
        return True
    if process.consumer.batch:
        return process.process_batch()
    return process.group.poll(process.consumer, process.AT_ONCE)  # type: ignore[arg-type]


def send(world: World) -> bool:
    busy = [one for one in world.submitters if one.jobs and not one.paused]
    return bool(busy) and run(world.random.choice(busy), Submitter.send)


def look_up(world: World) -> bool:
    busy = [one for one in world.submitters if one.questions and not one.paused]
    return bool(busy) and run(world.random.choice(busy), Submitter.look_up)


def request_arrives(world: World) -> bool:
    if not world.network.calls or world.network.stalled:
        return False
    world.network.deliver(world.random.choice(world.network.calls))
    return True


def network_stalls(world: World) -> bool:
    network = world.network
    if network.stalled:
        network.stalled = world.random.random() < 0.95
        return not network.stalled
    if not (network.calls and world.faults.happens(Fault.STALLED)):
        return False
    network.stalled = True
    return True


def of_any(kind: str, step: Callable[[P], bool]) -> Action:
    """The step of one of the world's processes of this kind, whichever chance picks."""
    return lambda world: run(world.random.choice(getattr(world, kind)), step)


def publish_rows(world: World) -> bool:
    rows = sum(world.connector.publish() for _ in range(world.random.randint(1, 4)))
    return rows > 0


def trouble_connector(world: World) -> bool:
    connector = world.connector
    if world.faults.strikes(Fault.CDC_RESENT):
        return connector.resend()
    return connector.lose_slot() if world.faults.strikes(Fault.SLOT_LOST) else connector.stop()


def connector_restarts(world: World) -> bool:
    return not world.connector.running and world.connector.restart()


def crash(world: World) -> bool:
    if not world.faults.strikes(Fault.CRASH):
        return False
    process = world.random.choice(world.processes())
    world.faults.saw(Fault.CRASH, process.busy)
    process.start()
    return True


def pause(world: World) -> bool:
    """Stop a process in its tracks, or let it go on: what it holds goes on with it."""
    paused = [process for process in world.processes() if process.paused]
    if paused and world.random.random() < 0.5:
        world.random.choice(paused).paused = False
        return True
    if not world.faults.strikes(Fault.PAUSE):
        return False
    process = world.random.choice(world.processes())
    world.faults.saw(Fault.PAUSE, process.busy)
    process.paused = True
    return True


def rebalance(world: World) -> bool:
    if not world.faults.strikes(Fault.REBALANCE):
        return False
    group = world.random.choice((world.submit_group, world.fill_group))
    world.faults.saw(Fault.REBALANCE, any(one.batch for one in group.members.values()))
    group.rebalance(world.random.randrange(8))
    return True


def time_passes(world: World) -> bool:
    """Longer and longer while nothing else happens."""
    world.clock.advance(min(60.0, world.random.choice(world.strides_s) * 2**world.idle))
    world.idle += 2
    return True


def clock_jumps(world: World) -> bool:
    """Any wall clock, by up to an hour either way; monotonic clocks never do."""
    fault = world.random.choice((Fault.DATABASE_CLOCK, Fault.PROCESS_CLOCK, Fault.BROKER_CLOCK))
    if not world.faults.strikes(fault):
        return False
    names = {Fault.DATABASE_CLOCK: "database", Fault.BROKER_CLOCK: "broker"}
    whose = names.get(fault) or world.random.choice(world.processes()).name
    before = world.clock.now(whose)
    world.clock.jump(whose, timedelta(seconds=world.random.choice((-3600, -40, -2, 0, 2, 40, 3600))))
    if world.clock.now(whose) == before:
        return False
    world.faults.saw(fault, world.closes_in_flight())
    return True


ACTIONS: Final[Mapping[str, tuple[float, Action]]] = {
    "position_opens": (2, position_opens),
    "close": (5, close),
    "close_again": (0.5, close_again),
    "operator_acts": (1, operator_acts),
    "operator_clears_up": (1, operator_clears_up),
    "controls_change": (1, controls_change),
    "commit_shows": (3, commit_shows),
    "consume_submits": (12, of_any("submitters", consume_some)),
    "attend_orders": (8, of_any("submitters", Submitter.attend)),
    "send": (16, send),
    "look_up": (8, look_up),
    "keep_watch": (4, of_any("submitters", keep)),
    "request_arrives": (16, request_arrives),
    "network_stalls": (2, network_stalls),
    "broker_fills": (12, broker_fills),
    "broker_ends": (6, broker_ends),
    "broker_pauses": (4, broker_pauses),
    "broker_busts": (1, broker_busts),
    "broker_corrects": (1, broker_corrects),
    "report_arrives": (12, of_any("gateways", Gateway.deliver)),
    "backfill": (2, of_any("gateways", Gateway.backfill)),
    "consume_fills": (14, of_any("fillers", consume_some)),
    "wake_requests": (4, of_any("reconcilers", Reconciler.wake_requests)),
    "ask_quiet_orders": (3, of_any("reconcilers", Reconciler.ask_quiet_orders)),
    "cancel_orphan_orders": (1, of_any("reconcilers", Reconciler.cancel_orphan_orders)),
    "fill_gaps": (3, of_any("reconcilers", Reconciler.fill_gaps)),
    "audit": (1, lambda world: world.audit.once()),
    "publish_rows": (12, publish_rows),
    "confirm_rows": (2, lambda world: world.connector.confirm()),
    "trouble_connector": (0.3, trouble_connector),
    "connector_restarts": (2, connector_restarts),
    "crash": (3, crash),
    "pause": (2, pause),
    "rebalance": (2, rebalance),
    TIME_PASSES: (4, time_passes),
    "clock_jumps": (2, clock_jumps),
}


def take(world: World, name: str) -> bool:
    """Take the named step; False when there was nothing to do."""
    if not ACTIONS[name][1](world):
        return False
    if name != TIME_PASSES:
        world.idle = 0
    return True


_NAMES: Final = tuple(ACTIONS)
_SCALE: Final = (0.3, 1.0, 1.0, 3.0)


def weights(world: World) -> list[float]:
    """Of each of `ACTIONS`, in this run: what is frequent differs from run to run."""
    random, scale = world.random, world.theme.actions
    return [weight * scale.get(name, 1.0) * random.choice(_SCALE) for name, (weight, _) in ACTIONS.items()]


def schedule(world: World) -> Callable[[], str]:
    """Draws one action after another."""
    sums = list(accumulate(weights(world)))
    return lambda: world.random.choices(_NAMES, cum_weights=sums)[0]
