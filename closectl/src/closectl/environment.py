"""What every command takes from its environment: the settings, the database, the broker's account, who is acting."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, TypeVar

import typer

from closectl.output import fail
from closectl.settings import ClosectlSettings
from closectl.verifying import Account
from closeflow.domain.absence import window
from closeflow.kafka import KafkaConnection
from closeflow.settings import load
from closeflow.storage.engine import CommitUnknown, Database, DatabaseError, make_engine

T = TypeVar("T")


def _given(reason: str) -> str:
    if not reason.strip():
        raise typer.BadParameter("say why; it is kept with what was done")
    return reason.strip()


def _actor(by: str) -> str:
    """Who acts: as given, else the login's name."""
    if by.strip():
        return by.strip()
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise typer.BadParameter("this login has no name; say who you are") from None


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")]
Reason = Annotated[str, typer.Option(callback=_given, help="Why, for whoever reads it in a year. It is kept.")]
By = Annotated[str, typer.Option(callback=_actor, show_default="the login's name", help="Who does it.")]
"""Give it the default "", which becomes the name of the login."""
Yes = Annotated[bool, typer.Option("--yes", help="Do it. Without this, what would be done is only shown.")]


def with_database(work: Callable[[Database], Awaitable[T]]) -> T:
    """Run a piece of work with the database of CLOSECTL_POSTGRES_DSN."""
    settings = load(ClosectlSettings)
    if settings.postgres_dsn is None:
        fail("CLOSECTL_POSTGRES_DSN is not set; give the DSN of role closeflow_operator", code=2)
    dsn = settings.postgres_dsn.get_secret_value()

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
        fail(f"the database did not do it: {str(error).splitlines()[0]}", code=2)
    except CommitUnknown as error:
        fail(f"whether it was done is not known: {error}; repeating the command does no harm", code=2)


def kafka_connection() -> KafkaConnection:
    """The Kafka of CLOSECTL_KAFKA_BOOTSTRAP_SERVERS."""
    servers = load(ClosectlSettings).kafka_bootstrap_servers
    if servers is None:
        fail("CLOSECTL_KAFKA_BOOTSTRAP_SERVERS is not set; give host:port of Kafka", code=2)
    return KafkaConnection(servers, client_id="closectl")


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
    )


def broker_name() -> str:
    """The broker whose executions these are."""
    return load(ClosectlSettings).broker


def absence_window() -> timedelta:
    """How long the broker must not have found an order before it may be declared lost (rule R6)."""
    settings = load(ClosectlSettings)
    return window(settings.broker_visibility_lag_s, settings.absence_window_s)
