"""FILL_PROCESSOR_* environment variables."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from closeflow.settings import KafkaSettings, PostgresSettings, ServiceSettings


class FillProcessorSettings(KafkaSettings, PostgresSettings, ServiceSettings):
    """`retry_*_s` shape the pause before the next attempt of a request whose order ended unfilled."""

    model_config = SettingsConfigDict(env_prefix="FILL_PROCESSOR_", frozen=True, extra="forbid")

    consumer_group: str = "fill-processor"
    batch_max_records: Annotated[int, Field(ge=1, le=1024)] = 64
    postgres_pool_size: Annotated[int, Field(ge=1, le=64)] = 2
    retry_settle_delay_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    retry_base_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    retry_cap_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
