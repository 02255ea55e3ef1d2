"""The rules of the alerts as they are, or with the two things changed that a place may want otherwise.

    python -m deploy.monitoring.rules --runbooks https://git.example/closeflow/blob/main/ > alerts.yaml

`--runbooks` is put before every `runbook_url`. `--patience SECONDS` replaces how long a fault has to last until its
alert fires (`for`), and is for trying out: with the default no restart of a service calls anybody.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

import yaml

ALERTS: Final = Path(__file__).with_name("alerts.yaml")


def read() -> dict[str, Any]:
    """The rules as Prometheus reads them."""
    rules: dict[str, Any] = yaml.safe_load(ALERTS.read_text())
    return rules


def alerts(rules: dict[str, Any]) -> list[dict[str, Any]]:
    """Every alert, in the order of the file."""
    return [rule for group in rules["groups"] for rule in group["rules"]]


def rendered(*, runbooks: str = "", patience_s: float | None = None) -> str:
    """The rules with an address before each page, and every alert with the same patience, where these are given."""
    rules = read()
    for alert in alerts(rules):
        alert["annotations"]["runbook_url"] = runbooks + alert["annotations"]["runbook_url"]
        if patience_s is not None:
            alert["for"] = f"{round(patience_s * 1000)}ms"
    return yaml.safe_dump(rules, sort_keys=False, width=120)


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(description="print the rules of the alerts")
    parser.add_argument("--runbooks", default="", help="the address under which docs/ is found; ends with a slash")
    parser.add_argument("--patience", type=float, help="seconds that a fault has to last, of every alert")
    given = parser.parse_args()
    if given.runbooks and not given.runbooks.endswith("/"):
        parser.error("--runbooks: the address has to end with a slash, because docs/runbooks/... is put behind it")
    sys.stdout.write(rendered(runbooks=given.runbooks, patience_s=given.patience))


if __name__ == "__main__":
    main()
