"""What the OpenAPI says is what the running API does: generated calls, also such as follow from each other's answers,
find no 5xx and no answer that it does not name.

`SCHEMATHESIS_EXAMPLES` is how many are made at most of each operation in each phase.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import REPOSITORY

from .conftest import MINE, Desk, Running

EXAMPLES: Final = os.environ.get("SCHEMATHESIS_EXAMPLES", "3")
CHECKS: Final = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method,ignored_auth"
)


@pytest.mark.timeout(int(os.environ.get("SCHEMATHESIS_WITHIN_S", "420")))
def test_generated_calls_get_what_the_document_says(
    desk: Desk, api: Running, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    slot = f"closeflow_{desk.database.name}"
    desk.run("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", slot)  # Without it the service is not ready.
    try:
        record_property("generated calls", _generate(desk, api, tmp_path))
    finally:
        desk.run("SELECT pg_drop_replication_slot(%s)", slot)


def _generate(desk: Desk, api: Running, tmp_path: Path) -> int:
    """How many calls were made."""
    first = desk.open_positions(50, "1000")[0]
    desk.open_positions(5, asset_type="option")
    document = json.loads((REPOSITORY / "schemas" / "openapi.json").read_text())
    # A watch ends when its close does, and nothing works on the closes here; it has tests of its own.
    document["paths"] = {path: one for path, one in document["paths"].items() if not path.endswith("/watch")}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] == "position_id":
                    parameter["examples"] = {"there": {"value": first}} if "/v1/" in path else {}
                if parameter["name"] == "wait":  # Nothing works on the closes here, so it would wait to the end.
                    parameter["schema"] = {"type": "string", "pattern": "^0s?$"}
    described = tmp_path / "openapi.json"
    described.write_text(json.dumps(document))
    report = tmp_path / "report.ndjson"
    ran = subprocess.run(
        [
            str(Path(sys.executable).with_name("st")),
            "run",
            str(described),
            f"--url={api.url}",
            f"--header=Authorization: Bearer {desk.issuer.token(MINE)}",
            f"--checks={CHECKS}",
            "--phases=examples,coverage,fuzzing,stateful",
            f"--max-examples={EXAMPLES}",
            "--request-timeout=70",
            "--seed=11",
            "--continue-on-failure",
            "--suppress-health-check=all",
            "--warnings=off",
            "--no-color",
            f"--report-ndjson-path={report}",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2_000:]
    made = re.search(r"Test cases:\s+([0-9,]+) generated", ran.stdout)
    assert made is not None, ran.stdout[-2_000:]
    calls = int(made[1].replace(",", ""))
    assert calls > 500, ran.stdout[-2_000:]
    return calls
