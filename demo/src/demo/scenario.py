"""What the broker does to the demo's portfolio, and the closes that ask for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from broker_simulator.control import AcceptSilently, Behaviour, Control, FillInParts, FillThen, Reject, StreamFaults
from closeflow.domain.model import AssetType
from closeflow.storage.imported_positions import NewPosition
from closeflow_client import AsyncClient, CloseflowError, CloseRequest

IN_PARTS: Final = "MSFT"
CANCELED_HALFWAY: Final = "JPM"
REJECTED_ONCE: Final = "DIS"
NEVER_ANSWERED: Final = "NVDA"
REPEATED_KEY: Final = "AAPL"
OTHER_KEY: Final = "INTC"
ALREADY_CLOSING: Final = "position_already_closing"

STORIES: Final = {
    IN_PARTS: "fills in 5 parts",
    CANCELED_HALFWAY: "120 filled, the rest cancelled by the broker, then retried",
    REJECTED_ONCE: "rejected once (market price moved), then retried",
    NEVER_ANSWERED: "the broker takes the order, never answers and loses its updates",
    REPEATED_KEY: "asked over REST and over gRPC with one key: one close",
    OTHER_KEY: "asked again with another key: refused",
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
    """One call to close, over the door at `address`, and what came back: a request, or a refusal by its code."""

    address: str
    position_id: int
    symbol: str
    key: str
    answer: CloseRequest | CloseflowError
    asked_at: float

    @property
    def replayed(self) -> bool:
        """Whether the answer is that to an earlier call."""
        return isinstance(self.answer, CloseRequest) and self.answer.replayed

    @property
    def code(self) -> str:
        """Of the refusal; "" where it was accepted."""
        return self.answer.code if isinstance(self.answer, CloseflowError) else ""


async def close_all(
    doors: tuple[str, str], token: str, positions: list[dict[str, Any]], *, ca_file: Path | None = None
) -> list[Asked]:
    """Close every position at once, half over each door; afterwards one again with its key, and one with another key,
    over the door that did not take it."""
    rest_door, grpc_door = (AsyncClient(door, token, ca_file=ca_file) for door in doors)
    async with rest_door as rest, grpc_door as grpc:
        clients = ((doors[0], rest), (doors[1], grpc))
        first = await asyncio.gather(
            *(_close(*clients[n % 2], row, f"demo-{row['id']}") for n, row in enumerate(positions))
        )
        again = []
        for n, row in enumerate(positions):
            other = clients[1 - n % 2]
            if row["symbol"] == REPEATED_KEY:
                again.append(await _close(*other, row, f"demo-{row['id']}"))
            if row["symbol"] == OTHER_KEY:
                again.append(await _close(*other, row, f"demo-{row['id']}-again"))
        return [*first, *again]


async def _close(address: str, client: AsyncClient, row: dict[str, Any], key: str) -> Asked:
    asked_at = time.time()
    answer: CloseRequest | CloseflowError
    try:
        answer = await client.close(row["id"], key=key)
    except CloseflowError as error:
        answer = error
    return Asked(address, row["id"], row["symbol"], key, answer, asked_at)


def surprises(asked: list[Asked]) -> list[str]:
    """What the doors should not have answered."""
    found = []
    seen: dict[int, UUID] = {}
    for one in asked:
        request = one.answer if isinstance(one.answer, CloseRequest) else None
        if one.position_id not in seen and request is not None:
            seen[one.position_id] = request.close_request_id
            expected = not request.replayed
        elif one.symbol == REPEATED_KEY and request is not None:
            expected = request.replayed and request.close_request_id == seen[one.position_id]
        else:
            expected = one.code == ALREADY_CLOSING
        if not expected:
            found.append(f"{one.symbol} with key {one.key} over {one.address}: {one.answer}")
    return found
