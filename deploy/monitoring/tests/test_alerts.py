"""Each alert fires when what it tells of is so, and stays quiet when something near it is; promtool evaluates them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.monitoring.rules import ALERTS, alerts, read, rendered
from deploy.monitoring.tests.cases import AT, CASES, NEVER_QUIET, Case, Series
from deploy.monitoring.tools import program

NAMES: Final = [alert["alert"] for alert in alerts(read())]


def promtool(*argv: str) -> None:
    done = subprocess.run((program("promtool"), *argv), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def one_test(name: str, series: Series, at: str, count: int) -> dict[str, Any]:
    fired = f'count(ALERTS{{alertname="{name}", alertstate="firing"}})'
    samples = [{"labels": "{}", "value": count}] if count else []
    return {
        "name": f"{name} {'fires' if count else 'stays quiet'}",
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "promql_expr_test": [{"expr": fired, "eval_time": at, "exp_samples": samples}],
    }


def leads_to(kind: str, page: str) -> dict[str, Any]:
    (alert,) = (one for one in alerts(read()) if one["alert"] == "IncidentOpen")
    told = {key: text.replace("{{ $labels.kind }}", kind) for key, text in alert["annotations"].items()}
    told |= {"runbook_url": f"docs/runbooks/{page}.md", "summary": f"2 open incidents {kind}"}
    expected = {"exp_labels": {"kind": kind, "severity": "warning"}, "exp_annotations": told}
    return {
        "interval": "1m",
        "input_series": [
            {"series": f'closeflow_incidents_open{{kind="{kind}", severity="warning"}}', "values": "2+0x30"}
        ],
        "alert_rule_test": [{"eval_time": AT, "alertname": "IncidentOpen", "exp_alerts": [expected]}],
    }


def test_the_rules_are_well_formed() -> None:
    promtool("check", "rules", str(ALERTS))


def test_every_alert_has_a_case() -> None:
    assert sorted(NAMES) == sorted({*CASES, *NEVER_QUIET})


def test_every_alert_fires_in_its_case_and_stays_quiet_in_the_other(tmp_path: Path) -> None:
    case: Case
    tests = [one_test("Watchdog", {}, AT, 1)]
    for name, case in CASES.items():
        tests += [one_test(name, case.fires, case.at, 1), one_test(name, case.quiet, case.at, 0)]
    tests += [leads_to("overfill", "overfill"), leads_to("deferred_no_fresh_quote", "deferred")]
    file = tmp_path / "alerts_test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", str(file))


def test_every_alert_leads_to_its_page_and_says_how_urgent_it_is() -> None:
    for alert in alerts(read()):
        name, told = alert["alert"], alert["annotations"]
        assert {"summary", "description", "runbook_url"} == set(told), name
        if name != "IncidentOpen":
            assert told["runbook_url"] == f"docs/runbooks/{name}.md"
            assert alert["labels"]["severity"] in {"critical", "warning", "none"}, name


def test_an_address_is_put_before_every_page_and_one_patience_is_everybody_s() -> None:
    found = alerts(yaml.safe_load(rendered(runbooks="https://wiki/", patience_s=2.5)))
    assert all(one["annotations"]["runbook_url"].startswith("https://wiki/docs/runbooks/") for one in found)
    assert {one["for"] for one in found} == {"2500ms"}
