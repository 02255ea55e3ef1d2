"""docs/metrics.md, made from the list of metrics and from where the sources make them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from closeflow.telemetry.metric_list import METRICS

from .markdown import link, table
from .repository import REPOSITORY

HEAD: Final = """# Metrics

Every metric that the services serve at `/metrics` on their port, beside `process_*` and `python_*` of the client
library. They are declared in `closeflow.telemetry.metric_list`, from which this page is made
(`python -m tests.architecture.pages`); a service can make no other. What needs a person is an
[incident](operations.md#incidents) in any case; these figures show it coming.
"""
MAKERS: Final = frozenset({"counter", "gauge", "histogram"})
SERVICES: Final = ("close-api", "order-submitter", "broker-gateway", "fill-processor", "reconciler", "close-board")
SHARED: Final[Mapping[str, str]] = {
    "closeflow_kafka_records_total": "run_consumer",
    "closeflow_kafka_batch_seconds": "run_consumer",
    "closeflow_kafka_lag_records": "run_consumer",
    "closeflow_kafka_published_total": "open_producer",
    "closeflow_kafka_batch_records": "run_consumer",
    "closeflow_close_stage_seconds": "STAGE_SECONDS",
    "closeflow_database_pool_wait_seconds": "make_engine",
    "closeflow_event_loop_lag_seconds": "run_service",
    "closeflow_broker_rate_tokens": "show_tokens",
    "closeflow_spans_total": "traced",
    "closeflow_job_still_ratio": "beating",
    "closeflow_clock_skew_seconds": "beating",
    "closeflow_broker_stream_messages_total": "trade_updates",
}
"""A metric of the library is there in the services that call this."""


@dataclass(frozen=True, slots=True)
class Made:
    """A metric as `file` makes it."""

    name: str
    file: Path


def page() -> str:
    """The whole page."""
    rows = [
        (
            link(f"`{one.name}`", one.file),
            METRICS[one.name].type,
            ", ".join(f"`{label}`" for label in METRICS[one.name].labels),
            ", ".join(services(one)),
            METRICS[one.name].meaning,
            METRICS[one.name].odd,
        )
        for one in made()
    ]
    return "\n".join(
        [HEAD, table(("metric", "type", "labels", "service", "what it tells", "odd, and what to do"), rows)]
    )


def made() -> list[Made]:
    """Every metric that the library and the services make, by name; one that is made twice is there twice."""
    roots = (REPOSITORY / "libs", REPOSITORY / "services")
    files = [file for root in roots for file in root.glob("*/src/**/*.py")]
    return sorted((one for file in files for one in _made(file)), key=lambda one: one.name)


def services(metric: Made) -> list[str]:
    """Whose `/metrics` has it: the service whose code defines it, or those that call what keeps it."""
    if metric.name not in SHARED:
        return [metric.file.relative_to(REPOSITORY / "services").parts[0]]
    return [one for one in SERVICES if SHARED[metric.name] in _names(one)]


def _names(service: str) -> set[str]:
    """What the service imports by name."""
    return {
        alias.name
        for file in (REPOSITORY / "services" / service / "src").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _made(file: Path) -> Iterator[Made]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKERS:
            match node.args:
                case [ast.Constant(value=str(name))]:
                    yield Made(name, file)
