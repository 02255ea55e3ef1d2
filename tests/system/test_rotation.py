"""Passwords and certificates are replaced by restarts while closes go on; none is lost, and none doubled."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from typing import Final

import psycopg
import pytest
from aiokafka.errors import KafkaConnectionError

import devstack
from closectl.secrets_directory import SecretsDirectory
from closeflow.storage.schema import migrate
from demo.system import SIMULATOR, System
from tests.closectl.running import closectl
from tests.system.desk import Desk
from tests.system.test_crashes import closing
from tests.system.test_publication import OUTAGES, Worker
from tests.system.test_refused_links import reached, service

PORTFOLIO: Final = 36
TOLD: Final = OUTAGES | {"job_stalled", "execution_withheld", "deferred_broker_unavailable"}
"""Of servers that are away, as long as they are; and of fills that the list names before their turn, until it comes."""


def replace(system: System, *names: str) -> None:
    """Remove these secrets, and make what is missing."""
    for name in names:
        (system.links.secrets / name).unlink()
    SecretsDirectory(system.links.secrets, datetime.now(UTC)).complete()


def certificate_of(system: System, name: str) -> bytes:
    """What the server shows now."""
    return ssl.get_server_certificate(("127.0.0.1", system.port(name))).encode()


def restart(system: System, *names: str) -> None:
    for name in names:
        assert system.stop(name) == 0
        system.start(name)


def test_passwords_are_replaced_while_closes_go_on(desk: Desk) -> None:
    system, secrets = desk.system, desk.system.links.secrets
    portfolio = desk.hold_all([(9, "stock")] * PORTFOLIO)
    old_dsn, old_kafka = system.dsn("closeflow_fill_processor"), service(system, "fill-processor")
    with closing(desk, portfolio) as go_on:
        names = ("close_api", "order_submitter", "fill_processor")
        replace(system, *(f"postgres/closeflow_{name}" for name in names))
        migrate.set_role_passwords(system.admin_dsn, system.links.passwords())
        replace(system, "kafka/order-submitter", "kafka/fill-processor")
        given = desk.operator | {"kafka_bootstrap_servers": system.kafka.bootstrap_servers}
        done = closectl("topics", "apply", "--replication-factor", "1", "--acls", "--secrets", str(secrets), **given)
        assert done.exit_code == 0, done
        restart(system, "close-api", "order-submitter", "fill-processor")
        go_on.set()
    desk.until_status("closed", portfolio, within_s=120)
    desk.assert_closed_once(portfolio, posts=None)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(old_dsn)
    with pytest.raises(KafkaConnectionError):
        asyncio.run(reached(old_kafka))
    asyncio.run(reached(service(system, "fill-processor")))


def test_certificates_are_replaced_while_closes_go_on(desk: Desk) -> None:
    system, instance = desk.system, desk.system.stack.instance
    portfolio = desk.hold_all([(9, "stock")] * PORTFOLIO)
    before = {name: certificate_of(system, name) for name in ("close-api", SIMULATOR)}
    with closing(desk, portfolio) as go_on:
        servers = ("close-api", SIMULATOR, "kafka", "postgres")
        replace(system, *(f"{name}/{file}" for name in servers for file in ("tls.pem", "tls.key", "keystore.pem")))
        restart(system, SIMULATOR)
        devstack.stop_part(instance, "connect")  # It would be started again by nobody else.
        for part in ("kafka", "postgres"):
            devstack.stop_part(instance, part)
            devstack.start_part(instance, part)
        devstack.start_part(instance, "connect")
        go_on.set()
    desk.reconnect()
    desk.until_status("closed", portfolio, within_s=120)
    desk.assert_closed_once(portfolio, posts=None)
    desk.until("the connector streams", Worker(desk).streams)
    open_ones = "SELECT count(*) FROM incidents WHERE closed_at IS NULL AND kind = ANY(%s)"
    desk.until("the incidents of the outage are closed", lambda: desk.count(open_ones, list(TOLD)) == 0)
    desk.expected_incidents = [kind for kind in desk.incidents() if kind in TOLD]
    # close-api has read its new one without a restart.
    assert {name: certificate_of(system, name) != old for name, old in before.items()} == dict.fromkeys(before, True)
