"""Accept closes: load many, decide each, save many, in one transaction; answered only after its COMMIT."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID

import structlog

from closeflow.clock import timeout
from closeflow.domain.batch import BatchResult
from closeflow.domain.close.accept import (
    Accepted,
    CloseCommand,
    Decision,
    KeyReused,
    NotFound,
    Replayed,
    accept_close,
    fingerprint,
    may_see,
)
from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.trading_controls import GLOBAL, effective_state
from closeflow.storage.close_requests import (
    DatabaseAway,
    Engine,
    Key,
    LockedElsewhere,
    RowRefused,
    ToAccept,
    Tx,
    lock_books_to_accept,
    transact,
)
from closeflow.storage.core.engine import CommitUnknown
from closeflow.storage.incidents import report_incidents
from closeflow.telemetry.metrics import counter
from closeflow.telemetry.spans import BatchOfSpans, is_tracing
from closeflow.unit_of_work import save

Outcome = Decision | Exception
"""What became of one close. An exception (of `transact`, or a defect) says that nothing is known to be written."""

COMMITS_UNKNOWN: Final = counter("close_api_commits_unknown_total")

log = structlog.get_logger(__name__)


async def accept_batch(engine: Engine, commands: Sequence[CloseCommand], *, deadline_s: float) -> list[Outcome]:
    """What became of each command, in order; never raises. Traced as one batch that is linked to its calls."""
    if not is_tracing():
        return await _accept(engine, commands, deadline_s=deadline_s)
    batch = BatchOfSpans("accept batch")
    members = [batch.member("accept close", command.traceparent) for command in commands]
    outcomes = await _accept(engine, commands, deadline_s=deadline_s)
    for member, outcome in zip(members, outcomes, strict=True):
        member.attributes["closeflow.outcome"] = type(outcome).__name__
        if isinstance(outcome, Accepted | Replayed):
            member.attributes["closeflow.close_request.id"] = str(outcome.request.id)
        elif isinstance(outcome, Exception):
            member.fail(type(outcome).__name__)
    batch.end()
    return outcomes


async def _accept(engine: Engine, commands: Sequence[CloseCommand], *, deadline_s: float) -> list[Outcome]:
    """Decide all commands in one transaction, or, when one of them breaks it, each in its own. In order; never raises.

    A connection lost inside COMMIT, or silent past the deadline, is resolved by reading back under the positions'
    locks: they wait until the lost transaction has ended one way or the other.
    """

    async def work(tx: Tx) -> list[Decision]:
        return await _decide_all(tx, commands)

    async def read_back(tx: Tx) -> list[Outcome]:
        return await _read_back(tx, commands)

    try:
        async with timeout(deadline_s):
            return list(await transact(engine, work))
    except (CommitUnknown, TimeoutError):
        COMMITS_UNKNOWN.inc()
        log.warning("commit_outcome_lost", closes=len(commands))
    except DatabaseAway as error:
        log.warning("database_away", closes=len(commands), error=str(error))
        return [error] * len(commands)
    except Exception as error:
        parts = _parts(commands, error)
        if len(parts) > 1:
            outcomes: dict[UUID, Outcome] = {}
            for part in parts:
                found = await _accept(engine, part, deadline_s=deadline_s)
                outcomes |= zip((command.request_id for command in part), found, strict=True)
            return [outcomes[command.request_id] for command in commands]
        await _tell(engine, commands[0], error)
        return [error] * len(commands)
    try:
        async with timeout(deadline_s):
            return await transact(engine, read_back)
    except Exception as error:
        log.warning("commit_outcome_not_read", closes=len(commands), error=str(error))
        return [DatabaseAway("the outcome is not known")] * len(commands)


def turn_of(command: CloseCommand) -> tuple[int, frozenset[str] | None]:
    """Closes that are worked on one after the other: of one position, by callers for the same accounts. A stranger's
    close waits for none of the owner's, which would tell that the position is there, and holds none of them up."""
    return command.position_id, command.accounts


