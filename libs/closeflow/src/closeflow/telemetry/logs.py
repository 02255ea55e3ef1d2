"""Structured logs: past-tense event names, ids as fields, one line per event on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Any, Final, cast

import orjson
import structlog
import structlog.tracebacks
from structlog.typing import EventDict, Processor, WrappedLogger

from closeflow.telemetry.trace import current_trace

# Without local variables, which may hold credentials.
_TRACEBACKS: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
# The same where rich is installed: it would show them, and take half a minute for a deep one.
_CONSOLE: Final = structlog.dev.ConsoleRenderer(
    colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
)
_DEPTH: Final = 6


class LogFormat(StrEnum):
    """One JSON object per line for machines, or coloured text for a person at a terminal."""

    JSON = "json"
    CONSOLE = "console"


def configure_logging(log_format: LogFormat | str, service: str, *, level: int = logging.INFO) -> None:
    """Set up structlog and route the standard library's loggers through it. Libraries speak from WARNING on.

    Fields bound with `structlog.contextvars` are added to every line of the task that bound them, and `trace_id` and
    `span_id` to those of a task whose span is known (`closeflow.telemetry.trace.in_trace`).
    """

    def add_service(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        add_service,
        _add_trace,
    ]
    rendered = _rendered_whatever_it_holds(
        [_TRACEBACKS, structlog.processors.JSONRenderer(serializer=_to_json)]
        if LogFormat(log_format) is LogFormat.JSON
        else [_CONSOLE]
    )
    structlog.configure(
        processors=[*shared, rendered],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _StandardError(),
        cache_logger_on_first_use=True,
    )
    library = logging.StreamHandler(sys.stderr)
    library.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, rendered],
        )
    )
    logging.basicConfig(handlers=[library], level=logging.WARNING, force=True)


def _add_trace(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    context = current_trace()
    if context is not None:
        for name, value in context.fields().items():
            event.setdefault(name, value)
    return event


class _StandardError(structlog.WriteLogger):
    """May be a full disk, or a pipe that nobody reads any more: then the line is lost, and the service goes on."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def msg(self, message: str) -> None:
        with suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = fatal = failure = err = error = critical = exception = msg


def _rendered_whatever_it_holds(renderers: Sequence[Processor]) -> Processor:
    """A log line that could not be rendered has ended a consumer: what a renderer refuses is shown as text, here what
    comes before JSON."""

    def render(logger: WrappedLogger, name: str, event: EventDict) -> EventDict | str:
        shown: Any = event
        for renderer in renderers:
            shown = renderer(logger, name, shown)
        return cast("EventDict | str", shown)

    def rendered(logger: WrappedLogger, name: str, event: EventDict) -> EventDict | str:
        try:
            return render(logger, name, dict(event))
        except Exception:
            return render(logger, name, _plain(event, _DEPTH))

    return rendered


def _to_json(event: EventDict, **_: Any) -> str:
    """Traceback and all are in it by now, so what is refused may be within what `_TRACEBACKS` made."""
    try:
        return _dumped(event)
    except (TypeError, ValueError):
        return _dumped(_plain(event, _DEPTH))


def _dumped(event: EventDict) -> str:
    return orjson.dumps(event, default=_text, option=orjson.OPT_NON_STR_KEYS).decode()


def _plain(value: Any, depth: int) -> Any:
    """The same in what every renderer takes. Deeper than `depth` it is text, so a circle ends."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return int(value)
    if depth and isinstance(value, Mapping):
        return {_text(key): _plain(one, depth - 1) for key, one in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_plain(one, depth - 1) for one in value]
    return _text(value)


def _text(value: Any) -> str:
    try:
        return str(value).encode(errors="backslashreplace").decode()
    except Exception as error:
        return f"<a {type(value).__name__} that cannot be shown: {type(error).__name__}>"
