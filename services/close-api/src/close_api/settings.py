"""Settings of close-api; every variable begins with CLOSE_API_."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from closeflow.settings import Port, PostgresSettings, ServiceSettings, is_loopback


class Settings(PostgresSettings, ServiceSettings):
    """`request_deadline_ms` bounds the reading of a body and the wait for the database alike."""

    model_config = SettingsConfigDict(env_prefix="CLOSE_API_")

    http_host: str = "127.0.0.1"
    http_port: Port = 8080
    auth: Literal["disabled"]
    replication_slot: Annotated[str, Field(pattern="^[a-z0-9_]{1,63}$")] = "closeflow_closeflow"
    postgres_pool_size: Annotated[int, Field(ge=3, le=100)] = 6
    queue_capacity: Annotated[int, Field(ge=1, le=100_000)] = 1024
    batch_size: Annotated[int, Field(ge=1, le=1000)] = 64
    batches_in_flight: Annotated[int, Field(ge=1, le=8)] = 1
    request_deadline_ms: Annotated[int, Field(ge=100, le=60_000)] = 5_000

    @model_validator(mode="after")
    def _refuse_open_door(self) -> Self:
        if self.auth == "disabled" and not is_loopback(self.http_host):
            raise ValueError(
                f"auth: disabled would let everyone who reaches {self.http_host} close positions; "
                "bind to 127.0.0.1 with CLOSE_API_HTTP_HOST"
            )
        return self
