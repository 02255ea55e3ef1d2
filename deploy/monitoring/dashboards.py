"""The dashboards of Grafana: one for the desk, which asks what is stuck, and one for the engineer, who asks why.

python -m deploy.monitoring.dashboards     # writes deploy/monitoring/dashboards/*.json; a test holds them current
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as Graph
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode

FOLDER: Final = Path(__file__).with_name("dashboards")
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="prometheus")
WIDTH: Final = 24
_GREEN, _RED = "green", "red"
_Panel = tuple[str, str, *tuple[tuple[str, str], ...]]
"""Its title, its unit, and its queries, each with a legend."""


def _quantile(share: float, metric: str, only: str = "", *, by: str = "") -> str:
    groups = f"{by}, le" if by else "le"
    chosen = f"{{{only}}}" if only else ""
    return f"histogram_quantile({share}, sum by ({groups}) (rate({metric}_bucket{chosen}[$__rate_interval])))"


_ENGINEER: Final[Sequence[tuple[str, Sequence[_Panel]]]] = (
    (
        "Stages of a close",
        (
            (
                "Half of the closes within",
                "s",
                (_quantile(0.5, "closeflow_close_stage_seconds", by="stage"), "{{stage}}"),
            ),
            (
                "95 % of the closes within",
                "s",
                (_quantile(0.95, "closeflow_close_stage_seconds", by="stage"), "{{stage}}"),
            ),
        ),
    ),
    (
        "From the outbox to Kafka",
        (
            (
                "Age of the oldest event that is not in Kafka",
                "s",
                ("max(closeflow_outbox_unpublished_age_seconds)", "age"),
            ),
            (
                "Replication slot",
                "bytes",
                ("max(closeflow_replication_slot_lag_bytes)", "not confirmed"),
                ("max(closeflow_replication_slot_wal_left_bytes)", "left before it is lost"),
            ),
            (
                "Connector",
                "none",
                ("max(closeflow_connector_running)", "connector runs"),
                ("max(closeflow_replication_slot_active)", "slot is read"),
            ),
            ("Age of Debezium's heartbeat", "s", ("max(closeflow_heartbeat_age_seconds)", "age")),
        ),
    ),
    (
        "Consumers",
        (
            ("Records that wait", "none", ("max by (group, topic) (closeflow_consumer_lag_records)", "{{group}}")),
            ("Stands still", "s", ("max by (group, topic) (closeflow_consumer_still_seconds)", "{{group}}")),
            (
                "Records",
                "none",
                (
                    "sum by (topic, outcome) (rate(closeflow_kafka_records_total[$__rate_interval]))",
                    "{{topic}} {{outcome}}",
                ),
            ),
            (
                "Records in a batch, 95 % within",
                "none",
                (_quantile(0.95, "closeflow_kafka_batch_records", by="topic"), "{{topic}}"),
            ),
            (
                "Time of a batch, 95 % within",
                "s",
                (_quantile(0.95, "closeflow_kafka_batch_seconds", by="topic"), "{{topic}}"),
            ),
            ("Closes in a batch, 95 % within", "none", (_quantile(0.95, "close_api_batch_size"), "close-api")),
        ),
    ),
    (
        "Broker",
        (
            (
                "Answers",
                "none",
                (
                    "sum by (kind, answer) (rate(closeflow_broker_answers_total[$__rate_interval]))",
                    "{{kind}} {{answer}}",
                ),
            ),
            (
                "Duration of a call, 95 % within",
                "s",
                (_quantile(0.95, "closeflow_broker_call_seconds", by="kind"), "{{kind}}"),
            ),
            ("Calls that may go at once", "none", ("closeflow_broker_rate_tokens", "{{job}}")),
            ("Breaker", "none", ("max by (account) (closeflow_broker_breaker_open)", "{{account}} open")),
            (
                "Gateway",
                "none",
                ("sum by (account) (closeflow_gateway_active)", "{{account}} active"),
                ("sum by (account) (closeflow_gateway_listening)", "{{account}} listening"),
            ),
            (
                "Updates",
                "none",
                ("sum by (verdict) (rate(closeflow_broker_updates_total[$__rate_interval]))", "{{verdict}}"),
            ),
        ),
    ),
    (
        "Processes",
        (
            ("Answer to Prometheus", "none", ("up", "{{job}} {{instance}}")),
            (
                "Wait for a connection, 95 % within",
                "s",
                (_quantile(0.95, "closeflow_database_pool_wait_seconds", by="job"), "{{job}}"),
            ),
            (
                "Event loop late, 99 % within",
                "s",
                (_quantile(0.99, "closeflow_event_loop_lag_seconds", by="job"), "{{job}}"),
            ),
            ("Clock against the database's", "s", ("closeflow_clock_skew_seconds", "{{job}}")),
            (
                "Jobs of the reconciler, 1 is stalled",
                "none",
                ("max by (reconciler_job) (closeflow_job_still_ratio)", "{{reconciler_job}}"),
            ),
            ("CPU", "none", ("rate(process_cpu_seconds_total[$__rate_interval])", "{{job}}")),
            ("Memory", "bytes", ("process_resident_memory_bytes", "{{job}}")),
        ),
    ),
)


def desk() -> Dashboard:
    """What is not closing, for how long, what it waits for, and what needs a person."""
    made = _new("closeflow: desk", "closeflow-desk", "What is not closing, for how long, and who must act.")
    made.with_row(Row("Now"))
    for title, expr, unit, limit in (
        ("Closes not over", "sum(max by (status, waits_for) (closeflow_closes))", "none", None),
        ("Oldest", "max(closeflow_oldest_close_seconds)", "s", 900),
        ("Wait for a person", 'sum(max by (status) (closeflow_closes{waits_for="person"}))', "none", 1),
        ("Outcome unknown", 'sum(max by (status) (closeflow_closes{waits_for="unknown_outcome"}))', "none", 1),
        ("Open incidents", "sum(max by (kind) (closeflow_incidents_open)) or vector(0)", "none", 1),
        ("Breaker open", "max(closeflow_broker_breaker_open) or vector(0)", "none", 1),
    ):
        made.with_panel(_stat(title, expr, unit, limit))
    made.with_row(Row("Closes"))
    made.with_panel(
        _graph(
            "Closes that are not over, by what they wait for",
            "none",
            ("sum by (status, waits_for) (max by (status, waits_for) (closeflow_closes))", "{{status}}: {{waits_for}}"),
        )
    )
    made.with_panel(
        _graph(
            "Age of the oldest",
            "s",
            ("max by (status, waits_for) (closeflow_oldest_close_seconds) > 0", "{{status}}: {{waits_for}}"),
        )
    )
    made.with_panel(
        _graph(
            "Closes asked for",
            "reqps",
            ("sum by (answer) (rate(close_api_closes_total[$__rate_interval]))", "{{answer}}"),
        )
    )
    made.with_panel(
        _graph(
            "From the call to closed",
            "s",
            (_quantile(0.5, "closeflow_close_stage_seconds", 'stage="closed"'), "half within"),
            (_quantile(0.95, "closeflow_close_stage_seconds", 'stage="closed"'), "95 % within"),
        )
    )
    made.with_row(Row("What needs a person"))
    made.with_panel(
        _graph(
            "Open incidents", "none", ("max by (kind, severity) (closeflow_incidents_open)", "{{kind}} ({{severity}})")
        )
    )
    made.with_panel(
        _graph(
            "Records that wait",
            "none",
            ("max by (topic) (closeflow_dead_letters)", "{{topic}}"),
            ("max by (topic) (closeflow_parked_records)", "{{topic}} parked"),
        )
    )
    return made


def engineer() -> Dashboard:
    """Where a close loses its time, and the health of every part."""
    made = _new("closeflow: engineer", "closeflow-engineer", "Where a close loses its time, and how each part is.")
    for row, panels in _ENGINEER:
        made.with_row(Row(row))
        for title, unit, *targets in panels:
            made.with_panel(_graph(title, unit, *targets))
    return made


DASHBOARDS: Final = {"desk.json": desk, "engineer.json": engineer}


def written(name: str) -> str:
    """The JSON of one of `DASHBOARDS`."""
    return JSONEncoder(sort_keys=True, indent=2).encode(DASHBOARDS[name]().build()) + "\n"


def _new(title: str, uid: str, description: str) -> Dashboard:
    made = Dashboard(title).uid(uid).description(description).tags(["closeflow"])
    return made.refresh("10s").time("now-1h", "now").timezone("browser").readonly()


def _query(expr: str, legend: str) -> Dataquery:
    return Dataquery().expr(expr).legend_format(legend).datasource(SOURCE)


def _graph(title: str, unit: str, *targets: tuple[str, str]) -> Graph:
    panel = Graph().title(title).unit(unit).datasource(SOURCE).span(WIDTH // 2).height(8).fill_opacity(10)
    for expr, legend in targets:
        panel.with_target(_query(expr, legend))
    return panel


def _stat(title: str, expr: str, unit: str, limit: float | None) -> Stat:
    steps = [Threshold(value=None, color=_GREEN), *([Threshold(value=limit, color=_RED)] if limit is not None else [])]
    thresholds = ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
    panel = Stat().title(title).unit(unit).datasource(SOURCE).span(WIDTH // 6).height(4).thresholds(thresholds)
    return panel.with_target(_query(expr, title))


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for name in DASHBOARDS:
        (FOLDER / name).write_text(written(name))


if __name__ == "__main__":
    main()
