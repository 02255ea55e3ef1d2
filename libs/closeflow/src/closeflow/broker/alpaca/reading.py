"""What the answer to a read holds. Each raises `BrokerUnavailable` when it is not there."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from closeflow.broker.alpaca import parse
from closeflow.broker.alpaca.wire import NotWritten, Reply, read_json
from closeflow.broker.protocol import BrokerUnavailable, FailureCause

_ABOUT: Final = dict.fromkeys((400, 404, 413, 414, 422), FailureCause.QUESTION) | dict.fromkeys(
    (401, 403, 429), FailureCause.CALLER
)


def usable(outcome: object, path: str) -> Reply:
    """The answer, if it has status 200; what went wrong else is in the error's `about`."""
    if not isinstance(outcome, Reply):
        about = FailureCause.CALLER if isinstance(outcome, NotWritten) else FailureCause.UNKNOWN
        reason, retry_after_s = getattr(outcome, "reason", outcome), getattr(outcome, "retry_after_s", None)
        raise BrokerUnavailable(f"{path}: {reason}", retry_after_s=retry_after_s, about=about)
    if outcome.status != HTTPStatus.OK:
        start = outcome.body[:200].decode(errors="replace")
        about = _ABOUT.get(outcome.status, FailureCause.UNKNOWN)
        reason = f"{path}: HTTP {outcome.status}: {start}"
        raise BrokerUnavailable(reason, retry_after_s=outcome.retry_after_s, about=about)
    return outcome


def items_of(reply: Reply) -> list[object]:
    """The items of a JSON list, whatever they are."""
    try:
        found = read_json(reply.body)
    except ValueError as error:
        raise BrokerUnavailable(f"not JSON: {error}") from error
    if not isinstance(found, list):
        raise BrokerUnavailable("the answer is not a list")
    return found


def last_id(activities: Sequence[parse.Json], page: str | None) -> str:
    """The token of the page after this one."""
    last = next((one for activity in reversed(activities) if isinstance(one := activity.get("id"), str)), page)
    if last is None or last == page:
        raise BrokerUnavailable("a page of executions does not say how the list goes on")
    return last


def as_object(value: object, what: str) -> parse.Json:
    """`parse.as_object` for an answer that nothing can stand for."""
    try:
        return parse.as_object(value, what)
    except parse.Malformed as error:
        raise BrokerUnavailable(str(error)) from error


def text_of(of: parse.Json, name: str) -> str:
    """`parse.text` likewise."""
    try:
        return parse.text(of, name)
    except parse.Malformed as error:
        raise BrokerUnavailable(str(error)) from error
