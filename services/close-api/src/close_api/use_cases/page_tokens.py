"""Page tokens: where the next page begins, and of which list it is. Opaque to callers, and no secret: whose rows a page
may show is asked anew for each."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import orjson

from close_api.errors import FieldError, field_problem

_DIGEST_BYTES: Final = 8
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)


def page_token(of: Sequence[str | None], last: bytes) -> str:
    """A token for what follows the key `last` in a list that is named, with its filters, by `of`."""
    return urlsafe_b64encode(_digest(of) + last).decode().rstrip("=")


def last_key(of: Sequence[str | None], token: str, *, length: int) -> bytes:
    """The key of `length` bytes that the token was made of. Raises Problem `invalid_fields` for a token that was not
    made here, or for another list, or with other filters."""
    raw = b""
    if _TOKEN.fullmatch(token):
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4)) if len(token) % 4 != 1 else b""
    if len(raw) != _DIGEST_BYTES + length or page_token(of, raw[_DIGEST_BYTES:]) != token:
        message = "is not what a page of this list, with these filters, gave as next_page_token; begin without it"
        raise field_problem(FieldError("page_token", message))
    return raw[_DIGEST_BYTES:]


def _digest(of: Sequence[str | None]) -> bytes:
    return blake2b(orjson.dumps(list(of)), digest_size=_DIGEST_BYTES).digest()
