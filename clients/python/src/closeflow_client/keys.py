"""Idempotency keys: one for each close that is meant."""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Final

_LONGEST: Final = 100
_KEY: Final = re.compile(r"[\x20-\x7e]{1,100}")


def new_key() -> str:
    """A key that nobody else has. Keep it before the close is sent, and a crash loses nothing."""
    return f"cfk-{uuid.uuid4().hex}"


def key_in_batch(batch_key: str, position_id: int) -> str:
    """The key of a position's close in a batch: the same whenever the batch is sent again, and the one that close-api
    makes of the key of a `:batchClose`."""
    key = f"{check_key(batch_key)}/{position_id}"
    return key if len(key) <= _LONGEST else f"sha256-{hashlib.sha256(key.encode()).hexdigest()}"


def check_key(key: str) -> str:
    """The key, if the server takes such a one: 1 to 100 printable ASCII characters. Raises TypeError or ValueError."""
    if not isinstance(key, str):
        raise TypeError(f"a key must be a str, not {type(key).__name__}")
    if not _KEY.fullmatch(key):
        raise ValueError(f"a key must be 1 to {_LONGEST} printable ASCII characters, not {key[:120]!r}")
    return key
