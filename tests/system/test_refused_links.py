"""Every link of a secure instance refuses whoever does not prove who it is, and whoever may not do what it asks.

Each refusal is beside the same call with the right proof, which works: so it is the proof that is refused.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import grpc
import httpx
import psycopg
import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAuthorizationFailedError

from closectl.development_key import Algorithm, Grant, Scope, issue_token, make_key
from closectl.secrets_directory import SecretsDirectory
from closeflow.broker.alpaca.parse import Account
from closeflow.broker.alpaca.stream import StreamTarget, trade_updates
from closeflow.broker.trade_updates import StreamDenied, StreamLost
from closeflow.kafka.apply_topics import ensure_topics
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.producer import open_producer
from closeflow.kafka.topics import TopicMissing, load_topics, require_topics
from closeflow.tls import ClientTls
from closeflow_client import Client, CloseflowError
from demo.system import REPOSITORY, SIMULATOR, System

FILLS: Final = "broker-fill"
TOPICS: Final = load_topics(REPOSITORY / "schemas/topics")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Secrets of another system: the same names, of another authority."""
    directory = tmp_path_factory.mktemp("strangers")
    SecretsDirectory(directory, datetime.now(UTC)).complete()
    return directory


def files(secrets: Path, name: str, *, ca: Path | None = None) -> ClientTls:
    return ClientTls(ca or secrets / "ca.pem", secrets / name / "tls.pem", secrets / name / "tls.key")


# PostgreSQL


def connect(dsn: str, statement: str = "SELECT 1") -> None:
    with psycopg.connect(dsn, connect_timeout=5) as connection:
        connection.execute(statement.encode())


def with_options(dsn: str, **options: str) -> str:
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return urlunsplit(urlsplit(dsn)._replace(query=query))


def test_postgres_refuses_who_is_not_encrypted_or_not_known(system: System, strangers: Path) -> None:
    role = "closeflow_fill_processor"
    good = system.dsn(role)
    connect(good)
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        connect(with_options(good, sslmode="disable"))
    theirs = with_options(good, sslmode="verify-full", sslrootcert=str(strangers / "ca.pem"))
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        connect(theirs)
    wrong = system.stack.postgres_dsn(role, "wrong", system.database)
    another = system.stack.postgres_dsn(role, system.links.passwords()["closeflow_reconciler"], system.database)
    for dsn in (wrong, another):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            connect(dsn)


def test_postgres_refuses_another_services_work(system: System) -> None:
    connect(system.dsn("closeflow_fill_processor"), "SELECT count(*) FROM close_requests")
    for role, statement in (
        ("closeflow_fill_processor", "UPDATE order_sends SET answer = 'unknown' WHERE false"),
        ("closeflow_broker_gateway", "SELECT count(*) FROM close_requests"),
        ("closeflow_close_api", "UPDATE trading_controls SET state = 'halted' WHERE false"),
        ("closeflow_debezium", "SELECT count(*) FROM positions"),
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connect(system.dsn(role), statement)


# Kafka


def service(system: System, name: str) -> KafkaConnection:
    secrets = system.links.secrets
    password = (secrets / "kafka" / name).read_text().strip()
    servers = system.stack.kafka_bootstrap_servers
    return KafkaConnection(servers, "SASL_SSL", tls=ClientTls(secrets / "ca.pem"), username=name, password=password)


async def reached(connection: KafkaConnection) -> None:
    """Raises KafkaError where the server does not let us in."""
    async with open_producer(connection):
        pass


async def test_kafka_refuses_a_service_that_does_not_log_in_as_itself(system: System, strangers: Path) -> None:
    good = service(system, "fill-processor")
    await reached(good)
    gateway = service(system, "broker-gateway")
    for refused in (
        KafkaConnection(good.bootstrap_servers),
        KafkaConnection(good.bootstrap_servers, "SSL", tls=good.tls),
        KafkaConnection(good.bootstrap_servers, "SSL", tls=system.links.administrator),
        replace(good, password="wrong"),
        replace(good, password=gateway.password),
        replace(good, username="closectl"),
        replace(good, tls=ClientTls(strangers / "ca.pem")),
    ):
        with pytest.raises(KafkaConnectionError):
            await reached(refused)


async def test_kafka_refuses_an_administrator_without_the_certificate(system: System, strangers: Path) -> None:
    good, secrets = system.kafka, system.links.secrets
    await require_topics(good, [FILLS])
    for refused in (
        KafkaConnection(good.bootstrap_servers),
        replace(good, tls=ClientTls(secrets / "ca.pem")),
        replace(good, tls=files(strangers, "closectl", ca=secrets / "ca.pem")),
        replace(service(system, "fill-processor"), bootstrap_servers=good.bootstrap_servers),
    ):
        with pytest.raises(KafkaError):
            await require_topics(refused, [FILLS])


async def test_kafka_refuses_another_services_work(system: System) -> None:
    async with open_producer(service(system, "fill-processor")) as producer:
        with pytest.raises(TopicAuthorizationFailedError):
            await producer.publish(FILLS, key=b"k", value=b"{}")
    with pytest.raises(TopicMissing):  # It is not even shown topics that it has nothing to do with.
        await require_topics(service(system, "broker-gateway"), ["submit-order"])
    # A certificate that is ours, and not the administrator's.
    watcher = replace(system.kafka, tls=files(system.links.secrets, "reconciler"))
    with pytest.raises(TopicMissing):
        await require_topics(watcher, [FILLS])
    with pytest.raises(KafkaError, match=r"[Aa]uthoriz"):
        await ensure_topics(watcher, [replace(TOPICS[0], name="planted")])


# Connect


def test_connect_refuses_who_shows_no_certificate_of_ours(system: System, strangers: Path) -> None:
    links, url = system.links, system.stack.connect_url
    assert httpx.get(f"{url}/connectors", verify=links.verify).status_code == httpx.codes.OK
    nobody = ClientTls(links.secrets / "ca.pem")
    for tls in (nobody, files(strangers, "closectl", ca=links.secrets / "ca.pem"), ClientTls(strangers / "ca.pem")):
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/connectors", verify=tls.context())
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url.replace('https', 'http')}/connectors")


