"""Read the topics with Faust, from their beginnings at every start, into the read model.

The state is in memory alone, and the log is what it is made of again: so there is nothing that a crash could leave half
done, nothing that the board writes to Kafka, and several boards beside each other each show everything. For that each
process is a consumer group of its own. Faust passes an event over whose agent raised, and with `concurrency` above 1
commits past one that is still worked on: here an agent works on one event at a time, what cannot be read is counted,
and anything else ends the process, which reads all of it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from uuid import uuid4

import faust
import structlog
from faust.types import EventT, StreamT

from close_board.progress import Progress
from close_board.read_model import ReadModel, Record, Unreadable
from closeflow.clock import monotonic, sleep, timeout, utc_now
from closeflow.contracts import BrokerFillV1, ExecutionEvent, PositionEvent, SubmitOrder, Undecodable, decode
from closeflow.contracts.topics import BROKER_FILL, EXECUTION_EVENTS, POSITION_EVENTS, SUBMIT_ORDER
from closeflow.kafka.connection import SASL_MECHANISM, KafkaConnection
from closeflow.kafka.log_ends import KafkaError, open_log_ends
from closeflow.tasks import end_tasks
from closeflow.telemetry.metrics import KAFKA_RECORDS

GROUP_PREFIX: Final = "close-board-"
"""How the groups of all boards begin: `schemas/principals.yaml` gives the rights to them."""

TOPICS: Final[Mapping[str, type[Record]]] = {
    POSITION_EVENTS: PositionEvent,
    SUBMIT_ORDER: SubmitOrder,
    BROKER_FILL: BrokerFillV1,
    EXECUTION_EVENTS: ExecutionEvent,
}
"""What it follows."""
LOOK_EVERY_S: Final = 0.5
LOOK_WITHIN_S: Final = 10.0
FORGET_EVERY_S: Final = 60.0
STALLED_AFTER_S: Final = 60.0
"""A reader that takes nothing for so long, although Kafka answers and has something, is begun anew."""


class FaustEnded(Exception):
    """It stopped following the topics although nobody asked it to."""


class FaustStalled(Exception):
    """Records wait, and it takes none."""


log = structlog.get_logger(__name__)


class Follower:
    """Makes the read model, and keeps it; `progress` tells how far it is."""

    def __init__(self, connection: KafkaConnection, topics: Mapping[str, type[Record]] = TOPICS) -> None:
        self._connection = connection
        self._topics = topics
        self._started = monotonic()
        self.model = ReadModel()
        self.progress = Progress()

    def trouble(self) -> str | None:
        """Why the model is not whole; None once the log was read to its end."""
        if self.progress.as_of is not None:
            return None
        waiting, total = self.progress.waiting, self.progress.total
        return f"the log is read: {total - waiting} of {total} records" if total else "the log is not read yet"

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the topics until `stop`. Raises what an event ended in that nobody foresaw."""
        failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def failed(error: Exception) -> None:
            if not failure.done():
                failure.set_exception(error)

        directory = TemporaryDirectory(prefix=GROUP_PREFIX)  # Faust makes one, though it keeps nothing in it.
        app = _make_app(self._connection, self._topics, Path(directory.name), self.model, self.progress, failed)
        stopping = asyncio.create_task(stop.wait())
        looking = asyncio.create_task(self._look())
        crashing = asyncio.create_task(_crash(app))
        try:
            await app.start()
            ending: list[asyncio.Future[Any]] = [failure, stopping, looking, crashing]
            await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
            for one in ending:
                if one.done():
                    one.result()
        finally:
            failure.cancel()
            await end_tasks([stopping, looking, crashing])
            await app.stop()
            directory.cleanup()

    async def _look(self) -> None:
        """See again and again where the log ends. While Kafka is away there is nothing to see."""
        told, forgotten_at, moved = False, monotonic(), (0, monotonic())
        while True:
            try:
                async with open_log_ends(self._connection, [*self._topics]) as ends:
                    while True:
                        async with timeout(LOOK_WITHIN_S):
                            self.progress.began(await ends.begins())
                            now = utc_now()
                            self.progress.looked(await ends.ends(), now)
                        await sleep(LOOK_EVERY_S)
                        self.progress.catch_up()
                        moved = self.moved(*moved)
                        if not told and self.progress.as_of is not None:
                            told = True
                            log.info(
                                "log_read", records=self.model.applied, seconds=round(monotonic() - self._started, 2)
                            )
                        if monotonic() - forgotten_at > FORGET_EVERY_S:
                            forgotten_at = monotonic()
                            self.model.forget(now)
            except (KafkaError, TimeoutError, OSError) as error:
                log.warning("log_end_not_known", reason=f"{type(error).__name__}: {error}")
                await sleep(LOOK_EVERY_S)
                moved = moved[0], monotonic()  # Nothing can be read while Kafka is away.

    def moved(self, records: int, since: float) -> tuple[int, float]:
        """How many records were read, and since when it is as many. Raises FaustStalled."""
        read, now = self.model.applied + self.model.unreadable.total(), monotonic()
        if read != records or not self.progress.waiting:
            return read, now
        if now - since > STALLED_AFTER_S:
            raise FaustStalled(f"{self.progress.waiting} records wait, and none was read for {now - since:.0f} s")
        return records, since


