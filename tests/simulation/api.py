"""close-api: accepts a close, and knows what it has promised to whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from uuid import UUID

from closeflow.domain.batch import one_book
from closeflow.domain.close.accept import (
    Accepted,
    CloseCommand,
    Decision,
    KeyReused,
    Replayed,
    TradingHalted,
    accept_close,
)
from tests.simulation.database import CommitUnknown, Disconnected, Tx
from tests.simulation.faults import Fault, Violation
from tests.simulation.process import Process

Key = tuple[int, str]


@dataclass(slots=True, kw_only=True)
class CloseApi(Process):
    """`promised` are the answers the desk got: the request behind each key, and the body it was asked with."""

    promised: dict[Key, tuple[UUID, Decimal | None]] = field(default_factory=dict)
    keys: list[tuple[int, str, Decimal | None]] = field(default_factory=list)
    asked: int = 0

    def close(self, position_id: int, key: str, quantity: Decimal | None) -> bool:
        self.asked += 1
        self.keys.append((position_id, key, quantity))
        command = CloseCommand(
            request_id=UUID(int=self.around.faults.random.getrandbits(128), version=4),
            position_id=position_id,
            idempotency_key=key,
            requested_by="desk",
            quantity=quantity,
        )
        try:
            decision = self.around.database.transact(lambda tx: self._accept(tx, command))
        except Disconnected:
            return True
        except CommitUnknown:
            return True  # The desk got no answer, and asks again with the same key.
        self.may_crash()
        self._promise(command, decision)
        return True

    def _accept(self, tx: Tx, command: CloseCommand) -> Decision:
        book = tx.lock_books(position_ids=[command.position_id]).get(command.position_id)
        stored = self.around.database.books[command.position_id]
        existing = [one for one in stored.requests.values() if one.idempotency_key == command.idempotency_key]
        decision = accept_close(
            book, command, existing[0] if existing else None, trading=self.around.database.trading, now=self.wall()
        )
        if isinstance(decision, Accepted):
            assert book is not None
            if self.around.faults.strikes(Fault.CDC_EARLY):
                self.around.database.hidden[decision.request.id] = command.position_id
            tx.save(one_book(book, decision.book, now=tx.now, events=decision.events))
        return decision

    def _promise(self, command: CloseCommand, decision: Decision) -> None:
        key = (command.position_id, command.idempotency_key)
        match decision:
            case Accepted(request=request) | Replayed(request=request):
                first = self.promised.setdefault(key, (request.id, command.quantity))
                if first != (request.id, command.quantity):
                    raise Violation(f"5 idempotency: {key} was answered {first}, now {request.id}")
            case KeyReused(request_id=request_id):
                first = self.promised.get(key, (request_id, None))
                if first[0] != request_id:
                    raise Violation(f"5 idempotency: {key} names {first[0]} and {request_id}")
            case TradingHalted():
                pass
            case _:
                if key in self.promised:
                    raise Violation(f"5 idempotency: {key} was accepted and is now {type(decision).__name__}")
