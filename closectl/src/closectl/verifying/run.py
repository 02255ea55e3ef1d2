"""Verify: one snapshot of the database, then the topics, then the broker; what cannot be reached is said."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from closectl.broker import Account, make_broker
from closectl.verifying.account import BrokerView, ask_broker, check_account
from closectl.verifying.books import DATABASE, BookChecks
from closectl.verifying.consumed import Committed, check_offsets, check_updates
from closectl.verifying.controls import ControlChecks
from closectl.verifying.ledger import check_ledger
from closectl.verifying.reading import TopicNames, read_topics
from closectl.verifying.report import Finding, NotChecked, Report, looked
from closectl.verifying.topics import check_topics
from closeflow.broker.protocol import Broker, BrokerUnavailable
from closeflow.kafka import KafkaConnection, KafkaConnectionError, KafkaError
from closeflow.kafka.group_lag import committed_offsets
from closeflow.storage.core.engine import Database, Transaction
from closeflow.storage.verify.book_invariants import BOOK_CHECKS, run_check
from closeflow.storage.verify.compared_state import State, load_state
from closeflow.storage.verify.controls import CONTROL_CHECKS, load_controls_history
from closeflow.storage.verify.events import EVENT_CHECKS
from closeflow.storage.verify.orders import ORDER_CHECKS
from closeflow.storage.verify.snapshot import WorkInFlight, load_open_incidents, read_books, snapshot, work_in_flight

POLL_S: Final = 0.25
ATTEMPTS: Final = 3
PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 10.0
TOPICS: Final = TopicNames()
OF_TOPICS: Final = (7, 9, 10, 14, 15, 16, 17, 22)
OF_BROKER: Final = (7, 16)


async def verify(
    database: Database,
    *,
    kafka: KafkaConnection | str,
    account: Account | str,
    wait_s: float,
    topics: TopicNames = TOPICS,
) -> Report:
    """Check every invariant that can be checked, after at most `wait_s` seconds of waiting for quiet.

    Instead of a connection, `kafka` and `account` may be the reason why there is none. Raises DatabaseError.
    """
    left = await _wait_until_quiet(database, wait_s)
    # Before the snapshot: what is committed by now has its effect in it.
    committed = await _committed(kafka, topics)
    async with snapshot(database) as tx:
        state, findings = await check_database(tx)
    findings += await _check_topics(state, kafka, topics, committed)
    findings += await _check_account(state, account)
    return Report(state.at, None if left.quiet else str(left), tuple(findings))


async def _wait_until_quiet(database: Database, wait_s: float) -> WorkInFlight:
    until = time.monotonic() + wait_s
    while True:
        async with snapshot(database) as tx:
            left = await work_in_flight(tx)
        if left.quiet or time.monotonic() >= until:
            return left
        await asyncio.sleep(POLL_S)


async def check_database(tx: Transaction) -> tuple[State, list[Finding]]:
    """What the database shows by itself, and the state to compare the topics and the broker with."""
    findings: list[Finding] = []
    for check in (*BOOK_CHECKS, *ORDER_CHECKS, *EVENT_CHECKS, *CONTROL_CHECKS):
        count, wrong = await run_check(tx, check)
        findings.append(looked(check.invariant, DATABASE, check.looks_at, count, wrong))
    books = BookChecks(await load_open_incidents(tx))
    controls = ControlChecks(await load_controls_history(tx))
    async for chunk in read_books(tx):
        books.add(chunk)
        controls.add(chunk)
    findings += [*books.findings(), *controls.findings()]
    return await load_state(tx), findings


async def _committed(kafka: KafkaConnection | str, topics: TopicNames) -> Committed | str:
    """The reason instead, if there is one why they could not be read."""
    if isinstance(kafka, str):
        return kafka
    try:
        return await committed_offsets(kafka, topics.groups)
    except (KafkaError, OSError, TimeoutError) as error:
        return _unread(kafka, error)


async def _check_topics(
    state: State, kafka: KafkaConnection | str, topics: TopicNames, committed: Committed | str
) -> list[Finding]:
    if isinstance(kafka, str) or isinstance(committed, str):
        return [NotChecked(number, f"the topics: {committed}") for number in OF_TOPICS]
    try:
        read = await read_topics(kafka, topics)
    except (KafkaError, OSError, LookupError, TimeoutError) as error:
        return [NotChecked(number, f"the topics: {_unread(kafka, error)}") for number in OF_TOPICS]
    return [
        *check_topics(state, read.published),
        *check_ledger(state, read.published),
        *check_updates(state, read),
        *check_offsets(state, read, committed, topics),
    ]


def _unread(kafka: KafkaConnection, error: Exception) -> str:
    if isinstance(error, KafkaConnectionError):
        return f"Kafka at {kafka.bootstrap_servers} could not be read (it cannot be reached)"
    return f"Kafka at {kafka.bootstrap_servers} could not be read ({error or type(error).__name__})"


async def _asked_again(broker: Broker, state: State) -> BrokerView:
    """One lost answer of thousands is no reason to check nothing. What was named before is not asked for again."""
    for _ in range(ATTEMPTS - 1):
        try:
            return await ask_broker(broker, state)
        except BrokerUnavailable as error:
            await asyncio.sleep(min(error.retry_after_s or PAUSE_S, LONGEST_PAUSE_S))
    return await ask_broker(broker, state)


async def _check_account(state: State, account: Account | str) -> list[Finding]:
    if isinstance(account, str):
        return [NotChecked(number, f"the broker: {account}") for number in OF_BROKER]
    broker = make_broker(account)
    try:
        view = await _asked_again(broker, state)
    except BrokerUnavailable as error:
        return [NotChecked(number, f"the broker: {account.url} did not answer ({error})") for number in OF_BROKER]
    finally:
        await broker.aclose()
    others = sorted({one.account_id for one in state.positions} - {account.account_id})
    findings: list[Finding] = list(check_account(state, view))
    if others:
        why = f"the broker's accounts of {', '.join(others)}: only {account.account_id} was asked"
        findings += [NotChecked(number, why) for number in OF_BROKER]
    return findings
