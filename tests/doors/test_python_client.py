"""closeflow-client against the real close-api: both clients, over both doors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest

from clients.python.tests.blocking import blocking
from closeflow_client import Client, Close, CloseflowError, CloseRequest, NotFinal
from closeflow_client.errors import (
    ExpectedQuantityMismatch,
    Forbidden,
    IdempotencyKeyReused,
    InvalidFields,
    NotFound,
    PositionAlreadyClosing,
    RateLimited,
    Unauthenticated,
)
from demo.services import free_port

from .conftest import FOREIGN, MINE, Desk, Running

WAYS = ("sync rest", "async rest", "sync grpc", "async grpc")


def address_of(running: Running, way: str) -> str:
    return running.url if "rest" in way else f"grpc://{running.grpc_target}"


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Which client, over which door."""
    return str(request.param)


@pytest.fixture
def client(way: str, api: Running, desk: Desk) -> Iterator[Client]:
    """A client with a token of the account MINE."""
    with blocking(way.split()[0], address_of(api, way), desk.issuer.token(MINE)) as made:
        yield made


def test_a_close_is_accepted_replayed_found_and_cancelled(client: Client, desk: Desk) -> None:
    (position_id,) = desk.open_positions(1, "10.5")
    before = client.position(position_id)
    assert (before.quantity, before.account_id, before.position_status) == (Decimal("10.5"), MINE, "open")
    made = client.close(position_id, quantity=Decimal("2.5"), if_version=before.version, reason="größer als nötig")
    assert (made.target_qty, made.filled_qty, made.side) == (Decimal("2.5"), Decimal(0), "sell")
    assert (made.close_request_status, made.position_status, made.replayed) == ("pending", "closing", False)
    assert made.created_at is not None
    assert abs(datetime.now(UTC) - made.created_at) < timedelta(minutes=1)
    again = client.close(position_id, quantity=Decimal("2.50"), key=made.key, reason="größer als nötig")
    assert (again.close_request_id, again.replayed, again.key) == (made.close_request_id, True, made.key)
    assert client.get(made.close_request_id).close_request_id == made.close_request_id
    assert client.position(position_id).active_close_request_id == made.close_request_id
    over = client.cancel(made.close_request_id, reason="not any more")
    assert over.final
    assert client.cancel(made.close_request_id).close_request_id == made.close_request_id
    assert client.position(position_id).active_close_request_id is None


def test_every_term_of_a_close_arrives(client: Client, desk: Desk) -> None:
    (position_id,) = desk.open_positions(1)
    made = client.close(
        position_id,
        percentage=Decimal("50.0"),
        order_type="limit",
        limit_price=Decimal("101.25"),
        time_in_force="gtc",
        working_timeout_seconds=90,
        deadline=datetime.now(UTC) + timedelta(hours=1),
        expected_quantity=Decimal("10.0"),
    )
    assert made.target_qty == Decimal(5)
    ((price, tif, working),) = desk.run(
        "SELECT limit_price, time_in_force, working_timeout_s FROM close_requests WHERE id = %s", made.close_request_id
    )
    assert (price, tif, working) == (Decimal("101.25"), "gtc", 90)


def test_a_key_is_one_close_over_either_door(api: Running, desk: Desk) -> None:
    (position_id,) = desk.open_positions(1)
    key = ' spaces, "quotes" and \\ '
    found = []
    for way in WAYS:
        with blocking(way.split()[0], address_of(api, way), desk.issuer.token(MINE)) as client:
            found.append(client.close(position_id, key=key))
    assert len({one.close_request_id for one in found}) == 1
    assert [one.replayed for one in found] == [False, True, True, True]
    assert desk.run("SELECT idempotency_key FROM close_requests") == [(key,)]


def test_a_dry_run_plans_and_writes_nothing(client: Client, desk: Desk) -> None:
    (position_id,) = desk.open_positions(1, "-3")
    plan = client.close(position_id, order_type="market", dry_run=True)
    assert (plan.position_id, plan.side, plan.quantity, plan.order_type) == (position_id, "buy", Decimal(3), "market")
    assert desk.requests() == 0


def test_refusals_are_their_classes_with_their_members(client: Client, desk: Desk) -> None:
    position_id, closing = desk.open_positions(2)
    (foreign,) = desk.open_positions(1, account=FOREIGN)
    first = client.close(closing, key="first")
    with pytest.raises(PositionAlreadyClosing) as already:
        client.close(closing)
    assert already.value.active_close_request_id == first.close_request_id
    with pytest.raises(IdempotencyKeyReused):
        client.close(closing, key="first", quantity=1)
    with pytest.raises(ExpectedQuantityMismatch) as changed:
        client.close(position_id, expected_quantity=11)
    assert (changed.value.quantity, changed.value.version) == (Decimal(10), 1)
    with pytest.raises(ExpectedQuantityMismatch):
        client.close(position_id, if_version=7)
    with pytest.raises(InvalidFields) as invalid:
        client.close(position_id, quantity=11)
    assert [one.field for one in invalid.value.fields] == ["quantity"]
    with pytest.raises(InvalidFields, match="percentage"):
        client.close(position_id, quantity=1, percentage=1)
    for nothing in (foreign, 10**15):
        with pytest.raises(NotFound) as caught:
            client.close(nothing)
        with pytest.raises(NotFound):
            client.position(nothing)
    with pytest.raises(NotFound):
        client.get(uuid4())
    with pytest.raises(NotFound):
        list(client.watch(uuid4()))
    assert len(caught.value.trace_id or "") == 32
    assert caught.value.outcome_unknown is caught.value.temporary is False
    assert desk.requests() == 1


