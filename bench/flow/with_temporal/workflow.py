"""The workflow of a close. It imports nothing that a workflow may not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from temporalio import workflow

TASK_QUEUE: Final = "closes"
STEP_WITHIN: Final = timedelta(seconds=30)
FILL_WITHIN: Final = timedelta(seconds=600)


@workflow.defn(name="Close")
class Close:
    """One close: the order is planned, sent, awaited and booked. Every step may run again and does its work once."""

    def __init__(self) -> None:
        self._fill: dict[str, Any] | None = None

    @workflow.run
    async def run(self, position_id: int, accepted_at: str) -> None:
        """Returns when the position is closed."""
        order = await self._step("plan", [workflow.info().workflow_id, position_id, accepted_at])
        await self._step("send", [order])
        await workflow.wait_condition(lambda: self._fill is not None, timeout=FILL_WITHIN)
        await self._step("book", [order, self._fill])

    @workflow.signal(name="fill")
    def fill(self, update: dict[str, Any]) -> None:
        """What the broker's stream said of the order; it may come while the order is still being sent."""
        self._fill = update

    async def _step(self, name: str, arguments: list[Any]) -> Any:
        return await workflow.execute_local_activity(name, args=arguments, start_to_close_timeout=STEP_WITHIN)
