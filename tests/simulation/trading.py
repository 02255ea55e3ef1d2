"""What the broker does by itself with the orders that it has."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from closeflow.domain.model import BrokerStatus
from tests.simulation.broker import LIVE
from tests.simulation.reports import BrokerOrder, Fill
from tests.simulation.world import World

REVIVED: Final = 0.5
"""How often an order that was filled lives again when it is not any more."""


def _a_live_order(world: World) -> BrokerOrder | None:
    live = list(world.exchange.live())
    return world.random.choice(live) if live else None


def broker_fills(world: World) -> bool:
    order = _a_live_order(world)
    if order is None or order.status in (BrokerStatus.SUSPENDED, BrokerStatus.DONE_FOR_DAY):
        return False
    whole = world.random.random() < 0.4
    world.exchange.fill(order, order.leaves if whole else Decimal(world.random.randint(1, int(order.leaves))))
    return True


def broker_ends(world: World) -> bool:
    order = _a_live_order(world)
    if order is None or (not order.cancel_asked and world.random.random() < 0.8):
        return False
    world.exchange.end(order)
    return True


def broker_pauses(world: World) -> bool:
    order = _a_live_order(world)
    if order is None:
        return False
    if order.status in (BrokerStatus.SUSPENDED, BrokerStatus.DONE_FOR_DAY):
        world.exchange.resume(order)
    elif world.random.random() < 0.2:
        world.exchange.pause(order)
    else:
        return False
    return True


def broker_busts(world: World) -> bool:
    found = _a_fill(world)
    if found is None:
        return False
    order, fill = found
    world.exchange.reverse(order, fill, Decimal(0), revive=world.random.random() < REVIVED)
    return True


def broker_corrects(world: World) -> bool:
    """To less, to more while the order has more to fill, or only to another price."""
    found = _a_fill(world)
    if found is None:
        return False
    order, fill = found
    most = fill.quantity + (order.leaves if order.status in LIVE else 0)
    quantity = Decimal(world.random.randint(1, int(most)))
    world.exchange.reverse(order, fill, quantity, revive=world.random.random() < REVIVED)
    return True


def _a_fill(world: World) -> tuple[BrokerOrder, Fill] | None:
    if not world.exchange.style.reverses:
        return None
    found = [(order, fill) for order in world.exchange.orders for fill in order.fills if fill.stands]
    return world.random.choice(found) if found else None
