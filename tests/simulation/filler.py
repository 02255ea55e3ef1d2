"""The fill-processor: `apply_batch` itself, with `process.Processor`'s transaction around it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final

from closeflow.contracts.broker_fill import BrokerFillV1
from closeflow.domain.batch import APPLIED
from closeflow.domain.ids import parse_client_order_id
from closeflow.kafka.records import Record
from fill_processor import apply_batch
from fill_processor.apply_batch import Known, UpdateRecord
from tests.simulation.clock import START
from tests.simulation.core import POLICY
from tests.simulation.database import Tx
from tests.simulation.faults import Crashed
from tests.simulation.log import Consumer, Entry, Group
from tests.simulation.process import DATABASE_ERRORS, Process

CONSUMER: Final = "fill-processor"


@dataclass(slots=True, kw_only=True)
class Filler(Process):
    AT_ONCE: ClassVar[int] = 6
    group: Group[BrokerFillV1]
    consumer: Consumer[BrokerFillV1] = field(init=False)

    def start(self) -> None:
        Process.start(self)
        self.consumer = self.group.join(self.name)

    @property
    def busy(self) -> bool:
        return bool(self.consumer.batch)

    def process_batch(self) -> bool:
        """A lost connection stops the process, whatever became of the transaction: the batch is read again."""
        records = [_record(entry) for entry in self.consumer.batch]

        try:
            self.around.database.transact(lambda tx: self._apply(tx, records))
        except DATABASE_ERRORS:
            raise Crashed from None
        self.group.has_processed(self.consumer)
        return True

    def _apply(self, tx: Tx, records: list[UpdateRecord]) -> None:
        tx.save(apply_batch.apply_batch(self._load(tx, records), records, policy=POLICY), consumer=CONSUMER)

    def _load(self, tx: Tx, records: list[UpdateRecord]) -> Known:
        parsed = (parse_client_order_id(record.value.client_order_id) for record in records)
        books = tx.lock_books(request_ids={one[0] for one in parsed if one is not None})
        database = self.around.database
        ids = {record.value.event_id for record in records}
        named = {(one.value.broker, one.value.account_id, one.value.exec_id or "") for one in records}
        return Known(
            books=books,
            positions={request_id: book.position.id for book in books.values() for request_id in book.requests},
            now=tx.now,
            applied=frozenset(one for one in ids if database.inbox.get((CONSUMER, one)) == APPLIED),
            taken={key: database.taken[key] for key in named if key in database.taken},
        )


def _record(entry: Entry[BrokerFillV1]) -> UpdateRecord:
    return Record(
        topic="broker-fill",
        partition=entry.partition,
        offset=entry.offset,
        key=entry.key.encode(),
        value=entry.value,
        raw=b"",
        headers=(),
        timestamp=START,
    )
