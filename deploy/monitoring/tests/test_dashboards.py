"""The dashboards are what their code writes, and no query asks for a metric that is not declared."""

from __future__ import annotations

import json

import pytest

from closeflow.telemetry.metric_list import METRICS
from deploy.monitoring.dashboards import DASHBOARDS, FOLDER, written
from deploy.monitoring.queries import metrics_of, queries


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_current(name: str) -> None:
    assert (FOLDER / name).read_text() == written(name), "run: .venv/bin/python -m deploy.monitoring.dashboards"


def test_no_other_dashboard_is_there_and_each_has_a_name_of_its_own() -> None:
    assert {file.name for file in FOLDER.iterdir()} == {*DASHBOARDS}
    assert len({json.loads(written(name))["uid"] for name in DASHBOARDS}) == len(DASHBOARDS)


def test_every_query_asks_for_what_is_declared() -> None:
    asked = {where: metrics_of(query) for where, query in queries()}
    of_the_client = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
    assert {where: found for where, names in asked.items() if (found := names - METRICS.keys() - of_the_client)} == {}
    assert sum(map(len, asked.values())) > len(DASHBOARDS) * 10, "the queries are read"
