"""What of a call nobody here reads: refused and named, never dropped. Dropped, `?quantity=3` would close everything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from close_api.errors import MOST_FIELD_ERRORS, Code, FieldError, Problem, field_problem
from close_api.rest.request_body import KEY_HEADER

_NAME_LENGTH: Final = 100
_READS: Final = frozenset({"GET", "HEAD"})
_OF_THE_BODY: Final = frozenset(
    {b"expect", b"transfer-encoding", b"content-length", b"trailer", b"content-type", b"content-encoding"}
)
_LENGTH: Final = re.compile("[0-9]{1,19}", re.ASCII)
_JSON_TYPE: Final = re.compile(r'application/json\s*(;\s*(charset=("utf-?8"|utf-?8)\s*)?)*', re.IGNORECASE)
_ASKS_FOR_MORE: Final = frozenset(
    {
        # Preconditions (RFC 9110 section 13): done all the same, the call would change another version.
        "ifmatch",
        "ifunmodifiedsince",
        "httpmethod",
        "httpmethodoverride",
        "methodoverride",
        # A close's arguments, where gateways and scripts like to put them.
        "quantity",
        "qty",
        "percentage",
        "percent",
        "ordertype",
        "limitprice",
        "maxslippagebps",
        "timeinforce",
        "workingtimeoutseconds",
        "deadline",
        "expectedquantity",
        "expectedversion",
        "reason",
        "dryrun",
        "simulate",
        "version",
        "accountid",
        # The same by other brokers' names.
        "amount",
        "size",
        "shares",
        "price",
        "stopprice",
        "limit",
        "side",
    }
)
_CACHE_CONDITIONS: Final = frozenset({"ifnonematch", "ifmodifiedsince", "ifrange"})
"""Of a read they only spare the answer, which may be given all the same."""
_FETCH_SITE: Final = b"sec-fetch-site"
_OWN_SITE: Final = frozenset({b"none", b"same-origin"})
"""Browsers say where a call comes from (Fetch Metadata): without this any page could close positions where no token is
asked for."""


@dataclass(frozen=True, slots=True)
class Reads:
    """What a route reads beside its path: parameters of the query, and headers (in lower case) that others refuse."""

    query: frozenset[str] = frozenset()
    headers: frozenset[bytes] = frozenset()


NOTHING: Final = Reads()


def refuse_what_is_not_read(request: Request, read: Reads = NOTHING) -> None:
    """Raises Problem for a query, a header or a framing of the body that would be ignored otherwise."""
    if request.scope["query_string"]:
        _refuse_parameters(request.scope["query_string"], read)
    reads = request.method in _READS
    given: dict[bytes, str] = {}
    unknown: list[bytes] = []
    for name, value in request.scope["headers"]:
        if name in _OF_THE_BODY:
            # One that is repeated is a list with commas, as RFC 9110 section 5.2 has it.
            text = value.decode("latin-1").strip()
            given[name] = f"{given[name]}, {text}" if name in given else text
        elif name == _FETCH_SITE and not reads and value not in _OWN_SITE:
            raise Problem(Code.MALFORMED_REQUEST, extra={"reason": "a page of another site may not ask for this"})
        elif name not in read.headers and _asks_for_more(name, reads):
            unknown.append(name)
    if unknown:
        raise field_problem(*(_unknown_header(name.decode("latin-1")) for name in unknown[:MOST_FIELD_ERRORS]))
    if given.get(b"expect", "100-continue").lower() != "100-continue":
        raise Problem(Code.EXPECTATION_FAILED)
    has_body = _has_body(given, reads, request.scope["http_version"])
    if has_body and reads:
        raise Problem(Code.MALFORMED_BODY, extra={"reason": "this call has no body"})
    if has_body:
        _refuse_other_than_json(given)


def _has_body(given: Mapping[bytes, str], reads: bool, http_version: str) -> bool:
    """Whether a body is announced, in the one way of its HTTP version (RFC 9112 section 6)."""
    coding, length = given.get(b"transfer-encoding"), given.get(b"content-length")
    # The end of a body of HTTP/1.0 without a length is that of the connection; the server would take it for the next
    # call, and this one for a close of everything.
    if http_version == "1.0" and not reads and (length is None or coding is not None):
        raise Problem(Code.LENGTH_REQUIRED)
    # In HTTP/1.1 there is none without either (RFC 9112 section 6.3), and yet a type says that one was meant.
    if http_version == "1.1" and not reads and b"content-type" in given and length is None and coding is None:
        raise Problem(Code.LENGTH_REQUIRED)
    if coding is not None and (coding.lower() != "chunked" or length is not None or b"trailer" in given):
        raise Problem(Code.MALFORMED_REQUEST, extra={"reason": "Transfer-Encoding: chunked alone is read"})
    if length is not None and not _LENGTH.fullmatch(length):
        raise Problem(Code.MALFORMED_REQUEST, extra={"reason": "Content-Length is not one whole number"})
    return coding is not None or (length is not None and int(length) > 0)


def _refuse_other_than_json(given: Mapping[bytes, str]) -> None:
    if given.get(b"content-encoding", "identity").lower() != "identity":
        raise Problem(Code.UNSUPPORTED_MEDIA_TYPE, headers={"accept-encoding": "identity"})
    content_type = given.get(b"content-type")
    if content_type is not None and not _JSON_TYPE.fullmatch(content_type):
        raise Problem(Code.UNSUPPORTED_MEDIA_TYPE, headers={"accept": "application/json"})


@lru_cache(maxsize=1024)
def _asks_for_more(name: bytes, reads: bool) -> bool:
    if name == KEY_HEADER.encode():
        return False
    squeezed = name.decode("latin-1").replace("-", "").replace("_", "").removeprefix("x")
    # The key by another name, or several: dropped, a repetition would be a second close.
    return squeezed in _ASKS_FOR_MORE or squeezed.startswith("idempot") or (squeezed in _CACHE_CONDITIONS and not reads)


def _refuse_parameters(query: bytes, read: Reads) -> None:
    names = _names(query)
    unknown = [name for name in names if name not in read.query]
    if unknown:
        raise field_problem(*(_unknown_parameter(name, read) for name in unknown))
    if len(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) > len(names):
        raise field_problem(*(FieldError(name, "is given more than once, or there are too many") for name in names))


def _names(query: bytes) -> list[str]:
    text = query.decode("latin-1")
    pairs = parse_qsl(text[:65_536], keep_blank_values=True)
    return list(dict.fromkeys(name for name, _ in pairs))[:MOST_FIELD_ERRORS] or [text]


def _unknown_parameter(name: str, read: Reads) -> FieldError:
    known = f"known are {', '.join(sorted(read.query))}" if read.query else "what to close goes into the body"
    return FieldError(name[:_NAME_LENGTH], f"is not a parameter of this address; {known}")


def _unknown_header(name: str) -> FieldError:
    return FieldError(name[:_NAME_LENGTH], "is a header that is not understood here; remove it")
