"""The real servers: started, used, broken in each way that the stack promises to notice, and mended."""

import json
import os
import re
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator

import psycopg
import pytest

import devstack
from devstack import EnvironmentLacking, Stack, StackError
from devstack.instances import ensure_instance
from devstack.processes import is_alive

NAME = "devstack-test"
PARTS = ("postgres", "kafka", "connect")


@pytest.fixture(scope="module", autouse=True)
def own_instance() -> Iterator[None]:
    """Also wiped before, in case that an earlier run was killed."""
    devstack.reset(NAME)
    yield
    devstack.reset(NAME)


def pids() -> dict[str, tuple[int | None, str | None]]:
    return {name: (part.pid, part.birth) for name, part in devstack.status(NAME).parts.items()}


def ask(stack: Stack, sql: str) -> str:
    with psycopg.connect(stack.admin_dsn, connect_timeout=5, autocommit=True) as connection:
        row = connection.execute(sql.encode()).fetchone()
        return str(row[0]) if row else ""


def keep(stack: Stack, answer: int) -> None:
    with psycopg.connect(stack.admin_dsn, connect_timeout=5, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (answer int)")
        connection.execute("TRUNCATE kept")
        connection.execute("INSERT INTO kept VALUES (%s)", [answer])


def give_kafka_an_id_that_looks_like_an_option() -> None:
    """One random id in 64 begins with a dash."""
    _, directory = ensure_instance(NAME)
    settings = directory / "instance.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"cluster_id": "-7OgVu7SRbup7ReD_CLcDg"}))


def test_a_first_start_gives_servers_fit_for_change_data_capture() -> None:
    lines: list[str] = []
    give_kafka_an_id_that_looks_like_an_option()
    stack = devstack.up(NAME, lines.append)
    assert ask(stack, "SHOW wal_level") == "logical"
    assert ask(stack, "SHOW listen_addresses") == "127.0.0.1"
    assert ask(stack, "SHOW fsync") == "on"
    assert int(ask(stack, "SHOW max_replication_slots")) >= 10
    with urllib.request.urlopen(f"{stack.connect_url}/connector-plugins", timeout=10) as answer:
        classes = [plugin["class"] for plugin in json.load(answer)]
    assert "io.debezium.connector.postgresql.PostgresConnector" in classes
    assert any(re.fullmatch(r"kafka +ready after [\d.]+ s", line) for line in lines)
    assert {line.split()[0] for line in lines if line.endswith(" preparing")} >= {"postgres", "kafka"}
    assert devstack.find(NAME) == stack


def test_a_wrong_password_is_refused() -> None:
    stack = devstack.up(NAME)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(stack.postgres_dsn("closeflow_admin", "wrong"), connect_timeout=5)


def test_up_changes_nothing_when_all_runs() -> None:
    before = pids()
    devstack.up(NAME)
    assert pids() == before


def test_a_killed_part_is_reported_with_signal_log_and_remedy_and_mended_by_up() -> None:
    devstack.kill_part(NAME, "connect")
    found = devstack.status(NAME)
    assert found.state == "broken"
    expected = r"connect was killed by SIGKILL at \S+ \(log: \S+/connect.log\): make up INSTANCE=devstack-test"
    assert re.fullmatch(expected, found.explanation[0])
    others = {name: pid for name, pid in pids().items() if name != "connect"}
    devstack.up(NAME)
    assert devstack.status(NAME).state == "running"
    assert others.items() <= pids().items()


def test_a_killed_postgresql_keeps_what_was_committed() -> None:
    stack = devstack.up(NAME)
    keep(stack, 42)
    devstack.kill_part(NAME, "postgres")
    devstack.start_part(NAME, "postgres")
    assert ask(stack, "SELECT answer FROM kept") == "42"


def test_a_stopped_part_stays_down_until_it_is_started() -> None:
    devstack.stop_part(NAME, "postgres")
    assert devstack.status(NAME).explanation[0].startswith("postgres was stopped at ")
    devstack.start_part(NAME, "postgres")
    assert devstack.status(NAME).state == "running"


def test_a_killed_supervisor_leaves_no_orphan_and_up_mends_it() -> None:
    stack, before = devstack.up(NAME), pids()
    supervisor = devstack.status(NAME).supervisor_pid
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while any(is_alive(*process) for process in before.values()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [name for name, process in before.items() if is_alive(*process)]
    found = devstack.status(NAME)
    assert found.state == "broken"
    assert f"the supervisor (pid {supervisor}) and all parts are gone" in found.explanation[0]
    assert devstack.find(NAME) is None
    assert devstack.up(NAME) == stack


def test_down_stops_everything_a_taken_port_is_named_and_a_second_start_finds_all_as_it_was() -> None:
    keep(devstack.up(NAME), 43)
    before = pids()
    devstack.down(NAME)
    assert not [name for name, process in before.items() if is_alive(*process)]
    assert devstack.status(NAME).state == "stopped"
    instance, _ = ensure_instance(NAME)
    with socket.create_server(("127.0.0.1", instance.kafka_port)):
        expected = rf"port {instance.kafka_port} \(kafka of instance {NAME}\) is taken by another program"
        with pytest.raises(EnvironmentLacking, match=expected):
            devstack.up(NAME)
    assert devstack.find(NAME) is None
    lines: list[str] = []
    stack = devstack.up(NAME, lines.append)
    assert not [line for line in lines if "preparing" in line], "nothing is made anew"
    assert ask(stack, "SELECT answer FROM kept") == "43"


def test_a_part_that_does_not_start_is_explained_and_nothing_stays_running() -> None:
    devstack.down(NAME)
    _, directory = ensure_instance(NAME)
    version = directory / "postgres" / "PG_VERSION"
    version.write_text("9.6\n")
    expected = r"postgres ended by itself with exit code 1: look into \S+/postgres.log, mend what it says, then make up"
    with pytest.raises(StackError, match=expected) as failure:
        devstack.up(NAME)
    assert "database files are incompatible with server" in str(failure.value)
    assert devstack.status(NAME).state == "stopped"
    assert devstack.find(NAME) is None


def test_asking_for_a_part_of_an_instance_that_is_down_says_how_to_start_it() -> None:
    assert devstack.find(NAME) is None
    with pytest.raises(StackError, match=f"make up INSTANCE={NAME}"):
        devstack.start_part(NAME, "kafka")
    with pytest.raises(StackError, match="'zookeeper' is no part of the stack"):
        devstack.stop_part(NAME, "zookeeper")
