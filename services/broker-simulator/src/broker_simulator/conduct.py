"""How the broker behaves towards every order. It can be changed while running, and a restart keeps it: a broker that is
back calls no fill otherwise than before, and refuses what it refused."""

from typing import Self
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict

from .numbers import rfc3339
from .orders import Execution
from .settings import ActivityIds, Deduplication, Oversell, Reversals, Settings


class Conduct(BaseModel):
    """`activity_ids`: how executions are called in the list from a time on, in microseconds since 1970."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deduplication: Deduplication
    reversals: Reversals
    oversell: Oversell
    activity_ids: tuple[tuple[int, ActivityIds], ...]

    @classmethod
    def kept(cls, kept: str | None, settings: Settings) -> Self:
        """As it was changed to; where nothing was, as the settings say."""
        if kept is not None:
            return cls.model_validate_json(kept)
        return cls(
            deduplication=settings.deduplication,
            reversals=settings.reversals,
            oversell=settings.oversell,
            activity_ids=((0, settings.activity_ids),),
        )

    def changed(
        self,
        *,
        deduplication: Deduplication | None,
        reversals: Reversals | None,
        oversell: Oversell | None,
        activity_ids: ActivityIds | None,
        at_us: int,
    ) -> Self:
        """With what is given. Executions of before `at_us` keep their names."""
        return self.model_copy(
            update={
                "deduplication": deduplication or self.deduplication,
                "reversals": reversals or self.reversals,
                "oversell": oversell or self.oversell,
                "activity_ids": (*self.activity_ids, *([(at_us, activity_ids)] if activity_ids else [])),
            }
        )

    def activity_id(self, execution: Execution) -> str:
        """Time, "::", a UUID. `same`: the stream's execution id; `different`: another one, always the same."""
        text = rfc3339(execution.at_us)
        stamp = text.translate({ord(mark): None for mark in "-:T.Z"})[:17]
        ids = next(ids for from_us, ids in reversed(self.activity_ids) if from_us <= execution.at_us)
        tail = execution.id if ids == "same" else str(uuid5(UUID(execution.id), "activity"))
        return f"{stamp}::{tail}"
