"""Prometheus metrics that more than one service has. A service's own metrics are beside the code that counts."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Buckets for everything between a local transaction and the deadline of a batch."""

KAFKA_RECORDS: Final = Counter(
    "closeflow_kafka_records_total", "Records read, by what became of them", ["topic", "outcome"]
)
KAFKA_BATCH_SECONDS: Final = Histogram(
    "closeflow_kafka_batch_seconds", "From a batch read to its offsets committed", ["topic"], buckets=SECONDS
)
KAFKA_LAG: Final = Gauge(
    "closeflow_kafka_lag_records",
    "Records behind the end of a partition, seen at the last batch",
    ["topic", "partition"],
)
KAFKA_PUBLISHED: Final = Counter("closeflow_kafka_published_total", "Records acknowledged by Kafka", ["topic"])
