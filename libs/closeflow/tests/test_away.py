"""Which errors of the database pass by themselves, and how a poll waits for that."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg import errors
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from closeflow.storage.core.away import Patience, is_away
from closeflow.storage.core.engine import CommitUnknown


def of_driver(error: psycopg.Error) -> DBAPIError:
    made = DBAPIError.instance("SELECT", {}, error, psycopg.Error)
    assert isinstance(made, DBAPIError)
    return made


@pytest.mark.parametrize(
    "error",
    [
        of_driver(psycopg.OperationalError("connection refused")),
        of_driver(errors.AdminShutdown("terminating connection")),
        of_driver(errors.CannotConnectNow("the database system is starting up")),
        of_driver(errors.TooManyConnections("sorry, too many clients already")),
        of_driver(errors.LockNotAvailable("canceling statement due to lock timeout")),
        of_driver(errors.QueryCanceled("canceling statement due to statement timeout")),
        of_driver(errors.DeadlockDetected("deadlock detected")),
        of_driver(errors.IdleInTransactionSessionTimeout("terminating connection")),
        of_driver(psycopg.InterfaceError("the connection is closed")),
        CommitUnknown("lost inside COMMIT"),
        PoolTimeout("QueuePool limit"),
        ConnectionResetError("reset"),
        TimeoutError("no answer"),
    ],
)
def test_what_passes_by_itself(error: Exception) -> None:
    assert is_away(error)


@pytest.mark.parametrize(
    "error",
    [
        of_driver(errors.UniqueViolation("duplicate key")),
        of_driver(errors.InsufficientPrivilege("permission denied")),
        of_driver(errors.UndefinedColumn("no such column")),
        of_driver(psycopg.DataError("a NUL")),
        ProgrammingError("SELECT", {}, Exception("wrong")),
        ValueError("a defect"),
    ],
)
def test_what_is_a_mistake_of_ours(error: Exception) -> None:
    assert not is_away(error)


async def test_an_error_in_the_place_of_a_cancellation_ends_the_poll() -> None:
    patience, polled = Patience(), []

    async def poll() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                polled.append(True)
                with pytest.raises(DBAPIError):
                    patience.pause_s(of_driver(psycopg.OperationalError("the connection is closed")))
                raise

    task = asyncio.create_task(poll())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert polled == [True]


async def test_a_poll_waits_ever_longer_up_to_a_cap_and_says_why_until_it_gets_through() -> None:
    patience = Patience(first_s=0.1, cap_s=0.5)
    away = of_driver(psycopg.OperationalError("connection refused\nis it running?"))
    assert [patience.pause_s(away) for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]
    assert patience.trouble == "OperationalError: connection refused"
    patience.rewarded()
    assert patience.trouble is None
    assert patience.pause_s(away) == 0.1
    with pytest.raises(ValueError, match="a defect"):
        patience.pause_s(ValueError("a defect"))
