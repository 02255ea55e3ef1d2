"""Page tokens: they bring back what they were made of, to their own list alone."""

from __future__ import annotations

import re

import pytest

from close_api.errors import Problem
from close_api.use_cases.paging import last_key, page_token

LIST = ("positions", "ACC", None)


@pytest.mark.parametrize("key", [bytes(8), b"\xff" * 8, bytes(range(8)), bytes(16)])
def test_a_token_brings_its_key_back(key: bytes) -> None:
    token = page_token(LIST, key)
    assert re.fullmatch("[A-Za-z0-9_-]+", token)
    assert last_key(LIST, token, length=len(key)) == key


@pytest.mark.parametrize(
    "of",
    [
        ("positions", "ACC", "x"),
        ("positions", None, "ACC"),
        ("requests", "ACC", None),
        ("positions", "ACC", None, None),
    ],
)
def test_a_token_is_refused_by_every_other_list(of: tuple[str | None, ...]) -> None:
    with pytest.raises(Problem, match="invalid_fields"):
        last_key(of, page_token(LIST, bytes(8)), length=8)


@pytest.mark.parametrize(
    "spoil", [lambda t: t[:-1], lambda t: t + "A", lambda t: t + "=", lambda t: "A" + t[1:], lambda _: "é"]
)
def test_a_token_that_nobody_gave_is_refused(spoil: object) -> None:
    assert callable(spoil)
    with pytest.raises(Problem, match="invalid_fields"):
        last_key(LIST, spoil(page_token(LIST, b"\xff" * 8)), length=8)
    with pytest.raises(Problem, match="invalid_fields"):
        last_key(LIST, page_token(LIST, bytes(8)), length=16)


def test_the_unused_bits_of_a_token_are_no_second_spelling() -> None:
    """Of 17 bytes, the last character carries four bits that mean nothing."""
    token = page_token(LIST, b"123456789")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = token[:-1] + alphabet[alphabet.index(token[-1]) + 1]
    with pytest.raises(Problem, match="invalid_fields"):
        last_key(LIST, other, length=9)
