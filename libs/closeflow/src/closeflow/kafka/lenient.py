"""Read a batch of records that aiokafka refuses: what can be had of each, and what is wrong with the others.

aiokafka gives up the whole batch for one header name that is not UTF-8, and every batch behind one whose checksum is
wrong: a consumer would read the same offset again for ever. Only format 2 (Kafka 0.11 and later) is read.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.errors import (
    CorruptRecordException,
    KafkaError,
    KafkaTimeoutError,
    RecordTooLargeError,
    UnsupportedCodecError,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.util import calc_crc32c, decode_varint

from closeflow.domain.frozen import replace
from closeflow.kafka.records import Headers

log = structlog.get_logger(__name__)

# Base offset, length, leader epoch, magic, checksum; then, covered by it, attributes, last offset delta, first and
# highest time, producer id, epoch and sequence, and the number of records.
_HEAD: Final = struct.Struct(">qiibIhiqqqhii")
_CHECKED_FROM: Final = struct.calcsize(">qiibI")
_LENGTH_FROM: Final = struct.calcsize(">qi")
_MAGIC_AT: Final = struct.calcsize(">qii")
_MAGIC: Final = 2
_CODEC, _APPEND_TIME, _CONTROL = 0x07, 0x08, 0x20
_CODECS: Final[dict[int, Callable[[Any], bytes]]] = {
    1: gzip_decode,
    2: snappy_decode,
    3: lz4_decode,
    4: zstd_decode,
}
_FETCH_BYTES: Final = 1024 * 1024
_WITHIN_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LenientRecord:
    """As aiokafka's ConsumerRecord, as far as it is used; header names that are not UTF-8 have escapes. `defect` says
    what is wrong with it. One that could not be taken apart has no bytes, and stands for all offsets before `next`."""

    topic: str
    partition: int
    offset: int
    next: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    defect: str | None


def offset_after(found: Any) -> int:
    """Where reading goes on behind a record of aiokafka's or of ours."""
    return found.next if isinstance(found, LenientRecord) else int(found.offset) + 1


def about_a_record(error: BaseException) -> bool:
    """Whether a poll failed for what a record is, and not for Kafka or the group."""
    if isinstance(error, KafkaError):
        # Kafka gives a batch whole, however large: one that seems to be cut off has a damaged length.
        return isinstance(error, CorruptRecordException | UnsupportedCodecError | RecordTooLargeError)
    return isinstance(error, Exception)


def record_time(timestamp_ms: int) -> datetime:
    """Raises ValueError for a time that no datetime can be."""
    try:
        return datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"its time of {timestamp_ms} ms is not between the years 1 and 9999") from None


async def read_leniently(consumer: AIOKafkaConsumer, tp: TopicPartition, offset: int) -> list[LenientRecord]:
    """The records from the offset on, of as many batches as one fetch gives; none where aiokafka refuses none of these
    batches. It refuses one for a record before the offset too. Raises KafkaError."""
    # aiokafka has no public way to a batch as it came.
    client = consumer._client
    request = FetchRequest(500, 1, _FETCH_BYTES, 0, [(tp.topic, [(tp.partition, offset, _FETCH_BYTES)])])
    try:
        async with asyncio.timeout(_WITHIN_S):
            response = await client.send(client.cluster.leader_for_partition(tp), request)
    except TimeoutError:
        raise KafkaTimeoutError(f"{tp.topic}/{tp.partition} at {offset} is not answered") from None
    data = b"".join(
        bytes(parts[-1]) for _, partitions in response.topics for _, _, _, *parts in partitions if parts[-1]
    )
    records = list(_records(tp, data, offset))
    return [one for one in records if one.next > offset] if any(one.defect for one in records) else []


async def getmany_leniently(
    consumer: AIOKafkaConsumer, *, timeout_ms: int, max_records: int
) -> Mapping[TopicPartition, Sequence[Any]]:
    """As `consumer.getmany` of partitions that are assigned by hand; what aiokafka refuses is read leniently."""
    # A poll that fails loses what it already had of other partitions.
    positions = {tp: await consumer.position(tp) for tp in consumer.assignment()}
    try:
        batch: Mapping[TopicPartition, Sequence[Any]] = await consumer.getmany(
            timeout_ms=timeout_ms, max_records=max_records
        )
    except Exception as error:
        if not about_a_record(error):
            raise
        log.warning("records_refused_by_client", reason=f"{type(error).__name__}: {error}")
        found = {}
        for tp, position in positions.items():
            consumer.seek(tp, position)
            read = await read_leniently(consumer, tp, position)
            if read:
                found[tp] = read[:max_records]
                consumer.seek(tp, offset_after(found[tp][-1]))
        if not found:
            raise
        return found
    return batch


