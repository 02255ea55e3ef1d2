"""The examples of schemas/examples in the hands of the consumers of examples/: what we publish as good, they read."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conftest import REPOSITORY

CONSUMERS: Final = {"risk": "position-events", "accounting": "execution-events"}
READ: Final = """
import base64, importlib, json, sys
consumer = importlib.import_module(sys.argv[1])
refusal = consumer.NotApplied if hasattr(consumer, "NotApplied") else consumer.NotBooked
for line in sys.stdin:
    record = json.loads(line)
    value = record["value"] and base64.b64decode(record["value"])
    try:
        consumer.read(value, [(name, text.encode()) for name, text in record["headers"].items()])
        print("read")
    except refusal as error:
        print(error.args[0])
"""


def record_of(path: Path) -> dict[str, Any]:
    """As a consumer is given it; a bad one is described, not stored as it is."""
    if path.parent.name != "bad":
        return {"value": base64.b64encode(path.read_bytes()).decode(), "headers": {}, "error_class": "read"}
    told = json.loads(path.read_text())
    value = told["value_base64"] if "value_base64" in told else base64.b64encode(json.dumps(told["value"]).encode())
    text = value.decode() if isinstance(value, bytes) else value
    return {"value": text, "headers": told.get("headers", {}), "error_class": told["error_class"]}


@pytest.mark.parametrize("consumer", sorted(CONSUMERS))
def test_a_consumer_reads_every_good_example_and_refuses_a_bad_one_as_we_do(consumer: str, tmp_path: Path) -> None:
    topic = REPOSITORY / "schemas" / "examples" / CONSUMERS[consumer]
    paths = sorted(topic.rglob("*.json"))
    given = {path.relative_to(topic).as_posix(): record_of(path) for path in paths}
    ended = subprocess.run(
        [sys.executable, "-c", READ, consumer],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY / "examples" / consumer),
            "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        },
        input="".join(f"{json.dumps(one)}\n" for one in given.values()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = dict(zip(given, ended.stdout.split(), strict=True))
    good = [name for name in found if not name.startswith("bad/")]
    assert len(good) >= 4
    assert {name: found[name] for name in good} == dict.fromkeys(good, "read")
    # A consumer that reads fewer fields than we publish may accept what is wrong in another one.
    refused = {name: one for name, one in found.items() if one != "read"}
    assert refused == {name: given[name]["error_class"] for name in refused}
    assert "unknown_value" in refused.values()
