"""What an operator does over the API: the verbs of closectl that need no broker, by the same functions, with the same
records.

They run on a pool of their own with the operator's role in the database, so that close-api's role stays as narrow as
accepting closes needs it. Without that pool there is nothing here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal, TypeVar, assert_never
from uuid import UUID

import structlog

from close_api.auth.caller import Caller, Scope
from close_api.errors import Code, Problem
from close_api.use_cases.paging import Page, Paging
from close_api.use_cases.reading import answered
from closeflow.clock import timeout
from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.operator.adjust import Ending, Fill
from closeflow.domain.operator.requests import Already, Done, Outcome, Refused
from closeflow.domain.trading_controls import GLOBAL, TradingState
from closeflow.operating.acting import Acted, NotThere, Operator
from closeflow.operating.adjusting import adjust_position, end_position_, name_execution
from closeflow.operating.closes import abandon_request, retry_request
from closeflow.operating.incidents import close_incident_by_hand
from closeflow.operating.senders import confirm_sender_exit
from closeflow.operating.trading_controls import change_limits, set_trading
from closeflow.storage.accounts import broker_of_account
from closeflow.storage.close_requests import Engine, Tx, find_request
from closeflow.storage.core.engine import CommitUnknown, DatabaseError, first_line, is_poison
from closeflow.storage.incidents import IncidentRow, find_incident, page_of_incidents
from closeflow.storage.operator_actions import list_actions
from closeflow.storage.senders import list_senders
from closeflow.storage.trading_controls import list_controls, list_limits
from closeflow.telemetry import parse_traceparent
from closeflow.unit_of_work import MoveRefused

T = TypeVar("T")
Row = dict[str, Any]
Verb = Callable[[Engine, Operator], Awaitable[Outcome | Acted]]

OFF: Final = (
    "operators are not served here: set CLOSE_API_OPERATOR_POSTGRES_DSN to the DSN of the role closeflow_operator"
)
LAST: Final = 2**63 - 1
_KEY: Final = 8
_SENDERS: Final = 500

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Said:
    """Why something is done, and the call that asks for it."""

    reason: str
    traceparent: str


@dataclass(frozen=True, slots=True)
class Performed:
    """What came of it. `already`: it was so, and nothing was written; `shown`: it was a dry run."""

    outcome: Literal["done", "already", "shown"]
    what: str


@dataclass(frozen=True, slots=True)
class FillGiven:
    """An execution as the operator read it at the account's broker."""

    exec_id: str
    quantity: Decimal
    price: Decimal
    occurred_at: datetime | None
    cum_quantity: Decimal | None