def _records(tp: TopicPartition, data: bytes, expected: int) -> Iterator[LenientRecord]:
    """`expected` is the offset that was asked for, and then the one behind each batch."""
    at = 0
    while len(data) - at >= _HEAD.size:
        base, length, _, magic, checksum, attributes, last_delta, first_time, max_time, *_, count = _HEAD.unpack_from(
            data, at
        )
        batch = data[at : at + _LENGTH_FROM + length]
        if length <= _HEAD.size - _LENGTH_FROM or len(batch) < _LENGTH_FROM + length:
            behind = _next_batch(data, at + 1, expected)
            if behind is None:
                return  # Cut off by the fetch's limit, or damaged with nothing behind it yet.
            at, end = behind
            yield _Batch(tp, expected, end, first_time).unreadable(expected, "the head of its batch is damaged")
            expected = end
            continue
        at += len(batch)
        expected = base + last_delta + 1
        reader = _Batch(tp, base, base + last_delta + 1, first_time)
        if magic != _MAGIC:
            yield reader.unreadable(base, f"record format {magic}")
        elif calc_crc32c(batch[_CHECKED_FROM:]) != checksum:
            yield reader.unreadable(base, "the batch's checksum is wrong")
        elif not attributes & _CONTROL:
            time = max_time if attributes & _APPEND_TIME else None
            found = list(reader.read(batch[_HEAD.size :], codec=attributes & _CODEC, count=count, append_time=time))
            if found:  # Compaction may have taken the last ones: from their offsets Kafka gives the same batch again.
                yield from (*found[:-1], replace(found[-1], next=max(found[-1].next, reader.end)))


def _next_batch(data: bytes, at: int, after: int) -> tuple[int, int] | None:
    """Where the next whole batch begins whose checksum is right, and its first offset. What a damaged head says of its
    own length is worth nothing, so every place is looked at that can be one."""
    while (found := data.find(bytes([_MAGIC]), at + _MAGIC_AT)) >= 0:
        at = found - _MAGIC_AT
        if len(data) - at < _HEAD.size:
            return None
        base, length, _, _, checksum, *_ = _HEAD.unpack_from(data, at)
        whole = data[at : at + _LENGTH_FROM + length] if length > _HEAD.size - _LENGTH_FROM else b""
        complete = len(whole) == _LENGTH_FROM + length
        if base > after and complete and calc_crc32c(whole[_CHECKED_FROM:]) == checksum:
            return at, base
        at += 1
    return None


@dataclass(frozen=True, slots=True)
class _Batch:
    tp: TopicPartition
    base: int
    end: int
    first_time: int

    def unreadable(self, offset: int, defect: str, *, end: int | None = None) -> LenientRecord:
        return LenientRecord(
            topic=self.tp.topic,
            partition=self.tp.partition,
            offset=offset,
            next=self.end if end is None else end,
            timestamp=0,
            key=None,
            value=None,
            headers=(),
            defect=defect if (end or self.end) == offset + 1 else f"{defect}; so are all before {end or self.end}",
        )

    def read(self, payload: bytes, *, codec: int, count: int, append_time: int | None) -> Iterator[LenientRecord]:
        try:
            buffer = bytearray(_CODECS[codec](payload) if codec else payload)
        except Exception as error:
            yield self.unreadable(self.base, f"codec {codec} cannot be undone: {type(error).__name__}: {error}")
            return
        at, offset, number = 0, self.base, 0
        while number < count or at < len(buffer):
            try:
                length, start = decode_varint(buffer, at)
                if length < 0 or start + length > len(buffer):
                    raise ValueError(f"a record of {length} bytes in {len(buffer) - start}")
            except (ValueError, IndexError) as error:
                # Behind the batch's last offset there is only the next batch's.
                yield self.unreadable(min(offset, self.end - 1), f"the batch's records cannot be told apart: {error}")
                return
            try:
                found = self._record(buffer[start : start + length], append_time)
            except (ValueError, IndexError) as error:
                found = self.unreadable(offset, f"it cannot be taken apart: {error}", end=offset + 1)
            if number >= count and found.defect is None:
                found = replace(found, defect=f"it is number {number + 1} in a batch of {count}")
            yield found
            at, offset, number = start + length, found.next, number + 1

    def _record(self, buffer: bytearray, append_time: int | None) -> LenientRecord:
        _, at = decode_varint(buffer, 0)
        time_delta, at = decode_varint(buffer, at)
        offset_delta, at = decode_varint(buffer, at)
        key, at = _bytes(buffer, at)
        value, at = _bytes(buffer, at)
        number, at = decode_varint(buffer, at)
        headers: list[tuple[str, bytes | None]] = []
        defect = None
        for _ in range(number):
            name, at = _bytes(buffer, at)
            content, at = _bytes(buffer, at)
            if name is None:
                defect = "a header has no name"
            try:
                headers.append(((name or b"").decode(), content))
            except UnicodeDecodeError:
                headers.append(((name or b"").decode(errors="backslashreplace"), content))
                defect = f"the header name {name!r} is not UTF-8"
        if at != len(buffer) or number < 0:
            raise ValueError(f"{len(buffer)} bytes, of which {at} can be read")
        offset = self.base + offset_delta
        return LenientRecord(
            topic=self.tp.topic,
            partition=self.tp.partition,
            offset=offset,
            next=offset + 1,
            timestamp=self.first_time + time_delta if append_time is None else append_time,
            key=key,
            value=value,
            headers=tuple(headers),
            defect=defect,
        )


def _bytes(buffer: bytearray, at: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(buffer, at)
    if length < 0:
        return None, at
    if at + length > len(buffer):
        raise ValueError(f"a field of {length} bytes in {len(buffer) - at}")
    return bytes(buffer[at : at + length]), at + length
