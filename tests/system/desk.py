"""What a scenario does with the system: import positions, close them, wait, and hold the books against the broker's."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Final, Literal, Self
from uuid import UUID

import httpx
import psycopg
from psycopg.rows import dict_row

from broker_simulator.control import OrderSeen, PositionSpec
from closectl.broker import Account
from closectl.import_positions import import_positions
from closectl.reconciling.commands import Sources, compare_once
from closectl.reconciling.compare import Scope
from closectl.reconciling.items import Comparison
from closectl.verifying.report import INVARIANTS, Report
from closectl.verifying.run import verify
from closeflow.domain.model import AssetType
from closeflow.domain.operator.requests import Done, Outcome
from closeflow.kafka.read_to_end import TailRecord, open_tail
from closeflow.operating.acting import Operator
from closeflow.operating.closes import cancel_request, retry_request
from closeflow.storage.core.engine import Database, make_engine
from closeflow.storage.imported_positions import NewPosition
from demo.system import ACCOUNT, SIMULATOR, System
from tests.aside import run_aside

WITHIN_S: Final = 30.0
BROKER: Final = "alpaca"
Kind = Literal["stock", "option", "crypto"]
_KIND: Final = {"fill": "trade", "bust": "bust", "correct": "correct"}
Row = dict[str, Any]
_numbers: Final = itertools.count()


def ticker(kind: Kind = "stock") -> str:
    """A symbol that no other scenario uses."""
    number = next(_numbers)
    letters = "".join(chr(ord("A") + number // 26**place % 26) for place in (2, 1, 0))
    return {"stock": f"T{letters}", "option": f"T{letters}261218C00200000", "crypto": f"T{letters}/USD"}[kind]


@dataclass(frozen=True, slots=True)
class Held:
    """A position as it was imported; `quantity` is signed."""

    id: int
    symbol: str
    quantity: Decimal

    @property
    def path(self) -> str:
        return f"/v1/positions/{self.id}/close"


class Desk:
    """The whole system from outside: it closes over REST, scripts the broker, and looks into the database."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.control = system.control()
        self.http = httpx.Client(
            base_url=system.url(), headers=system.authorization(), timeout=10.0, verify=system.links.verify
        )
        self._database = psycopg.connect(system.admin_dsn, autocommit=True, row_factory=dict_row)
        self.expected_incidents: list[str] = []
        self.planted: set[bytes] = set()
        self._incidents_before = [row["id"] for row in self.rows("SELECT id FROM incidents")]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        self.control.close()
        self._database.close()

    @property
    def operator(self) -> dict[str, str]:
        """The settings of `closectl` for this system, without their prefix."""
        return {name.removeprefix("CLOSECTL_").lower(): value for name, value in self.system.closectl().items()}

    def at_broker_directly(self, body: object | bytes) -> httpx.Response:
        """An order that the account sends itself, without closeflow."""
        key_id, secret_key = self.system.links.broker_keys
        headers = {"APCA-API-KEY-ID": key_id, "APCA-API-SECRET-KEY": secret_key, "Content-Type": "application/json"}
        content = body if isinstance(body, bytes | str) else json.dumps(body)
        verify = self.system.links.verify
        return httpx.post(f"{self.system.url(SIMULATOR)}/v2/orders", content=content, headers=headers, verify=verify)

    def reconnect(self) -> None:
        """After the database was stopped."""
        self._database.close()
        self._database = psycopg.connect(self.system.admin_dsn, autocommit=True, row_factory=dict_row)

    # positions

    def hold(self, quantity: int | str, kind: Kind = "stock") -> Held:
        return self.hold_all([(quantity, kind)])[0]

    def hold_all(self, wanted: Sequence[tuple[int | str, Kind]]) -> list[Held]:
        """Import new positions, and give the broker the same. Their quotes stand still, so a limit at the touch
        executes at once unless the scenario says otherwise."""
        named = [(ticker(kind), Decimal(quantity), kind) for quantity, kind in wanted]
        before = self.control.positions()
        kinds = {row["symbol"]: row["asset_type"] for row in self.rows("SELECT symbol, asset_type FROM positions")}
        specs = [PositionSpec(symbol=one, asset_type=kinds[one], quantity=held) for one, held in before.items()]
        specs += [PositionSpec(symbol=symbol, asset_type=kind, quantity=held) for symbol, held, kind in named]
        self.control.set_positions(specs)
        for symbol, _, _ in named:
            self.control.pin_quote(symbol, "99.95", "100.05")
        run_aside(self._import([_new(symbol, held, kind) for symbol, held, kind in named]))
        ids = {row["symbol"]: row["id"] for row in self.rows("SELECT id, symbol FROM positions")}
        return [Held(ids[symbol], symbol, held) for symbol, held, _ in named]

    async def _import(self, rows: Sequence[NewPosition]) -> None:
        async with self._operator() as database:
            await import_positions(database, rows, broker=BROKER)

    # closing

    def post(self, held: Held, key: str, *, path: str | None = None, body: object = None) -> httpx.Response:
        return self.http.post(path or held.path, headers={"Idempotency-Key": key}, json=body or {})

    def close(self, held: Held, key: str = "k", *, path: str | None = None, body: object = None) -> str:
        """Ask for a close that has to be accepted, again where the answer is to ask again; returns the request's id."""
        deadline, accepted = time.monotonic() + WITHIN_S, {httpx.codes.CREATED}
        while (answer := self.post(held, key, path=path, body=body)).status_code not in accepted:
            again = answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and time.monotonic() < deadline
            assert again, answer.text
            accepted.add(httpx.codes.OK)  # It may have been accepted without an answer.
            time.sleep(float(answer.headers["retry-after"]))
        return str(answer.json()["close_request_id"])

    def retry(self, request_id: str) -> None:
        """As an operator, with `closectl requests retry`."""
        self._act(retry_request, request_id)

    def cancel(self, request_id: str) -> None:
        """As an operator, with `closectl requests cancel`."""
        self._act(cancel_request, request_id)

    def _act(self, verb: Callable[..., Awaitable[Outcome]], request_id: str) -> None:
        async def act() -> None:
            async with self._operator() as database:
                done = await verb(database, UUID(request_id), Operator(by="desk", reason="seen with the broker"))
                assert isinstance(done, Done), done

        run_aside(act())

    # the surroundings

    def restart(self, service: str) -> None:
        """Stopped in order, and started again."""
        assert self.system.stop(service) == 0
        self.system.start(service)

    def close_breaker(self) -> None:
        """A scenario may end with time-outs only: the next close that the broker answers tells that it is back."""
        is_open = "SELECT count(*) FROM broker_breakers WHERE account_id = %s AND state <> 'closed'"
        if self.count(is_open, ACCOUNT):
            held = self.hold(1)
            self.close(held)
            self.until_status("closed", [held])
            self.until("the breaker is closed", lambda: self.count(is_open, ACCOUNT) == 0)

    @contextmanager
    def clock(self, whose: str, shift: str) -> Iterator[None]:
        """`ALTER <whose>` moves the clock of the database's sessions, and back at the end. That of SYSTEM is seen by
        open sessions at once, that of a ROLE by new ones only."""
        self.shift(whose, shift)
        try:
            yield
        finally:
            self._database.execute(f"ALTER {whose} RESET closeflow.clock_shift")
            self._database.execute("SELECT pg_reload_conf()")

    def shift(self, whose: str, shift: str) -> None:
        self._database.execute(f"ALTER {whose} SET closeflow.clock_shift = '{shift}'")
        self._database.execute("SELECT pg_reload_conf()")

    # looking

    def rows(self, query: str, *values: object) -> list[Row]:
        return self._database.execute(query, values).fetchall()

    def count(self, query: str, *values: object) -> int:
        return int(next(iter(self.rows(query, *values)[0].values())))

    def position(self, held: Held) -> Row:
        return self.rows("SELECT * FROM positions WHERE id = %s", held.id)[0]

    def request(self, request_id: str) -> Row:
        return self.rows("SELECT * FROM close_requests WHERE id = %s", request_id)[0]

    def orders(self, held: Held) -> list[Row]:
        return self.rows("SELECT * FROM orders WHERE position_id = %s ORDER BY created_at, attempt", held.id)

    def executions(self, held: Held) -> list[Row]:
        return self.rows("SELECT * FROM executions WHERE position_id = %s ORDER BY occurred_at, cum_qty", held.id)

    def at_broker(self, held: Held) -> list[OrderSeen]:
        """Every client order id that ever came to the broker for this symbol, whoever sent it."""
        return [one for one in self.control.orders() if json.loads(one.bodies[0])["symbol"] == held.symbol]

    def incidents(self) -> list[str]:
        """The kinds of incidents since the scenario began, closed ones too."""
        query = "SELECT kind FROM incidents WHERE NOT id = ANY(%s) ORDER BY id"
        return [row["kind"] for row in self.rows(query, self._incidents_before)]

    # waiting

    def until(self, what: str, condition: Callable[[], object], *, within_s: float = WITHIN_S) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}\n{self._state()}"
            time.sleep(0.02)

    def until_status(self, status: str, positions: Iterable[Held], *, within_s: float = WITHIN_S) -> None:
        ids = [one.id for one in positions]
        query = "SELECT count(*) FROM positions WHERE id = ANY(%s) AND status <> %s"
        self.until(f"positions {status}", lambda: self.count(query, ids, status) == 0, within_s=within_s)

    def _state(self) -> str:
        """For a failure: what is unfinished and what is wrong."""
        found = self.rows(
            "SELECT p.id, p.symbol, p.status, p.quantity, r.status AS request, r.reason, r.frozen_reason, r.attempt,"
            " o.client_order_id, o.status AS order, o.executed_qty, o.stated_cum_qty, o.next_send_at"
            " FROM positions p LEFT JOIN close_requests r ON r.position_id = p.id"
            " LEFT JOIN orders o ON o.close_request_id = r.id WHERE p.status <> 'closed'"
            " ORDER BY p.id, r.created_at LIMIT 20"
        )
        found += self.rows("SELECT kind, detail, client_order_id FROM incidents WHERE closed_at IS NULL")
        return "\n".join(str(row) for row in found)

    # events

    def read(self, topic: str) -> list[TailRecord]:
        """Everything that is in the topic now."""

        async def drain() -> list[TailRecord]:
            async with open_tail(self.system.kafka, [topic], None) as tail:
                return await tail.drain()

        return run_aside(drain())

    def events(self, topic: str, held: Held) -> list[Row]:
        """The position's events in the order of its partition."""
        mine = [one for one in self.read(topic) if one.key == str(held.id).encode()]
        return [json.loads(one.value or b"") for one in mine]

    # the books against the broker's

    def assert_closed_once(
        self, positions: Iterable[Held], *, attempts: int = 1, posts: int | None = 1, orders_ahead: bool = False
    ) -> None:
        """Each position is closed by so many orders; the broker received each so often (None: however often) and took
        it once, unless it refused it; and each of the broker's executions is booked once."""
        seen = self.control.orders()
        left = self.control.positions()
        for held in positions:
            row = self.position(held)
            assert (row["status"], row["quantity"], row["active_close_request_id"]) == ("closed", 0, None), row
            assert held.symbol not in left
            orders = self.orders(held)
            theirs = [one for one in seen if json.loads(one.bodies[0])["symbol"] == held.symbol]
            assert len(orders) == attempts
            assert {one.client_order_id for one in theirs} == {one["client_order_id"] for one in orders}
            assert posts is None or [one.posts_received for one in theirs] == [posts] * attempts, theirs
            status = {one["client_order_id"]: one["status"] for one in orders}
            for one in theirs:
                assert one.accepted == (0 if status[one.client_order_id] == "rejected" else 1), one
                assert len(set(one.bodies)) == 1, "every send of one id has the same bytes"
            self.assert_booked_once(held, theirs, orders_ahead=orders_ahead)

    def assert_booked_once(self, held: Held, theirs: Sequence[OrderSeen], *, orders_ahead: bool = False) -> None:
        """Every fill, bust and correction of the broker's is one row of ours, and what stands of them is the rest.
        Where orders are told ahead of their fills, a row has the order's cumulative quantity, not its execution's."""
        at_broker = Counter(
            (
                one.client_order_id,
                _KIND[execution.kind],
                datetime.fromisoformat(execution.at),
                execution.qty,
                execution.price,
                None if orders_ahead else execution.cum_qty,
            )
            for one in theirs
            for order in one.orders
            for execution in order.executions
        )
        booked = self.executions(held)
        ours = Counter(
            (
                one["client_order_id"],
                one["kind"],
                one["occurred_at"],
                *self._told(one),
                None if orders_ahead else one["cum_qty"],
            )
            for one in booked
        )
        assert ours == at_broker
        assert max(ours.values(), default=1) == 1
        replaced = {self._named(one["ref_exec_id"]) for one in booked}
        standing = [one for one in booked if one["kind"] != "bust" and one["exec_id"] not in replaced]
        total = sum((one["quantity"] if one["side"] == "buy" else -one["quantity"] for one in standing), Decimal(0))
        assert held.quantity + total == self.position(held)["quantity"]

    def _told(self, booked: Row) -> tuple[Decimal, Decimal]:
        """Quantity and price; a bust has those of what it takes back."""
        while booked["kind"] == "bust":
            name = self._named(booked["ref_exec_id"])
            (booked,) = self.rows("SELECT * FROM executions WHERE exec_id = %s", name)
        return booked["quantity"], booked["price"]

    def _named(self, exec_id: str | None) -> str | None:
        """The id under which an execution is booked, given that or its alias."""
        found = self.rows("SELECT exec_id FROM execution_aliases WHERE alias_id = %s", exec_id)
        return str(found[0]["exec_id"]) if found else exec_id

    def verify(self) -> None:
        """Every invariant that `closectl verify` can check holds: in the database, in the topics and at the broker."""
        report = run_aside(self._verify())
        assert report.violations == (), report.violations
        assert report.not_quiet is None, report.not_quiet
        for number, name in INVARIANTS.items():
            assert report.looked(number), f"{number} ({name}) was not looked at"
            assert not report.not_checked(number), report.not_checked(number)

    async def _verify(self) -> Report:
        async with self._operator() as database:
            return await verify(database, kafka=self.system.kafka, account=self._account(), wait_s=15)

    def reconcile(self) -> Comparison:
        """What `closectl reconcile ledger` finds, once."""

        async def compared() -> Comparison:
            async with self._operator() as database:
                return await compare_once(database, Sources(self.system.kafka, self._account()), Scope())

        return run_aside(compared())

    def _account(self) -> Account:
        key_id, secret_key = self.system.links.broker_keys
        return Account(
            url=self.system.url(SIMULATOR),
            key_id=key_id,
            secret_key=secret_key,
            account_id=ACCOUNT,
            broker=BROKER,
            tls=self.system.links.administrator,
        )

    @asynccontextmanager
    async def _operator(self) -> AsyncIterator[Database]:
        dsn = self.system.dsn("closeflow_operator")
        database = make_engine(dsn, pool_size=2, application_name="closeflow-system-tests")
        try:
            yield database
        finally:
            await database.dispose()


def _new(symbol: str, quantity: Decimal, kind: Kind) -> NewPosition:
    return NewPosition(
        position_id=None,
        account_id=ACCOUNT,
        symbol=symbol,
        asset_type=AssetType(kind),
        quantity=quantity,
        multiplier=Decimal(100) if kind == "option" else Decimal(1),
        currency="USD",
    )
