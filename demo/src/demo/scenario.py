"""What the broker does to the demo's portfolio, and the closes that ask for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import httpx

from broker_simulator.control import AcceptSilently, Behaviour, Control, FillInParts, FillThen, Reject, StreamFaults
from closeflow.domain.model import AssetType
from closeflow.storage.imported_positions import NewPosition

IN_PARTS: Final = "MSFT"
CANCELED_HALFWAY: Final = "JPM"
REJECTED_ONCE: Final = "DIS"
NEVER_ANSWERED: Final = "NVDA"
REPEATED_KEY: Final = "AAPL"
OTHER_KEY: Final = "INTC"
DEADLINE_S: Final = 15.0

STORIES: Final = {
    IN_PARTS: "fills in 5 parts",
    CANCELED_HALFWAY: "120 filled, the rest cancelled by the broker, then retried",
    REJECTED_ONCE: "rejected once (market price moved), then retried",
    NEVER_ANSWERED: "the broker takes the order, never answers and loses its updates",
    REPEATED_KEY: "asked twice with one key: one close",
    OTHER_KEY: "asked again with another key: 409",
}


QUOTES: Final = {
    AssetType.STOCK: ("180.00", "180.02"),
    AssetType.OPTION: ("7.50", "7.55"),
    AssetType.CRYPTO: ("2500.00", "2500.50"),
}


def script(control: Control, positions: Iterable[NewPosition]) -> None:
    """The trouble of this demo; everything else fills at once. Quotes stand still: a limit order at a touch that moves
    away would rest, and the table would wait for it."""
    for one in positions:
        control.pin_quote(one.symbol, *QUOTES[one.asset_type])
    control.script(Behaviour(execution=FillInParts(parts=5, every_s=0.5)), symbol=IN_PARTS)
    control.script(
        Behaviour(execution=FillThen(quantity=Decimal(120), then="cancel", after_s=0.5)),
        symbol=CANCELED_HALFWAY,
        count=1,
    )
    rejected = Reject(status=403, code=40310000, message="price is outside of the price band")
    control.script(Behaviour(answer=rejected), symbol=REJECTED_ONCE, count=1)
    silent = Behaviour(answer=AcceptSilently(), stream=StreamFaults(lose=True))
    control.script(silent, symbol=NEVER_ANSWERED, count=1)
    control.script(
        Behaviour(execution=FillInParts(parts=2, every_s=0.7)),
        symbol=OTHER_KEY,
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of the close route, and what came back."""

    position_id: int
    symbol: str
    key: str
    status: int
    replayed: bool
    answer: dict[str, Any]
    asked_at: float


async def close_all(api_url: str, positions: list[dict[str, Any]]) -> list[Asked]:
    """Close every position at once over REST, one of them twice with one key, one also with another key."""
    async with httpx.AsyncClient(base_url=api_url, timeout=DEADLINE_S) as http:
        first = await asyncio.gather(
            *(_close(http, row["id"], row["symbol"], f"demo-{row['id']}") for row in positions)
        )
        again = []
        for row in positions:
            if row["symbol"] == REPEATED_KEY:
                again.append(await _close(http, row["id"], row["symbol"], f"demo-{row['id']}"))
            if row["symbol"] == OTHER_KEY:
                again.append(await _close(http, row["id"], row["symbol"], f"demo-{row['id']}-again"))
        return [*first, *again]


async def _close(http: httpx.AsyncClient, position_id: int, symbol: str, key: str) -> Asked:
    asked_at = time.time()
    answer = await http.post(f"/v1/positions/{position_id}/close", headers={"Idempotency-Key": key}, json={})
    replayed = answer.headers.get("Idempotency-Replayed") == "true"
    return Asked(position_id, symbol, key, answer.status_code, replayed, answer.json(), asked_at)


def surprises(asked: list[Asked]) -> list[str]:
    """What the close route should not have answered."""
    found = []
    seen: dict[int, str] = {}
    for one in asked:
        if one.position_id not in seen:
            seen[one.position_id] = str(one.answer.get("close_request_id"))
            expected = one.status == httpx.codes.CREATED
        elif one.symbol == REPEATED_KEY:
            same = one.answer.get("close_request_id") == seen[one.position_id]
            expected = one.status == httpx.codes.OK and one.replayed and same
        else:
            expected = one.status == httpx.codes.CONFLICT
        if not expected:
            found.append(f"{one.symbol} with key {one.key}: {one.status} {one.answer}")
    return found
