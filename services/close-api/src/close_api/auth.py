"""Who is calling. The one seam for authentication: everything else asks for a `Caller` and trusts it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.requests import Request


@dataclass(frozen=True, slots=True)
class Caller:
    """`accounts` None means every account."""

    subject: str
    accounts: frozenset[str] | None

    def may_see(self, account_id: str) -> bool:
        """Whether the account is one of the caller's; `accounts` None means every account."""
        return self.accounts is None or account_id in self.accounts


_ANYONE: Final = Caller("anonymous", None)


async def identify(_request: Request) -> Caller:
    """The caller of a request. With AUTH=disabled, which the settings allow on loopback only, anyone is everyone."""
    return _ANYONE
