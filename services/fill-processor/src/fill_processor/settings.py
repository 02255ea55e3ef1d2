"""FILL_PROCESSOR_* environment variables."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from closeflow.settings import KafkaSettings, PostgresSettings, RetrySettings


class FillProcessorSettings(KafkaSettings, PostgresSettings, RetrySettings):
    """It consumes as much at once as `batch_max_records` allows."""

    model_config = SettingsConfigDict(env_prefix="FILL_PROCESSOR_", frozen=True, extra="forbid")

    consumer_group: str = "fill-processor"
    batch_max_records: Annotated[int, Field(ge=1, le=1024)] = 256
    postgres_pool_size: Annotated[int, Field(ge=1, le=64)] = 2
