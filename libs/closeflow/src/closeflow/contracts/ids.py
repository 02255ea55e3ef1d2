"""The one id that is made and not computed; the others are in `closeflow.domain.ids`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def new_close_request_id(now: datetime, random_bytes: bytes) -> UUID:
    """A UUIDv7 (RFC 9562 section 5.7): milliseconds of `now`, then 74 of the 80 bits of `random_bytes` (10 bytes).

    The caller reads the clock and the random source, so the same arguments give the same id.
    """
    if now.tzinfo is None:
        raise ValueError("now must have an offset")
    if len(random_bytes) != 10:
        raise ValueError(f"10 random bytes are needed, not {len(random_bytes)}")
    milliseconds = (now - _EPOCH) // timedelta(milliseconds=1)
    raw = bytearray(milliseconds.to_bytes(6) + random_bytes)
    raw[6] = 0x70 | (raw[6] & 0x0F)
    raw[8] = 0x80 | (raw[8] & 0x3F)
    return UUID(bytes=bytes(raw))