async def _crash(app: faust.App) -> None:
    """Raises what made Faust give up."""
    await app.wait_until_stopped()
    raise app.crash_reason or FaustEnded("Faust ended by itself")


def _make_app(
    connection: KafkaConnection,
    topics: Mapping[str, type[Record]],
    directory: Path,
    model: ReadModel,
    progress: Progress,
    failed: Callable[[Exception], None],
) -> faust.App:
    """A Faust application that applies every record of every topic to the model. `failed` is told of what ends it."""
    app = faust.App(
        f"{GROUP_PREFIX}{uuid4().hex}",
        broker=[f"kafka://{server}" for server in connection.bootstrap_servers.split(",")],
        broker_credentials=_credentials(connection),
        broker_client_id=connection.client_id,
        # Nobody else waits for the partitions of this group. A short one ends it on a host that is short of CPU, and
        # each time it is joined again it is read from the last commit.
        broker_session_timeout=60.0,
        broker_heartbeat_interval=5.0,
        consumer_auto_offset_reset="earliest",
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        store="memory://",
        datadir=directory,
        stream_wait_empty=False,
    )
    for topic, record in topics.items():
        channel = app.topic(topic, key_serializer="raw", value_serializer="raw")
        app.agent(channel, name=topic, concurrency=1)(_agent(topic, record, model, progress, failed))
    return app


def _agent(
    topic: str, record: type[Record], model: ReadModel, progress: Progress, failed: Callable[[Exception], None]
) -> Callable[[StreamT[bytes]], Any]:
    outcomes: Mapping[bool, Any] = {
        good: KAFKA_RECORDS.labels(topic, "applied" if good else "unreadable") for good in (True, False)
    }

    async def follow(stream: StreamT[bytes]) -> None:
        async for event in stream.events():
            try:
                outcomes[_apply(event, record, model)].inc()
                progress.read(topic, event.message.partition, event.message.offset)
            except Exception as error:
                failed(error)
                await asyncio.Event().wait()  # Faust would pass the event over; the process ends instead.

    return follow


def _apply(event: EventT[bytes], record: type[Record], model: ReadModel) -> bool:
    """Whether the record could be read."""
    message = event.message
    headers = message.headers or ()
    try:
        model.apply(decode(record, message.value, headers.items() if isinstance(headers, Mapping) else headers))
    except Undecodable as error:
        key = message.key or b""
        found = Unreadable(
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
            at=datetime.fromtimestamp(message.timestamp, UTC),
            error_class=error.error_class,
            reason=error.reason,
            position_id=int(key) if key.isdigit() and len(key) < 20 else None,
        )
        log.warning("record_not_applied", place=found.place, error_class=found.error_class, reason=found.reason)
        model.refuse(found)
        return False
    return True


def _credentials(connection: KafkaConnection) -> Any:
    if connection.security_protocol == "PLAINTEXT":
        return None
    context = connection.tls.context()
    if connection.security_protocol == "SSL":
        return faust.SSLCredentials(context=context)
    return faust.SASLCredentials(
        username=connection.username, password=connection.password, mechanism=SASL_MECHANISM, ssl_context=context
    )
