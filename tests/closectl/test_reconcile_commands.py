"""`closectl reconcile ledger` as a machine calls it: exit codes, one document, and one line for what cannot be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from broker_simulator.process import SimulatorProcess
from closeflow.storage.core.engine import Database
from tests.closectl.running import ROLE, Done, closectl
from tests.conftest import Database as OnTestStack

DSN: Final = "postgresql://me@127.0.0.1:1/nothing"
KAFKA: Final = "127.0.0.1:1"


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    directory: Path = tmp_path_factory.mktemp("broker")
    with SimulatorProcess(directory) as running:
        yield running


def told(done: Done, code: int = 2) -> str:
    assert (done.exit_code, done.stdout) == (code, ""), done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr.strip()


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (("--since", "yesterday"), "'yesterday' must be a day such as 2026-03-02"),
        (("--until", "9999-01-01"), "must be a day since 1970 that has begun"),
        (("--wait", "-1"), "must be a number of seconds"),
        (("--without", "database"), "'database' is not one of"),
        (("--without", "executions"), "leaves nothing to compare with"),
        (("--without", "events", "--without", "broker"), "leave nothing to compare"),
        (("--account", ""), "must not be empty"),
    ],
)
def test_an_argument_that_cannot_be_is_told(arguments: tuple[str, ...], wrong: str) -> None:
    assert wrong in told(closectl("reconcile", "ledger", *arguments, postgres_dsn=DSN))


def test_a_source_that_is_not_set_is_told_with_how_to_leave_it_out() -> None:
    said = told(closectl("reconcile", "ledger", postgres_dsn=DSN, kafka_bootstrap_servers=KAFKA))
    assert "CLOSECTL_BROKER_URL" in said
    assert "--without broker" in said
    assert "CLOSECTL_KAFKA_BOOTSTRAP_SERVERS is not set" in told(closectl("reconcile", "ledger", postgres_dsn=DSN))


def test_a_database_that_is_away_is_told() -> None:
    said = told(closectl("reconcile", "ledger", "--without", "broker", postgres_dsn=DSN, kafka_bootstrap_servers=KAFKA))
    assert "the database of CLOSECTL_POSTGRES_DSN cannot be asked" in said


def test_a_kafka_that_is_away_is_told(closes: Database, closes_database: OnTestStack) -> None:
    settings = {"postgres_dsn": closes_database.dsn(ROLE), "kafka_bootstrap_servers": KAFKA}
    assert "cannot be reached at" in told(closectl("reconcile", "ledger", "--without", "broker", **settings))
    assert closes is not None


def test_what_the_broker_does_not_list_is_told_with_exit_code_1(
    closes: Database, closes_database: OnTestStack, simulator: SimulatorProcess
) -> None:
    """The broker of another desk: it has none of these executions."""
    assert closes is not None
    settings = {
        "postgres_dsn": closes_database.dsn(ROLE),
        "broker_url": simulator.url,
        "broker_key_id": simulator.key_id,
        "broker_secret_key": simulator.secret_key,
        "broker_account_id": "main",
    }
    arguments = ("reconcile", "ledger", "--without", "events", "--wait", "40")
    done = closectl(*arguments, "--json", **settings)
    assert done.exit_code == 1, done.stderr
    found = json.loads(done.stdout)
    assert not found["agrees"]
    assert [one["kind"] for one in found["differences"]] == ["not_at_broker"] * 5
    assert {one["symbol"]: one["executions"]["cash"] for one in found["days"]} == {
        "AAPL": "1002.5",
        "MSFT": "1002.5",
        "NVDA": "-200.5",
    }
    assert [one["events"] for one in found["days"]] == [None] * 3
    lines = closectl(*arguments, **settings)
    assert lines.exit_code == 1
    assert "not_at_broker: main AAPL" in lines.stdout
    assert "5 differences; 0 of 3 days agree" in lines.stdout

    only = closectl(*arguments, "--symbol", "AMZN", **settings)
    assert (only.exit_code, only.stdout.splitlines()[-1][:13]) == (0, "no difference")
    other = closectl(*arguments, "--symbol", "AMZN", **{**settings, "broker_account_id": "second"})
    assert other.exit_code == 2
    assert "give --account second" in other.stdout
