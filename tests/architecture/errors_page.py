"""docs/errors.md, made from the table that both doors answer from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from close_api.errors import STATUSES, Code, Status
from closeflow_client.errors import CloseflowError

from .markdown import table

HEAD: Final = """# Errors

Every code that close-api answers, over both doors; `python -m tests.architecture.pages` makes this page from the enum
that they answer from. The codes are released names and never change. Over REST a code is the member `code` of the
problem document (RFC 9457), on the seed's route `/api/options/{position_id}/close` the member `error`; over gRPC it is
the reason of `google.rpc.ErrorInfo`, in upper case. The Python client raises the class of `closeflow_client.errors`.

Repeating a call with the same key is always safe. Where the table says no, it only does not help: do what the message
says. The service has the same table at `/docs/errors`, where the `type` of a problem points to.
"""


def page() -> str:
    """The whole page."""
    head = ("code", "HTTP", "gRPC", "repeat with the same key?", "what it means", "Python")
    return "\n".join([HEAD, table(head, _rows())])


def _rows() -> Iterator[tuple[str, ...]]:
    for code, status in STATUSES.items():
        yield f"`{code}`", str(status.http), status.grpc, _repeat(status), status.message, _class(code)


def _repeat(status: Status) -> str:
    if not status.should_retry:
        return "no"
    return "yes" if status.retry_after_s is None else f"yes, after {status.retry_after_s} s"


def _class(code: Code) -> str:
    found = CloseflowError.classes.get(code)
    return "" if found is None else f"`{found.__name__}`"
