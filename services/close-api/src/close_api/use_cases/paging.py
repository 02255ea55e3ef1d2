"""Pages: how large, and where the next one begins.

A page token is opaque to callers and no secret: whose rows a page may show is asked anew for each.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Generic, TypeVar

import orjson

from close_api.errors import FieldError, field_problem

T = TypeVar("T")

DEFAULT_PAGE: Final = 50
LARGEST_PAGE: Final = 500
_DIGEST_BYTES: Final = 8
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of a list, in its order; `next_page_token` gives those behind, and is "" at the end."""

    items: list[T]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class Paging:
    """What page of the list `of` is asked for: of at most 500 items, 50 where `asked` is 0 (AIP-158), behind what
    `token` names. Raises Problem `invalid_fields`."""

    of: Sequence[str | None]
    asked: int
    token: str

    def __post_init__(self) -> None:
        if self.asked < 0:
            raise field_problem(FieldError("page_size", "must not be below 0; 0 is the default"))

    @property
    def size(self) -> int:
        """How many items it may have."""
        return min(self.asked, LARGEST_PAGE) or DEFAULT_PAGE

    def last(self, length: int) -> bytes | None:
        """The key behind which it begins; None for the first page. Raises Problem."""
        return last_key(self.of, self.token, length=length) if self.token else None

    def page(self, found: list[T], key: Callable[[T], bytes]) -> Page[T]:
        """The page from what was `found`: one item more than it may have, if there is one."""
        items = found[: self.size]
        return Page(items, page_token(self.of, key(items[-1])) if len(found) > self.size else "")


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
