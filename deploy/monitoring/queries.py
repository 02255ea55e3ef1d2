"""Every query of the alerts and of the dashboards, and which metrics one asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from deploy.monitoring.dashboards import FOLDER
from deploy.monitoring.rules import alerts, read

_OURS: Final = re.compile(r"\b(?:closeflow|close_api|process|python)_[a-z0-9_]+\b")
_LABELS: Final = re.compile(r"\{[^}]*\}|\b(?:by|on|without|ignoring) *\([^)]*\)")
PART: Final = re.compile(r"_(bucket|count|sum)$")


def metrics_of(query: str) -> set[str]:
    """The names in a query of what our processes export; a histogram's without `_bucket` and the like."""
    return {PART.sub("", name) for name in _OURS.findall(_LABELS.sub("", query))}


def queries() -> Iterator[tuple[str, str]]:
    """Where each query stands, and the query."""
    for alert in alerts(read()):
        yield alert["alert"], alert["expr"]
    for file in sorted(FOLDER.glob("*.json")):
        for panel in _panels(json.loads(file.read_text())):
            for target in panel.get("targets", ()):
                yield f"{file.stem}: {panel['title']}", target["expr"]


def _panels(of: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in of.get("panels", ()):
        yield panel
        yield from _panels(panel)
