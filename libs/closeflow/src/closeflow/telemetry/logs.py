"""Structured logs: past-tense event names, ids as fields, one line per event on standard error."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import Any, Final

import orjson
import structlog
import structlog.tracebacks
from structlog.typing import EventDict, Processor, WrappedLogger

# Without local variables, which may hold credentials.
_TRACEBACKS: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


class LogFormat(StrEnum):
    JSON = "json"
    CONSOLE = "console"


def configure_logging(log_format: LogFormat | str, service: str, *, level: int = logging.INFO) -> None:
    """Set up structlog and route the standard library's loggers through it. Libraries speak from WARNING on.

    Fields bound with `structlog.contextvars` are added to every line of the task that bound them.
    """

    def add_service(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        add_service,
    ]
    closing: list[Processor] = (
        [_TRACEBACKS, structlog.processors.JSONRenderer(serializer=_to_json)]
        if LogFormat(log_format) is LogFormat.JSON
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[*shared, *closing],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    library = logging.StreamHandler(sys.stderr)
    library.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *closing],
        )
    )
    logging.basicConfig(handlers=[library], level=logging.WARNING, force=True)


def _to_json(event: EventDict, **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()
