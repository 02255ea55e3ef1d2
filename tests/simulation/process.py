"""What every simulated process has: a life that ends, a wall clock of its own, and the world around it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from closeflow.contracts.broker_fill import BrokerFillV1, broker_fill_key
from closeflow.domain.model import BrokerUpdate
from tests.simulation.broker import Exchange
from tests.simulation.clock import Clock
from tests.simulation.database import CommitUnknown, Database, Disconnected
from tests.simulation.faults import Crashed, Fault, Faults
from tests.simulation.log import Topic
from tests.simulation.network import Network

DATABASE_ERRORS = (Disconnected, CommitUnknown)


class KafkaAway(Exception):
    """Publishing was not acknowledged; the record may be there."""


@dataclass(slots=True)
class Surroundings:
    """All that processes share. Nothing else passes between them."""

    clock: Clock
    faults: Faults
    database: Database
    exchange: Exchange
    broker_fills: Topic[BrokerFillV1]
    network: Network
    one_host: bool = True
    """Whether senders see the files of those before them."""
    lives: set[str] = field(default_factory=set)

    def publish(self, update: BrokerUpdate) -> None:
        """Raises KafkaAway, with or without the record in the topic."""
        away = self.faults.happens(Fault.KAFKA_AWAY)
        if not away or self.faults.random.random() < 0.5:
            key = broker_fill_key(update.client_order_id).decode()
            self.broker_fills.append(key, BrokerFillV1.from_domain(update))
        if away:
            raise KafkaAway


@dataclass(slots=True, kw_only=True)
class Process:
    name: str
    around: Surroundings
    life: int = 0
    paused: bool = False

    @property
    def instance_id(self) -> str:
        return f"{self.name}.{self.life}"

    @property
    def busy(self) -> bool:
        """Whether it has work in flight, so that what happens to it now can do harm."""
        return False

    def start(self) -> None:
        """A new life; to be extended by what it forgets."""
        self.around.lives.discard(self.instance_id)
        self.life += 1
        self.paused = False
        self.around.lives.add(self.instance_id)

    def wall(self) -> datetime:
        return self.around.clock.now(self.name)

    def monotonic(self) -> float:
        return self.around.clock.elapsed

    def may_crash(self) -> None:
        """Between a commit and what follows it."""
        if self.around.faults.happens(Fault.CRASH_AFTER_COMMIT):
            raise Crashed
