"""RECONCILER_* environment variables."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from closeflow.broker.protocol import IdDeduplication
from closeflow.settings import BrokerSettings, HttpUrl, KafkaSettings, PostgresSettings, ServiceSettings, check_pem
from closeflow.tls import ClientTls

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Bytes = Annotated[int, Field(ge=0)]
Budget = Annotated[int, Field(ge=1, le=10_000)]


class ReconcilerSettings(BrokerSettings, KafkaSettings, PostgresSettings, ServiceSettings):
    """Every job has its interval, its budget per cycle, and a grace after recent activity."""

    model_config = SettingsConfigDict(env_prefix="RECONCILER_", frozen=True, extra="forbid")

    broker_account_id: str
    market_data_url: HttpUrl
    # Each job that runs on one replica at a time holds a connection, and takes another for its work.
    postgres_pool_size: Annotated[int, Field(ge=13, le=64)] = 16

    start_up_delay_s: Annotated[float, Field(ge=0, le=600)] = 2.0
    requests_interval_s: Seconds = 1.0
    requests_budget: Budget = 500
    resend_after_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    unknown_after_s: Seconds = 900.0
    market_clock_reuse_s: Seconds = 5.0

    deferrals_interval_s: Seconds = 5.0
    backlog_interval_s: Seconds = 5.0

    repairs_interval_s: Seconds = 10.0
    repairs_budget: Budget = 100
    repairs_grace_s: Seconds = 5.0

    orders_interval_s: Seconds = 3.0
    orders_budget: Budget = 100
    quiet_after_s: Seconds = 10.0
    ask_again_cap_s: Seconds = 60.0
    outliving_grace_s: Seconds = 5.0

    histories_interval_s: Seconds = 2.0
    # After a promotion or a restore: how long a send may still be on its way to the broker, and then in no list of it.
    settle_after_s: Annotated[float, Field(ge=0, le=600)] = 15.0
    # As order-submitter has it.
    broker_deduplication: IdDeduplication = IdDeduplication.WHILE_OPEN

    gaps_interval_s: Seconds = 3.0
    gaps_budget: Budget = 200
    executions_pages: Budget = 50
    gap_grace_s: Seconds = 1.0
    gap_incident_after_s: Seconds = 30.0

    holdings_interval_s: Seconds = 60.0
    holdings_grace_s: Seconds = 60.0
    # How often activities that are no trades are read, and from how long ago: the broker books them days later.
    non_trades_interval_s: Seconds = 60.0
    non_trades_look_back_days: Annotated[int, Field(ge=1, le=90)] = 7
    non_trades_pages: Budget = 50
    evidence_interval_s: Seconds = 30.0
    evidence_budget: Budget = 100
    resolve_interval_s: Seconds = 10.0

    parked_interval_s: Seconds = 5.0
    parked_budget: Budget = 200

    audit_interval_s: Seconds = 5.0
    audit_budget: Budget = 5000
    emit_again_budget: Budget = 1000
    publish_within_s: Seconds = 30.0

    connect_url: HttpUrl
    # Of Connect's REST over https: whose certificate it has, and the one of our own that it asks for.
    connect_ca_path: Path | None = None
    connect_certificate_path: Path | None = None
    connect_key_path: Path | None = None
    connector: Annotated[str, Field(min_length=1)] = "closeflow-outbox-closeflow"
    replication_slot: Annotated[str, Field(pattern="^[a-z0-9_]{1,63}$")] = "closeflow_closeflow"
    watch_interval_s: Seconds = 5.0
    watch_patience_s: Seconds = 10.0
    slot_lag_bytes: Bytes = 1024**3
    wal_left_bytes: Bytes = 256 * 1024**2
    heartbeat_age_s: Seconds = 60.0

    surroundings_interval_s: Seconds = 10.0
    dead_letters_interval_s: Seconds = 30.0
    surroundings_patience_s: Seconds = 30.0
    order_submitter_group: Annotated[str, Field(min_length=1)] = "order-submitter"
    fill_processor_group: Annotated[str, Field(min_length=1)] = "fill-processor"

    partitions_interval_s: Seconds = 3600.0
    partitions_days_ahead: Annotated[int, Field(ge=1, le=60)] = 7
    outbox_retention_days: Annotated[int, Field(ge=1, le=3650)] = 7

    # Receipts outlive the records of broker-fill (30 days) and the longest replay (90 days, of its dead letters).
    expiry_interval_s: Seconds = 300.0
    expiry_batch: Budget = 5000
    expiry_batches: Budget = 200
    inbox_retention_days: Annotated[int, Field(ge=121, le=3650)] = 180
    status_history_retention_days: Annotated[int, Field(ge=31, le=3650)] = 400
    parked_records_retention_days: Annotated[int, Field(ge=31, le=3650)] = 180
    incidents_retention_days: Annotated[int, Field(ge=31, le=3650)] = 400

    @model_validator(mode="after")
    def _check_connect_files(self) -> Self:
        check_pem(self, "connect", self.connect_tls)
        return self

    @property
    def connect_tls(self) -> ClientTls:
        """What connections to Connect are made with."""
        return ClientTls(self.connect_ca_path, self.connect_certificate_path, self.connect_key_path)
