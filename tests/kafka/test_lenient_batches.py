"""Batches that aiokafka refuses, without a server: each is told of, and reading goes on behind it. Where no defect is
found, a consumer asks for the same offset for ever."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final

import pytest
from aiokafka import TopicPartition
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import calc_crc32c

from closeflow.kafka.lenient import LenientRecord, offset_after, read_leniently
from tests.kafka.raw_records import HEAD_BYTES, Raw, batch

TP: Final = TopicPartition("submit-order.v1", 0)
ONE: Final[Raw] = (b"k", b"v", 1_000, False)
_ATTRIBUTES, _LAST_DELTA, _COUNT = 21, 23, 57
_CONTROL: Final = 0x20


class OneFetch:
    """A consumer whose partition has these bytes."""

    def __init__(self, data: bytes) -> None:
        self._client = self
        self.cluster = SimpleNamespace(leader_for_partition=lambda _: 1)
        self._data = data

    async def send(self, _node: int, _request: object) -> Any:
        return SimpleNamespace(topics=[(TP.topic, [(TP.partition, 0, 0, self._data)])])


async def read(*batches: bytes, offset: int = 0) -> list[LenientRecord]:
    consumer: Any = OneFetch(b"".join(batches))
    return await read_leniently(consumer, TP, offset)


def altered(made: bytes, *, extra: bytes = b"", seal: bool = True, base: int = 0, **fields: int) -> bytes:
    whole = bytearray(made + extra)
    places = {"attributes": (">h", _ATTRIBUTES), "last_delta": (">i", _LAST_DELTA), "count": (">i", _COUNT)}
    for name, value in fields.items():
        form, at = places[name]
        struct.pack_into(form, whole, at, value)
    struct.pack_into(">qi", whole, 0, base, len(whole) - 12)
    if seal:
        struct.pack_into(">I", whole, 17, calc_crc32c(bytes(whole[21:])))
    return bytes(whole)


def refused(made: bytes) -> bool:
    found = DefaultRecordBatch(made)
    try:
        return not (found.validate_crc() and (found.is_control_batch or list(found) is not None))
    except Exception:
        return True


def told(found: Sequence[LenientRecord]) -> list[tuple[int, bytes | None, bool]]:
    return [(one.offset, one.value, one.defect is not None) for one in found]


NAMELESS: Final = batch([(b"k", b"v", 1_000, True)]).replace(b"\x04\xff\xfe", b"\x01\xff\xfe")
"""Zigzag: a header name of length -1, and two bytes that are then the next fields."""


@pytest.mark.parametrize("count", [1, 0, -1])
async def test_records_behind_the_number_of_the_batch_are_defects_with_their_bytes(count: int) -> None:
    made = altered(batch([ONE, ONE, ONE]), count=count)
    assert refused(made)
    good = max(count, 0)
    assert told(await read(made)) == [(number, b"v", number >= good) for number in range(3)]


async def test_bytes_behind_the_last_record_are_a_defect() -> None:
    made = altered(batch([ONE, ONE]), extra=b"\xfe\xff\xff\x00")
    assert refused(made)
    found = await read(made, altered(batch([ONE]), base=2))
    assert told(found) == [(0, b"v", False), (1, b"v", False), (1, None, True), (2, b"v", False)]
    assert [offset_after(one) for one in found] == [1, 2, 2, 3]


async def test_a_header_without_a_name_costs_its_record_alone() -> None:
    made = altered(bytes(NAMELESS))
    assert refused(made)
    found = await read(made, altered(batch([ONE]), base=1))
    assert [(one.offset, one.defect is not None) for one in found] == [(0, True), (1, False)]


async def test_a_header_name_of_negative_length_is_a_defect_where_the_rest_can_be_read() -> None:
    whole = batch([(b"k", b"v", 1_000, True)])
    # Name length -1, then a value of two bytes in the place of the name's two and the value's length and byte.
    made = altered(whole.replace(b"\x04\xff\xfe\x021", b"\x01\x06\xfe\x021"))
    assert refused(made)
    (found,) = await read(made)
    assert found.value == b"v"
    assert found.defect is not None


async def test_a_control_batch_with_a_wrong_checksum_is_one_defect() -> None:
    control = altered(batch([ONE]), attributes=_CONTROL)
    damaged = control[:-1] + b"\x7f"
    assert refused(damaged)
    assert not refused(control)
    assert told(await read(damaged, altered(batch([ONE]), base=1))) == [(0, None, True), (1, b"v", False)]
    assert await read(control) == []


@pytest.mark.parametrize(("count", "extra"), [(3, b""), (2, b"\xff"), (1, b"")])
async def test_reading_goes_on_behind_a_batch_whose_last_records_are_gone(count: int, extra: bytes) -> None:
    """Compaction leaves the last offset of the batch; from the offset in between, Kafka gives the same batch."""
    made = altered(batch([ONE, ONE]), count=count, extra=extra, last_delta=5)
    assert refused(made)
    found = await read(made)
    assert any(one.defect for one in found)
    assert offset_after(found[-1]) == 6
    assert await read(made, offset=5)


CODECS: Final = {1: gzip_encode, 2: snappy_encode, 3: lz4_encode, 4: zstd_encode}


def compressed(made: bytes, codec: int, payload: bytes | None = None) -> bytes:
    packed = CODECS[codec](made[HEAD_BYTES:]) if payload is None else payload
    return altered(made[:HEAD_BYTES] + packed, attributes=codec)


@pytest.mark.parametrize("codec", CODECS)
async def test_every_compression_of_kafka_is_read(codec: int) -> None:
    made = compressed(batch([ONE, ONE]), codec)
    assert not refused(made)
    unread = altered(batch([(b"k", b"v", 1_000, True)]), base=2)
    assert told(await read(made, unread)) == [(0, b"v", False), (1, b"v", False), (2, b"v", True)]


@pytest.mark.parametrize("codec", [*CODECS, 5, 7])
async def test_a_compression_that_cannot_be_undone_is_one_defect(codec: int) -> None:
    made = compressed(batch([ONE, ONE]), codec, b"damaged")
    assert refused(made)
    assert told(await read(made, altered(batch([ONE]), base=2))) == [(0, None, True), (2, b"v", False)]


LENGTHS: Final = {"too long": 2**31 - 1, "beyond the end": 5_000, "too short": 1, "none": 0, "negative": -7}


def with_length(made: bytes, length: int) -> bytes:
    whole = bytearray(made)
    struct.pack_into(">i", whole, 8, length)
    return bytes(whole)


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
async def test_a_batch_with_a_damaged_head_is_one_defect_and_reading_goes_on_at_the_next(length: int) -> None:
    damaged = with_length(altered(batch([ONE, ONE]), base=1), length)
    before, behind = batch([ONE]), altered(batch([ONE, ONE]), base=3)
    found = await read(before, damaged, behind)
    assert told(found) == [(0, b"v", False), (1, None, True), (3, b"v", False), (4, b"v", False)]
    assert [offset_after(one) for one in found] == [1, 3, 4, 5]
    assert "head" in str(found[1].defect)
    assert told(await read(damaged, behind, offset=2))[0] == (2, None, True)


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
async def test_with_nothing_behind_it_nothing_is_stepped_over(length: int) -> None:
    """What comes next is not known, so no offset is behind it."""
    damaged = with_length(altered(batch([ONE, ONE]), base=1), length)
    assert await read(damaged, offset=1) == []
    behind = altered(batch([ONE]), base=3)
    assert await read(damaged, behind[:-1], offset=1) == [], "cut off by the fetch's limit"
    stale = altered(batch([ONE]), base=0)
    assert await read(damaged, stale, offset=1) == [], "what lies before it is not behind it"


async def test_what_looks_like_a_head_and_has_another_checksum_is_none() -> None:
    damaged = with_length(batch([ONE]), 2**30)
    fake, behind = bytearray(altered(batch([ONE]), base=1)), altered(batch([ONE]), base=2)
    fake[-1] ^= 0x7F
    assert [offset_after(one) for one in await read(damaged, bytes(fake), behind)] == [2, 3]