@pytest.mark.parametrize(("scope", "error"), [("close:read", Forbidden), (None, Unauthenticated)])
def test_who_may_not_close_is_told_so(
    way: str, api: Running, desk: Desk, scope: str | None, error: type[CloseflowError]
) -> None:
    (position_id,) = desk.open_positions(1)
    token = "nonsense" if scope is None else desk.issuer.token(MINE, scope=scope)
    with blocking(way.split()[0], address_of(api, way), token) as client:
        with pytest.raises(error) as caught:
            client.close(position_id, key="k")
        (found,) = client.close_many([Close(position_id, key="k")])
    assert type(found) is type(caught.value)
    assert (caught.value.key, found.key, caught.value.temporary) == ("k", "k", False)


def test_many_come_back_in_order_and_again_as_replays(client: Client, desk: Desk) -> None:
    positions = desk.open_positions(620)
    closes = [Close(one, quantity=11 if n % 100 == 7 else None) for n, one in enumerate(positions)]
    first = client.close_many(closes, batch_key="rebalance")
    second = client.close_many(closes, batch_key="rebalance")
    for found, replayed in ((first, False), (second, True)):
        assert [one.key for one in found] == [f"rebalance/{position}" for position in positions]
        for n, one in enumerate(found):
            if n % 100 == 7:
                assert isinstance(one, InvalidFields)
            else:
                assert isinstance(one, CloseRequest), one
                assert (one.position_id, one.replayed) == (positions[n], replayed)
    assert desk.requests() == 613


def test_lists_are_whole_and_filtered(client: Client, desk: Desk) -> None:
    positions = desk.open_positions(7)
    desk.open_positions(3, account=FOREIGN)
    assert [one.position_id for one in client.positions(page_size=3)] == positions
    accepted = client.close_many(map(Close, positions[:5]))
    made = {one.close_request_id for one in accepted if isinstance(one, CloseRequest)}
    assert len(made) == 5
    assert {one.close_request_id for one in client.list(page_size=2)} == made
    assert [one.position_id for one in client.list(position_id=positions[2], status="pending")] == [positions[2]]
    assert [one.position_id for one in client.positions(status="open", account=MINE)] == positions[5:]
    assert list(client.list(created_after=datetime.now(UTC) + timedelta(minutes=1))) == []
    with pytest.raises(InvalidFields, match="status"):
        list(client.list(status="parked"))


def test_a_close_is_waited_for_and_watched_to_its_end(client: Client, way: str, api: Running, desk: Desk) -> None:
    (position_id,) = desk.open_positions(1)
    made = client.close(position_id)
    with pytest.raises(NotFinal) as caught:
        client.wait(made.close_request_id, timeout=1)
    assert caught.value.request.close_request_status == "pending"
    shown = threading.Event()

    def watch() -> list[str]:
        statuses = []
        with blocking(way.split()[0], address_of(api, way), desk.issuer.token(MINE)) as other:
            for state in other.watch(made.close_request_id):
                statuses.append(state.close_request_status)
                shown.set()
        return statuses

    def wait() -> CloseRequest:
        with blocking(way.split()[0], address_of(api, way), desk.issuer.token(MINE)) as other:
            return other.wait(made.close_request_id, timeout=60)

    with ThreadPoolExecutor(2) as threads:
        watching, waiting = threads.submit(watch), threads.submit(wait)
        assert shown.wait(20)
        client.cancel(made.close_request_id)
        assert watching.result(20) == ["pending", "failed"]
        assert waiting.result(20).close_request_status == "failed"
    assert client.wait(made.close_request_id).final


def test_a_watch_goes_on_when_the_server_was_stopped_and_started(way: str, desk: Desk) -> None:
    (position_id,) = desk.open_positions(1)
    ports = (free_port(), free_port())
    shown = threading.Event()

    def watch(address: str) -> list[str]:
        statuses = []
        with blocking(way.split()[0], address, desk.issuer.token(MINE)) as client:
            made = client.close(position_id, key="k")
            for state in client.watch(made.close_request_id):
                statuses.append(state.close_request_status)
                shown.set()
        return statuses

    with ThreadPoolExecutor(1) as threads:
        with desk.api(ports=ports) as running:
            watching = threads.submit(watch, address_of(running, way))
            assert shown.wait(20)
        with desk.api(ports=ports) as running, Client(running.url, desk.issuer.token(MINE)) as client:
            client.cancel(client.close(position_id, key="k").close_request_id)
            assert watching.result(20) == ["pending", "failed"]


def test_a_rate_limit_is_waited_for(way: str, desk: Desk) -> None:
    positions = desk.open_positions(8)
    with desk.api(RATE_LIMIT_CLOSES="4", RATE_LIMIT_WINDOW_S="2") as running:
        address = address_of(running, way)
        with blocking(way.split()[0], address, desk.issuer.token(MINE)) as client:
            assert {client.close(one).close_request_status for one in positions} == {"pending"}
        with blocking(way.split()[0], address, desk.issuer.token(MINE), retry_for=0) as client:
            refused = client.close_many(map(Close, positions))
        assert {type(one) for one in refused} == {RateLimited}
        assert {one.outcome_unknown for one in refused if isinstance(one, RateLimited)} == {False}
    assert desk.requests() == 8
