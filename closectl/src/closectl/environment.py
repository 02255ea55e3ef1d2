"""What every command takes from its environment: the settings, the database, Kafka, the broker's account."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, TypeVar

from closectl.broker import Account
from closectl.output import fail
from closectl.settings import ClosectlSettings
from closeflow.domain.sending.absence import window
from closeflow.kafka import KafkaConnection, KafkaConnectionError
from closeflow.settings import load
from closeflow.storage.core.engine import (
    CommitUnknown,
    Database,
    DatabaseError,
    DriverError,
    first_line,
    make_engine,
    sqlstate,
)
from closeflow.tls import ClientTls

T = TypeVar("T")
KAFKA_NOT_SET: Final = "CLOSECTL_KAFKA_BOOTSTRAP_SERVERS is not set"
MISSING_TABLES: Final = frozenset({"3F000", "42P01", "42703"})
"""Undefined schema, table and column."""
NOT_ALLOWED: Final = "42501"


def with_database(work: Callable[[Database], Awaitable[T]]) -> T:
    """Run a piece of work with the database of CLOSECTL_POSTGRES_DSN."""
    dsn = database_dsn("role closeflow_operator")

    async def run() -> T:
        database = make_engine(
            dsn,
            pool_size=2,
            application_name="closectl",
            statement_timeout_ms=120_000,
            idle_in_transaction_timeout_ms=120_000,
        )
        try:
            return await work(database)
        finally:
            await database.dispose()

    try:
        return asyncio.run(run())
    except DatabaseError as error:
        fail(database_says(error), code=2)
    except CommitUnknown as error:
        fail(f"whether it was done is not known: {error}; repeating the command does no harm", code=2)


def database_dsn(whose: str) -> str:
    """CLOSECTL_POSTGRES_DSN; exits with 2, naming whose login it should be, where it is not set."""
    dsn = load(ClosectlSettings).dsn
    if dsn is None:
        fail(f"CLOSECTL_POSTGRES_DSN is not set; give the DSN of {whose}", code=2)
    return dsn


def database_says(error: DatabaseError | DriverError) -> str:
    """One line on what went wrong with the database, and what to mend."""
    state, said = sqlstate(error), first_line(error)
    if state is None:
        return f"the database of CLOSECTL_POSTGRES_DSN cannot be asked: {said}"
    if state in MISSING_TABLES:
        return f"the database has not the tables of this closectl ({said}); bring it to the newest schema: make migrate"
    if state == NOT_ALLOWED:
        return f"this login may not do it ({said}); give CLOSECTL_POSTGRES_DSN of role closeflow_operator"
    return f"the database did not do it: {said}"


def kafka_connection() -> KafkaConnection:
    """The Kafka of CLOSECTL_KAFKA_BOOTSTRAP_SERVERS."""
    kafka = kafka_if_set()
    if kafka is None:
        fail(f"{KAFKA_NOT_SET}; give host:port of Kafka", code=2)
    return kafka


def kafka_if_set() -> KafkaConnection | None:
    """The connection of the settings, or None where no bootstrap servers are given."""
    settings = load(ClosectlSettings)
    servers = settings.kafka_bootstrap_servers
    return None if servers is None else settings.kafka_at(servers, client_id="closectl")


def connect_tls() -> ClientTls:
    """The files of CLOSECTL_CONNECT_CA_PATH, and of the certificate for Connect, if any."""
    return load(ClosectlSettings).connect_tls


def kafka_says(kafka: KafkaConnection, error: Exception) -> str:
    """One line on what went wrong with Kafka."""
    away = f"it cannot be reached at {kafka.bootstrap_servers}"
    what = away if isinstance(error, KafkaConnectionError) else str(error) or "it did not answer in time"
    return f"Kafka did not do it: {what}; what is not done waits, and repeating the command does no harm"


def account_at_broker() -> Account | str:
    """Where to ask the broker, or which settings are missing for it."""
    settings = load(ClosectlSettings)
    url, key_id = settings.broker_url, settings.broker_key_id
    secret_key, account_id = settings.broker_secret_key, settings.broker_account_id
    if url is None or key_id is None or secret_key is None or account_id is None:
        names = ("broker_url", "broker_key_id", "broker_secret_key", "broker_account_id")
        missing = [f"CLOSECTL_{name.upper()}" for name in names if getattr(settings, name) is None]
        return f"not set: {', '.join(missing)}"
    return Account(
        url=url,
        key_id=key_id.get_secret_value(),
        secret_key=secret_key.get_secret_value(),
        account_id=account_id,
        broker=settings.broker,
        tls=settings.broker_tls,
    )


def broker_name() -> str:
    """The broker whose executions these are."""
    return load(ClosectlSettings).broker


def broker_account_id() -> str | None:
    """Our name of the broker's account, where it is set."""
    return load(ClosectlSettings).broker_account_id


def absence_window() -> timedelta:
    """How long the broker must not have found an order before it may be declared lost (rule R6)."""
    settings = load(ClosectlSettings)
    return window(settings.broker_visibility_lag_s, settings.absence_window_s)
