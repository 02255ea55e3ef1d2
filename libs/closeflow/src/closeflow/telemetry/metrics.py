"""Makes the metrics that `closeflow.telemetry.metric_list` declares, each beside the code that counts."""

from __future__ import annotations

from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

from closeflow.telemetry.metric_list import METRICS, Metric, Type

EXPOSITION: Final = CONTENT_TYPE_LATEST
"""The content type of what `exposed` gives."""


def counter(name: str) -> Counter:
    """The declared counter; made once in a process. Raises UndeclaredMetric."""
    one = _declared(name, Type.COUNTER)
    return Counter(name, one.meaning, one.labels)


def gauge(name: str) -> Gauge:
    """The declared gauge; made once in a process. Raises UndeclaredMetric."""
    one = _declared(name, Type.GAUGE)
    return Gauge(name, one.meaning, one.labels)


def histogram(name: str) -> Histogram:
    """The declared histogram; made once in a process. Raises UndeclaredMetric."""
    one = _declared(name, Type.HISTOGRAM)
    return Histogram(name, one.meaning, one.labels, buckets=one.buckets or Histogram.DEFAULT_BUCKETS)


def exposed() -> bytes:
    """Every metric of this process as Prometheus reads it."""
    return generate_latest()


class UndeclaredMetric(LookupError):
    """The list has no metric of this name and type; the text says where to add it."""


def _declared(name: str, kind: Type) -> Metric:
    one = METRICS.get(name)
    if one is None or one.type is not kind:
        raise UndeclaredMetric(f"no {kind} {name} is declared: add it to closeflow.telemetry.metric_list")
    return one


STAGE_SECONDS: Final = histogram("closeflow_close_stage_seconds")
KAFKA_BATCH_RECORDS: Final = histogram("closeflow_kafka_batch_records")
KAFKA_RECORDS: Final = counter("closeflow_kafka_records_total")
KAFKA_BATCH_SECONDS: Final = histogram("closeflow_kafka_batch_seconds")
KAFKA_LAG: Final = gauge("closeflow_kafka_lag_records")
KAFKA_PUBLISHED: Final = counter("closeflow_kafka_published_total")
SPANS: Final = counter("closeflow_spans_total")
