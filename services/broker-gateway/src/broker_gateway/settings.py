"""BROKER_GATEWAY_* environment variables."""

from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from closeflow.settings import BrokerSettings, KafkaSettings, PostgresSettings, StreamUrl

Seconds = Annotated[float, Field(gt=0, le=3600)]


class BrokerGatewaySettings(PostgresSettings, KafkaSettings, BrokerSettings):
    """One instance serves one account; a second one of the same account waits until the first is gone.

    `backfill_interval_s` is how long a message that the stream lost silently may stay unnoticed, `backfill_overlap_s`
    how late an execution may appear in the broker's list.
    """

    model_config = SettingsConfigDict(env_prefix="BROKER_GATEWAY_", frozen=True, extra="forbid")

    broker_account_id: Annotated[str, Field(min_length=1)]
    broker_stream_url: StreamUrl
    http_deadline_s: Seconds = 5.0
    http_connections: Annotated[int, Field(ge=1, le=256)] = 8
    backfill_interval_s: Seconds = 30.0
    backfill_overlap_s: Seconds = 60.0
    reconnect_base_s: Seconds = 0.25
    reconnect_cap_s: Seconds = 10.0
    ping_interval_s: Seconds = 5.0
    ping_timeout_s: Seconds = 5.0
    takeover_poll_s: Seconds = 1.0

    @model_validator(mode="after")
    def _backfills_meet(self) -> Self:
        if self.backfill_overlap_s <= self.backfill_interval_s:
            raise ValueError(
                f"backfill_overlap_s: {self.backfill_overlap_s} must be above the backfill_interval_s of "
                f"{self.backfill_interval_s}, or fills could fall between two backfills"
            )
        return self