@dataclass(frozen=True, slots=True)
class Operating:
    """`database` is the pool of the operator's role, None where operators are not served; `deadline_s` bounds each
    call.

    Every method needs the scope `close:operate`, and shows and changes only what is of the caller's accounts; what is
    of none alone needs all of them. They raise Problem: `forbidden`, `not_found`, `unavailable`, and
    `operation_refused` with every reason.
    """

    database: Engine | None
    deadline_s: float

    async def controls(self, caller: Caller) -> list[Row]:
        """The kill switch: the global scope, and those accounts whose own switch was ever set."""
        return await self._read(caller, lambda tx: list_controls(tx, accounts=caller.accounts))

    async def set_trading(self, caller: Caller, scope: str, state: TradingState, said: Said) -> Performed:
        """Halt, reduce or release the account `scope`, or with `global` all of them."""
        account = None if scope == GLOBAL else scope
        if account is None:
            self._admit(caller, of_every_account=True)
        return await self._perform(caller, said, lambda db, who: set_trading(db, state, who, account=account))

    async def limits(self, caller: Caller, account: str | None) -> list[Row]:
        """How much each account may send."""
        return await self._read(caller, lambda tx: list_limits(tx, account_id=account, accounts=caller.accounts))

    async def set_limits(
        self,
        caller: Caller,
        account: str,
        said: Said,
        *,
        max_order_quantity: Decimal | None,
        max_order_notional: Decimal | None,
        submits_per_minute: int | None,
    ) -> Performed:
        """Change those that are given, and leave the others."""
        return await self._perform(
            caller,
            said,
            lambda db, who: change_limits(
                db,
                account,
                who,
                max_order_quantity=max_order_quantity,
                max_order_notional=max_order_notional,
                submits_per_minute=submits_per_minute,
            ),
        )

    async def incidents(
        self, caller: Caller, *, account: str | None, kind: str | None, closed: bool, page_size: int, page_token: str
    ) -> Page[IncidentRow]:
        """Incidents, the newest first: the open ones, with `closed` those that are over too."""
        paging = Paging(("incidents", account, kind, str(closed)), page_size, page_token)
        below = paging.last(_KEY)
        found = await self._read(
            caller,
            lambda tx: page_of_incidents(
                tx,
                accounts=caller.accounts,
                account=account,
                kind=kind,
                closed=closed,
                below=LAST if below is None else min(int.from_bytes(below), LAST),
                limit=paging.size + 1,
            ),
        )
        return paging.page(found, lambda one: one.id.to_bytes(_KEY))

    async def incident(self, caller: Caller, incident_id: int) -> IncidentRow:
        """One incident, open or closed."""
        found = await self._read(
            caller, lambda tx: find_incident(tx, incident_id=incident_id, accounts=caller.accounts)
        )
        if found is None:
            raise Problem(Code.NOT_FOUND)
        return found

    async def close_incident(self, caller: Caller, incident_id: int, said: Said) -> Performed:
        """Close it; the reason becomes its resolution, and a close that it froze goes on."""
        return await self._perform(caller, said, lambda db, who: close_incident_by_hand(db, incident_id, who))

    async def retry(self, caller: Caller, request_id: UUID, said: Said) -> Performed:
        """Try a retryable close again now (C8 with P5)."""
        return await self._perform(caller, said, lambda db, who: retry_request(db, request_id, who))

    async def abandon(self, caller: Caller, request_id: UUID, said: Said) -> Performed:
        """Give a retryable close up, or let a position whose close failed be open again (C10 with P10)."""
        return await self._perform(caller, said, lambda db, who: abandon_request(db, request_id, who))

    async def adjust(
        self, caller: Caller, position_id: int, delta: Decimal, said: Said, *, expected: Decimal | None, dry: bool
    ) -> Performed:
        """Change a position by what happened outside (P13). Without `expected`, the quantity that the operator saw, it
        is refused and told: a repeated call, or a fill in between, would change something else than was meant."""
        look = dry or expected is None
        done = await self._perform(
            caller,
            said,
            lambda db, who: adjust_position(db, position_id, delta, who, expected=expected, dry=look),
            dry=look,
        )
        if done.outcome == "shown" and not dry:
            raise _refused(f"{done.what}; say with expected_quantity what it has now")
        return done

    async def end_position(
        self, caller: Caller, position_id: int, ending: Ending, seen: Decimal, said: Said, *, dry: bool
    ) -> Performed:
        """End a position that no close ended, whose quantity the operator saw to be `seen`."""
        return await self._perform(
            caller, said, lambda db, who: end_position_(db, position_id, ending, seen, who, dry=dry), dry=dry
        )

    async def name_execution(
        self, caller: Caller, client_order_id: str, given: FillGiven, said: Said, *, dry: bool
    ) -> Performed:
        """Name a fill that the broker states and whose execution never came (R4)."""
        broker = await self._read(caller, lambda tx: _broker(tx, caller, client_order_id))
        if broker is None:
            raise Problem(Code.NOT_FOUND)
        fill = Fill(
            broker=broker,
            exec_id=given.exec_id,
            quantity=given.quantity,
            price=given.price,
            occurred_at=given.occurred_at,
            cum_quantity=given.cum_quantity,
        )
        return await self._perform(
            caller, said, lambda db, who: name_execution(db, client_order_id, fill, who, dry=dry), dry=dry
        )

    async def senders(self, caller: Caller) -> list[Row]:
        """The processes that send orders, of every account: those last seen first, at most 500."""
        self._admit(caller, of_every_account=True)
        return await self._read(caller, lambda tx: list_senders(tx, limit=_SENDERS))

    async def sender_exited(self, caller: Caller, instance_id: str, said: Said) -> Performed:
        """Confirm that a sender's process is gone, as somebody saw on its host."""
        self._admit(caller, of_every_account=True)
        return await self._perform(caller, said, lambda db, who: confirm_sender_exit(db, instance_id, who))

    async def actions(self, caller: Caller, *, subject: str | None, page_size: int, page_token: str) -> Page[Row]:
        """What operators and cancelling callers did, the newest first."""
        paging = Paging(("operator-actions", subject), page_size, page_token)
        below = paging.last(_KEY)
        found = await self._read(
            caller,
            lambda tx: list_actions(
                tx,
                subject=subject,
                accounts=caller.accounts,
                below=LAST if below is None else min(int.from_bytes(below), LAST),
                limit=paging.size + 1,
            ),
        )
        return paging.page(found, lambda row: int(row["id"]).to_bytes(_KEY))

    def _admit(self, caller: Caller, *, of_every_account: bool = False) -> Engine:
        caller.require(Scope.OPERATE)
        if self.database is None:
            raise Problem(Code.NOT_FOUND, extra={"reason": OFF})
        if of_every_account and caller.accounts is not None:
            raise Problem(
                Code.FORBIDDEN,
                extra={"scope": Scope.OPERATE.value, "reason": "this concerns every account, and the token is of some"},
                headers={"www-authenticate": 'Bearer realm="closeflow", error="insufficient_scope"'},
            )
        return self.database

    async def _read(self, caller: Caller, work: Callable[[Tx], Awaitable[T]]) -> T:
        return await answered(self._admit(caller), work, deadline_s=self.deadline_s)

    async def _perform(self, caller: Caller, said: Said, verb: Verb, *, dry: bool = False) -> Performed:
        """Every verb looks at the state alone, so one that ends unheard of may be repeated."""
        database = self._admit(caller)
        trace = parse_traceparent(said.traceparent)
        trace_id = None if trace is None else trace.trace_id
        operator = Operator(by=caller.subject, reason=said.reason, accounts=caller.accounts, trace_id=trace_id)
        try:
            async with timeout(self.deadline_s):
                outcome = await verb(database, operator)
        except NotThere:
            raise Problem(Code.NOT_FOUND) from None
        except MoveRefused as error:
            raise Problem(
                Code.OPERATION_REFUSED, extra={"reasons": [f"the move is not a legal one: {error}"]}
            ) from None
        except DatabaseError as error:
            if is_poison(error):
                raise _refused(f"the database refuses it: {first_line(error)}") from None
            log.warning("operation_not_done", error=first_line(error))
            raise Problem(Code.UNAVAILABLE) from None
        except (CommitUnknown, TimeoutError):
            raise Problem(Code.UNAVAILABLE) from None
        match outcome:
            case Done(what=what) if dry:
                return Performed("shown", f"nothing was done; it would be: {what}")
            case Done(what=what) | Acted(what=what):
                log.info("operated", by=caller.subject, trace_id=trace_id, what=what)
                return Performed("done", what)
            case Already(what=what):
                return Performed("already", what)
            case Refused(reasons):
                raise _refused(*reasons)
            case _:
                assert_never(outcome)


def _refused(*reasons: str) -> Problem:
    return Problem(Code.OPERATION_REFUSED, extra={"reasons": list(reasons)})


async def _broker(tx: Tx, caller: Caller, client_order_id: str) -> str | None:
    """Of an order's account, if the caller may see it."""
    parsed = parse_client_order_id(client_order_id)
    if parsed is None:
        return None
    state = await find_request(tx, request_id=parsed[0], accounts=caller.accounts)
    return None if state is None else await broker_of_account(tx, account_id=state[0].account_id)
