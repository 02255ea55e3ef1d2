"""Who is calling and what they may: everything behind the doors asks for a `Caller` and trusts it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from close_api.errors import Code, Problem


class Scope(StrEnum):
    """What a token lets its caller do (RFC 6749 section 3.3)."""

    WRITE = "close:write"
    READ = "close:read"
    OPERATE = "close:operate"


@dataclass(frozen=True, slots=True)
class Caller:
    """`subject` is what closes and actions are recorded under; `accounts` None means every account."""

    subject: str
    accounts: frozenset[str] | None
    scopes: frozenset[Scope]

    def may_see(self, account_id: str) -> bool:
        """Whether the account is one of the caller's."""
        return self.accounts is None or account_id in self.accounts

    def require(self, scope: Scope) -> None:
        """Raises Problem `forbidden` without the scope. Who may close may read what became of it."""
        if scope in self.scopes or (scope is Scope.READ and Scope.WRITE in self.scopes):
            return
        challenge = f'Bearer realm="closeflow", error="insufficient_scope", scope="{scope}"'
        raise Problem(Code.FORBIDDEN, extra={"scope": scope.value}, headers={"www-authenticate": challenge})


ANYONE: Final = Caller("anonymous", None, frozenset(Scope))
"""Whoever calls where AUTH=disabled, which the settings allow on loopback only."""


class Identity(Protocol):
    """How a door learns who is calling."""

    async def caller(self, authorization: str | None) -> Caller:
        """The caller named by the value of the header Authorization, None where there is none. Raises Problem
        `unauthenticated`."""
        ...
