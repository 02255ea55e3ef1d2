"""Close positions: one, many, or only to see what would be done."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from close_api.auth.caller import Caller, Scope
from close_api.batching import Batches, Overloaded
from close_api.errors import Code, Problem, problem_of
from closeflow.clock import monotonic, sleep
from closeflow.domain.close.accept import Accepted, CloseCommand, Decision, Replayed
from closeflow.storage.close_requests import DatabaseAway, LockedElsewhere, RowRefused
from closeflow.telemetry.metrics import STAGE_SECONDS, counter

CLOSES: Final = counter("close_api_closes_total")
_ACCEPTED: Final = CLOSES.labels("accepted")
_PLANNED: Final = CLOSES.labels("dry_run")
_REPLAYED: Final = CLOSES.labels("replayed")
_ACCEPT_SECONDS: Final = STAGE_SECONDS.labels("accept")
_REFUSED_AFTER_S: Final = 0.1
"""Told at once that there is no room, callers who do not wait would ask again at once, and keep the others waiting."""
_REMEMBERED: Final = 100_000
"""Accounts of positions, by which closes take turns."""

Answer = Accepted | Replayed

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Closing:
    """`deadline_s` bounds the wait for an answer. A caller's own deadline ends its wait before, and not the batch that
    has its close: others are in it, and its statements have one time-out (`statement_timeout`)."""

    closes: Batches[CloseCommand, Decision]
    deadline_s: float
    _account_of: OrderedDict[int, str] = field(init=False, default_factory=OrderedDict)

    async def close(self, caller: Caller, command: CloseCommand) -> Answer:
        """The accepted close after its COMMIT, or the one that was accepted under the key before. Raises Problem.

        Of a dry run it is what would be accepted; nothing is kept.
        """
        caller.require(Scope.WRITE)
        asked_at = monotonic()
        try:
            decision: Decision | Exception = await self.closes.submit(
                command, whose=self._whose(caller, command), deadline_s=self.deadline_s
            )
        except Exception as error:
            decision = error
        await _refuse_later([decision], self.deadline_s)
        answer = self._answer(decision, command, asked_at)
        if isinstance(answer, Problem):
            raise answer
        return answer

    async def close_many(self, caller: Caller, commands: Sequence[CloseCommand]) -> list[Answer | Problem]:
        """What `close` gives or raises, for each in order; one that fails changes nothing for the others. Raises
        Problem where the caller may close nothing."""
        caller.require(Scope.WRITE)
        if not commands:
            return []
        asked_at = monotonic()
        items = [(self._whose(caller, command), command) for command in commands]
        decisions = await self.closes.submit_many(items, deadline_s=self.deadline_s)
        await _refuse_later(decisions, self.deadline_s)
        return [self._answer(one, command, asked_at) for one, command in zip(decisions, commands, strict=True)]

    def _answer(self, decision: Decision | Exception, command: CloseCommand, asked_at: float) -> Answer | Problem:
        match decision:
            case Accepted() | Replayed():
                accepted = _PLANNED if command.dry_run else _ACCEPTED
                (accepted if isinstance(decision, Accepted) else _REPLAYED).inc()
                if isinstance(decision, Accepted) and not command.dry_run:
                    _ACCEPT_SECONDS.observe(monotonic() - asked_at)
                position = decision.book.position if isinstance(decision, Accepted) else decision.position
                self._remember(position.id, position.account_id)
                return decision
            case Overloaded():
                return Problem(Code.OVERLOADED)
            case DatabaseAway() | LockedElsewhere() | RowRefused() | TimeoutError():
                return Problem(Code.UNAVAILABLE)
            case Exception():
                log.error("close_not_answered", exc_info=decision)
                return Problem(Code.INTERNAL_ERROR)
            case refused:
                return problem_of(refused)

    def _whose(self, caller: Caller, command: CloseCommand) -> str:
        """The account whose close it is, as far as that is known before the database is asked; else the caller. What is
        not the caller's is as what is not known: it takes no turns of its owner's, nor waits for them."""
        account = self._account_of.get(command.position_id)
        if account is not None and not caller.may_see(account):
            account = None
        if account is None and caller.accounts is not None and len(caller.accounts) == 1:
            (account,) = caller.accounts
        return f"subject {caller.subject}" if account is None else f"account {account}"

    def _remember(self, position_id: int, account_id: str) -> None:
        self._account_of[position_id] = account_id
        if len(self._account_of) > _REMEMBERED:
            self._account_of.popitem(last=False)


async def _refuse_later(decisions: Sequence[Decision | Exception], within_s: float) -> None:
    if all(isinstance(one, Overloaded) for one in decisions):
        await sleep(min(_REFUSED_AFTER_S, within_s))
