"""The wire to the broker: what was written may arrive late, or never, and its answer may find nobody waiting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from closeflow.domain.model import SendKind
from closeflow.domain.sending.broker_answers import Acknowledged
from closeflow.domain.sending.ticket import Ticket, ticket
from tests.simulation.broker import Exchange
from tests.simulation.faults import Fault, Faults
from tests.simulation.jobs import Call


@dataclass(slots=True)
class Network:
    exchange: Exchange
    faults: Faults
    on_wire: Callable[[Call, Ticket, str], None]
    """Told of every order the moment its bytes are written, before anything can be lost."""
    calls: list[Call] = field(default_factory=list)
    stalled: bool = False
    """Nothing gets through; what was written meanwhile arrives when it is over, whoever still waits."""

    def write(self, call: Call, sender: str) -> None:
        if call.job.send.kind is SendKind.SUBMIT:
            self.on_wire(call, ticket(call.job.order), sender)
        self.calls.append(call)

    def deliver(self, call: Call) -> None:
        """The request reaches the broker, whether or not its sender still waits."""
        self.calls.remove(call)
        job = call.job
        if self.faults.happens(Fault.REQUEST_LOST):
            return
        if job.send.kind is SendKind.SUBMIT:
            call.answer = self.exchange.submit(ticket(job.order))
            if call.given_up and isinstance(call.answer, Acknowledged):
                self.faults.saw(Fault.LATE_ACCEPT)
        else:
            assert job.order.broker_order_id is not None
            call.answer = self.exchange.cancel(job.order.broker_order_id)
