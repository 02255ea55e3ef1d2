"""Who looks: what close-api says of the token, remembered for a little while."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from close_board.close_api import Away, CloseApi, Refused
from closeflow.clock import monotonic

ASKED_AGAIN_AFTER_S: Final = 10.0
KNOWN_WITHOUT_API_S: Final = 300.0
"""How long a viewer who was known stays so while close-api does not answer: a board is needed most then."""
_REMEMBERED: Final = 1000
_READS: Final = frozenset({"close:read", "close:write"})
_OPERATES: Final = "close:operate"


class NotAdmitted(Exception):
    """Nothing is shown to this token; the text says why, to whoever has it."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """`accounts` None is every account. `token` is handed on with everything that is asked for the viewer."""

    token: str
    subject: str
    accounts: frozenset[str] | None
    may_operate: bool

    def sees(self, account: str | None) -> bool:
        """Whether this is of one of the viewer's accounts; what is of none is for those who see every account."""
        return self.accounts is None or account in self.accounts

    @property
    def group(self) -> tuple[str, ...] | None:
        """What those who see the same share."""
        return None if self.accounts is None else tuple(sorted(self.accounts))


@dataclass(frozen=True, slots=True)
class _Known:
    viewer: Viewer
    asked_at: float


class Viewers:
    """Asks close-api, which alone knows tokens."""

    def __init__(self, api: CloseApi) -> None:
        self._api = api
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    async def admit(self, token: str) -> Viewer:
        """Raises NotAdmitted, and Away where close-api cannot be asked about a token that is not known."""
        digest, now = sha256(token.encode()).digest(), monotonic()
        known = self._known.get(digest)
        if known is not None and now - known.asked_at < ASKED_AGAIN_AFTER_S:
            return known.viewer
        try:
            told = await self._api.get(token, "/v1/caller")
            viewer = _viewer(token, told)
        except Refused as error:
            self._known.pop(digest, None)
            raise NotAdmitted(error.detail) from None
        except NotAdmitted:
            self._known.pop(digest, None)
            raise
        except Away:
            if known is not None and now - known.asked_at < KNOWN_WITHOUT_API_S:
                return known.viewer
            raise
        self._known[digest] = _Known(viewer, now)
        self._known.move_to_end(digest)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return viewer


def _viewer(token: str, told: dict[str, object]) -> Viewer:
    accounts, scopes = told.get("accounts"), told.get("scopes")
    if not isinstance(scopes, list) or not (accounts is None or isinstance(accounts, list)):
        raise Away("close-api's answer is not its own")
    if not _READS & set(scopes):
        raise NotAdmitted("The token lacks the scope close:read; ask for one that has it.")
    return Viewer(
        token,
        str(told.get("subject", "")),
        None if accounts is None else frozenset(map(str, accounts)),
        _OPERATES in scopes,
    )
