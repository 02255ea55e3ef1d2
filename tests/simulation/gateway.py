"""The broker-gateway: the stream of reports, and the backfill that asks for what the stream did not say."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from uuid import UUID

from closeflow.domain.model import ZERO, BrokerUpdate, OrderStatus, UpdateSource
from closeflow.domain.orders import status as order_status
from closeflow.domain.sending.broker_answers import Acknowledged
from tests.simulation.database import FINISHED
from tests.simulation.faults import Crashed, Fault
from tests.simulation.process import KafkaAway, Process


@dataclass(slots=True, kw_only=True)
class Gateway(Process):
    memory: set[UUID] = field(default_factory=set)
    """What Kafka has acknowledged in this life, so that a backfill does not repeat it every time."""

    def start(self) -> None:
        Process.start(self)
        self.memory = set()

    @property
    def busy(self) -> bool:
        return bool(self.around.exchange.stream)

    def deliver(self) -> bool:
        """One report of the stream: the next, or one out of order; dropped, or said twice."""
        stream, faults = self.around.exchange.stream, self.around.faults
        if not stream:
            return False
        at = 0
        if len(stream) > 1 and faults.happens(Fault.REPORT_REORDERED):
            at = faults.random.randrange(1, len(stream))
        repeated = faults.happens(Fault.REPORT_REPEATED)
        update = stream[at] if repeated else stream.pop(at)
        lost = faults.happens(Fault.REPORT_DROPPED)
        if update.exec_id is not None:
            lost = faults.happens(Fault.FILL_DROPPED) or lost
        if not lost:
            self._publish([replace(update, received_at=self.wall())])
        return True

    def backfill(self) -> bool:
        """As `Backfill.run_once`: the state of orders that are not done, then the executions."""
        stated = []
        for order in list(self.around.database.orders()):
            if order.status in FINISHED and order_status.unattributed(order) == ZERO:
                continue
            answer = self.around.exchange.look_up(order.client_order_id, UpdateSource.BACKFILL)
            if isinstance(answer, Acknowledged):
                stated.append(answer.update)
        found = [*stated, *self.around.exchange.executions()]
        lost = {one.client_order_id for one in self.around.database.orders() if one.status is OrderStatus.LOST}
        news = [one for one in found if one.event_id not in self.memory or one.client_order_id in lost]
        self._publish(news)
        return bool(news)

    def _publish(self, updates: list[BrokerUpdate]) -> None:
        try:
            for update in updates:
                self.around.publish(update)
                self.memory.add(update.event_id)
        except KafkaAway:
            raise Crashed from None
