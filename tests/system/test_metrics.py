"""What alerts and dashboards ask for is what running services export."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from demo.system import SERVICES, System
from deploy.monitoring.queries import metrics_of, queries
from tests.system.desk import Desk

ONLY_AFTER_IT_HAPPENED = frozenset(
    {"closeflow_incidents_open", "closeflow_parked_records", "closeflow_broker_breaker_open", "closeflow_dead_letters"}
)
"""Without an incident, a parked record, a send or a first count there is no such series, and the alert is quiet."""


def exported(system: System, service: str) -> set[str]:
    """Families with at least one series; a counter by its whole name."""
    answer = httpx.get(f"{system.url(service)}/metrics", verify=system.links.verify, timeout=10).raise_for_status()
    return {
        f"{one.name}_total" if one.type == "counter" else one.name
        for one in text_string_to_metric_families(answer.text)
        if one.samples
    }


def test_every_query_asks_for_what_a_running_system_exports(desk: Desk) -> None:
    held = desk.hold(10)
    desk.close(held)
    desk.until_status("closed", [held])

    def missing() -> dict[str, set[str]]:
        there = set().union(*(exported(desk.system, one) for one in SERVICES)) | ONLY_AFTER_IT_HAPPENED
        return {where: found for where, query in queries() if (found := metrics_of(query) - there)}

    desk.until(f"exported: {missing()}", lambda: missing() == {})