def _parts(commands: Sequence[CloseCommand], error: Exception) -> list[list[CloseCommand]]:
    """What is tried again apart. A position that somebody holds is waited for once, not once for each of its closes:
    callers repeat, and those of all other positions would wait behind them. Who may not see it does not wait."""
    if not isinstance(error, LockedElsewhere):
        return [[command] for command in commands]
    by_position: dict[tuple[int, frozenset[str] | None], list[CloseCommand]] = {}
    for command in commands:
        by_position.setdefault(turn_of(command), []).append(command)
    return list(by_position.values())


async def _decide_all(tx: Tx, commands: Sequence[CloseCommand]) -> list[Decision]:
    """The second close of a position in a batch sees what the first one decided (rule R10). The time is the database's,
    as in every service."""
    found = await _lock(tx, commands)
    loaded, by_key = found.books, found.by_key
    result = BatchResult(before=loaded, now=found.now)
    decisions: list[Decision] = []
    scopes = {GLOBAL, *(book.position.account_id for book in loaded.values())}
    states = {scope: effective_state(found.trading, scope) for scope in scopes}
    for command in commands:
        book = result.books.get(command.position_id)
        trading = states[GLOBAL if book is None else book.position.account_id]
        decision = accept_close(book, command, by_key.get(_key(command)), trading=trading, now=found.now)
        if isinstance(decision, Accepted) and command.dry_run and book is not None:
            decision = Accepted(book, decision.request, ())
        decisions.append(decision)
        if isinstance(decision, Accepted) and not command.dry_run:
            result.put(decision.book)
            by_key[_key(command)] = decision.request
            result.events += decision.events
    if result.events:
        await save(tx, result)
    return decisions


async def _read_back(tx: Tx, commands: Sequence[CloseCommand]) -> list[Outcome]:
    """Answer by what is there. A close whose key is not there was not accepted: its caller asks again."""
    found = await _lock(tx, commands)
    books, by_key = found.books, found.by_key
    outcomes: list[Outcome] = []
    for command in commands:
        book = books.get(command.position_id)
        request = by_key.get(_key(command))
        if book is None or not may_see(book.position, command):
            outcomes.append(NotFound(command.position_id))  # In one batch it may be another caller's.
        elif command.dry_run or request is None:
            outcomes.append(DatabaseAway("the connection was lost before the close was accepted"))
        elif request.id == command.request_id:
            outcomes.append(Accepted(book, request, ()))
        else:
            same = request.fingerprint == fingerprint(command, book.position.asset_type)
            outcomes.append(Replayed(book.position, request) if same else KeyReused(request.id))
    return outcomes


async def _tell(engine: Engine, command: CloseCommand, error: Exception) -> None:
    """Log why a close was not decided; a row that the database refuses fails again until a person mends it."""
    if isinstance(error, LockedElsewhere):
        log.warning("position_locked_elsewhere", position_id=command.position_id)
        return
    log.error("close_not_decided", position_id=command.position_id, exc_info=error)
    if not isinstance(error, RowRefused):
        return
    incident = about(IncidentKind.CLOSE_REFUSED_BY_DATABASE, str(error), position_id=command.position_id)

    async def work(tx: Tx) -> None:
        await report_incidents(tx, incidents=[incident])

    with suppress(DatabaseAway, CommitUnknown):
        await transact(engine, work)


async def _lock(tx: Tx, commands: Sequence[CloseCommand]) -> ToAccept:
    """What is not the caller's is neither locked nor read, so that it answers as what is not there, and as soon."""
    visible: dict[int, frozenset[str] | None] = {}
    for command in commands:
        before = visible.get(command.position_id, frozenset())
        both = None if before is None or command.accounts is None else before | command.accounts
        visible[command.position_id] = both
    return await lock_books_to_accept(tx, keys=[_key(command) for command in commands], visible=visible)


def _key(command: CloseCommand) -> Key:
    return command.position_id, command.idempotency_key
