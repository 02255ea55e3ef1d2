"""All parts of one run, made from one source of chance: the same seed makes the same world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Final

from closeflow.broker.protocol import IdDeduplication
from closeflow.contracts.broker_fill import BrokerFillV1
from closeflow.domain.model import AssetType, Event, Position, PositionStatus
from closeflow.domain.model import Topic as TopicName
from tests.simulation.api import CloseApi
from tests.simulation.audit import Audit
from tests.simulation.broker import Exchange
from tests.simulation.cdc import Connector
from tests.simulation.clock import Clock
from tests.simulation.core import ACCOUNT
from tests.simulation.database import Database
from tests.simulation.faults import Faults
from tests.simulation.filler import Filler
from tests.simulation.gateway import Gateway
from tests.simulation.invariants import Safety
from tests.simulation.log import Group, Topic
from tests.simulation.network import Network
from tests.simulation.operator import Operator
from tests.simulation.process import Process, Surroundings
from tests.simulation.reconciler import Reconciler
from tests.simulation.reports import Style
from tests.simulation.submitter import Submitter
from tests.simulation.themes import CLOSE_ONLY, REVERSALS, THEMES, Theme

INSTANCES: Final = 2
MOST_AT_ONCE: Final = 3
PACES_S: Final = (
    (0.001, 0.01, 0.05, 0.1, 0.3),
    (0.001, 0.01, 0.01, 0.05, 0.1, 0.1, 0.3, 0.5, 1.0, 2.0, 5.0, 31.0),
    (0.01, 0.1, 0.5, 2.0, 5.0, 12.0, 31.0),
)
"""How fast time goes in a run: so slowly that every send gets through its fence, or past every lease and time-out."""


@dataclass(slots=True, kw_only=True)
class World:
    random: Random
    theme: Theme
    faults: Faults
    clock: Clock
    database: Database
    exchange: Exchange
    network: Network
    safety: Safety
    api: CloseApi
    submitters: Sequence[Submitter]
    fillers: Sequence[Filler]
    reconcilers: Sequence[Reconciler]
    gateways: Sequence[Gateway]
    operator: Operator
    strides_s: Sequence[float]
    idle: int = 0
    """How long nothing but time has moved."""
    lets_work: bool
    """When all is mended the broker ends only orders whose cancel was asked for; the others work until they fill."""
    connector: Connector
    audit: Audit
    topics: dict[TopicName, Topic[Event]]
    submit_group: Group[Event]
    fill_group: Group[BrokerFillV1]

    def closes_in_flight(self) -> bool:
        """Whether a close is on its way, so that what happens to everybody now can do harm."""
        return any(one.unfinished for one in self.database.requests())

    def processes(self) -> list[Process]:
        return [self.api, self.operator, *self.submitters, *self.fillers, *self.reconcilers, *self.gateways]


def make_world(random: Random, theme: str | None = None) -> World:
    """`theme` names the one to run under; otherwise chance picks it."""
    drawn = random.choice([one for one in THEMES if theme in (None, one.name)])
    clock, faults, safety = Clock(), Faults(random, drawn.odds(random)), Safety()
    database = Database(clock, faults, safety.committed)
    safety.database = database
    deduplication = random.choice([*IdDeduplication, *[IdDeduplication.FOREVER] * 2])
    if drawn.name == CLOSE_ONLY:
        deduplication = random.choice((IdDeduplication.WHILE_OPEN, IdDeduplication.NONE))
    exchange = Exchange(clock, faults, deduplication, _style(random, drawn), drawn.name == CLOSE_ONLY)
    safety.reversed = exchange.reversed
    network = Network(exchange, faults, safety.on_wire)
    topics = {name: Topic[Event]() for name in TopicName}
    fills = Topic[BrokerFillV1]()
    around = Surroundings(clock, faults, database, exchange, fills, network, drawn.name != CLOSE_ONLY)
    submit_group, fill_group = Group(topics[TopicName.SUBMIT_ORDER], faults), Group(fills, faults)
    connector = Connector(database, faults, topics)
    world = World(
        random=random,
        theme=drawn,
        faults=faults,
        clock=clock,
        database=database,
        exchange=exchange,
        network=network,
        safety=safety,
        api=CloseApi(name="api", around=around),
        submitters=[Submitter(name=f"submitter-{n}", around=around, group=submit_group) for n in range(INSTANCES)],
        fillers=[Filler(name=f"filler-{n}", around=around, group=fill_group) for n in range(INSTANCES)],
        reconcilers=[Reconciler(name=f"reconciler-{n}", around=around) for n in range(INSTANCES)],
        gateways=[Gateway(name="gateway", around=around)],
        operator=Operator(name="operator", around=around),
        lets_work=random.random() < 0.5,
        strides_s=random.choice(PACES_S[1:] if drawn.slow else PACES_S),
        connector=connector,
        audit=Audit(database, topics, connector),
        topics=topics,
        submit_group=submit_group,
        fill_group=fill_group,
    )
    for _ in range(random.randint(1, MOST_AT_ONCE)):
        hold(world)
    for process in world.processes():
        process.start()
    return world


def _style(random: Random, theme: Theme) -> Style:
    reverses = random.random() < (1.0 if theme.name == REVERSALS else 0.3)
    return Style(sequenced=random.random() < 0.7, one_name=random.random() < 0.5, reverses=reverses)


def hold(world: World) -> None:
    """A new position, at the broker and in the books."""
    position_id = len(world.database.books) + 1
    quantity = Decimal(world.random.randint(1, 20) * world.random.choice((1, -1)))
    position = Position(
        id=position_id,
        account_id=ACCOUNT,
        symbol=f"S{position_id}",
        asset_type=world.random.choice(list(AssetType)),
        multiplier=Decimal(1),
        currency="USD",
        opening_quantity=quantity,
        quantity=quantity,
        status=PositionStatus.OPEN,
        version=1,
    )
    world.database.add_position(position)
    world.exchange.quantities[position.symbol] = quantity