# The broker


def test_the_broker_is_asked_over_tls_and_with_its_key_alone(system: System, strangers: Path) -> None:
    url, links = system.url(SIMULATOR), system.links
    key_id, secret_key = links.broker_keys
    good = {"APCA-API-KEY-ID": key_id, "APCA-API-SECRET-KEY": secret_key}
    assert httpx.get(f"{url}/v2/clock", headers=good, verify=links.verify).status_code == httpx.codes.OK
    for headers in ({}, good | {"APCA-API-SECRET-KEY": "wrong"}, good | {"APCA-API-KEY-ID": "another"}):
        answer = httpx.get(f"{url}/v2/clock", headers=headers, verify=links.verify)
        assert answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN), answer.text
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{url}/v2/clock", headers=good, verify=ClientTls(strangers / "ca.pem").context())
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url.replace('https', 'http')}/v2/clock", headers=good)


async def test_the_broker_is_listened_to_over_tls_and_with_its_key_alone(system: System, strangers: Path) -> None:
    links, (key_id, secret_key) = system.links, system.links.broker_keys
    target = StreamTarget(
        url=system.url(SIMULATOR).replace("https", "wss") + "/stream",
        key_id=key_id,
        secret_key=secret_key,
        of=Account(broker="alpaca", account_id="main"),
        tls=ClientTls(links.secrets / "ca.pem"),
    )
    async with trade_updates(target):
        pass
    for refused, error in (
        (replace(target, secret_key="wrong"), StreamDenied),
        (replace(target, tls=ClientTls(strangers / "ca.pem")), StreamLost),
        (replace(target, url=target.url.replace("wss", "ws")), StreamLost),
    ):
        with pytest.raises(error):
            async with trade_updates(refused):
                pass


# close-api


@contextmanager
def another_issuer(folder: Path) -> Iterator[Callable[..., str]]:
    make_key(folder / "key", Algorithm.EDDSA)
    grant = Grant(subject="mallory", accounts=None, scopes=list(Scope))
    yield lambda: issue_token(folder / "key", grant, ttl=timedelta(hours=1), now=datetime.now(UTC))


def status(system: System, token: str | None, tls: ssl.SSLContext | bool) -> int:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{system.url()}/v1/positions", headers=headers, verify=tls).status_code


def test_close_api_refuses_who_has_no_token_of_its_issuer(system: System, strangers: Path, tmp_path: Path) -> None:
    tls = system.links.verify
    assert status(system, system.token(), tls) == httpx.codes.OK
    with another_issuer(tmp_path) as issue:
        assert {status(system, token, tls) for token in (None, "wrong", issue())} == {httpx.codes.UNAUTHORIZED}
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            status(system, system.token(), ClientTls(strangers / "ca.pem").context())
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{system.url().replace('https', 'http')}/v1/positions")

        ca = system.links.secrets / "ca.pem"
        for token in (None, issue()):
            with (
                Client(system.grpc_address(), token, ca_file=ca) as client,
                pytest.raises(CloseflowError) as refused,
            ):
                client.position(1)
            assert refused.value.code == "unauthenticated"
    address = urlsplit(system.grpc_address()).netloc
    with grpc.insecure_channel(address) as plain, pytest.raises(grpc.FutureTimeoutError):
        grpc.channel_ready_future(plain).result(timeout=2)


def test_close_api_refuses_what_a_caller_has_no_scope_for(system: System) -> None:
    grant = Grant(subject="reader", accounts=None, scopes=[Scope.READ])
    token = issue_token(system.links.secrets / "token-key", grant, ttl=timedelta(hours=1), now=datetime.now(UTC))
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k"}
    answer = httpx.post(f"{system.url()}/v1/positions/1/close", headers=headers, json={}, verify=system.links.verify)
    assert answer.status_code == httpx.codes.FORBIDDEN
