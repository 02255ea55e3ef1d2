"""ORDER_SUBMITTER_* environment variables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import SettingsConfigDict

from closeflow.broker import IdDeduplication
from closeflow.domain.close.quotes import MAX_SPREAD_BPS, STANDING_QUOTE_MAX_AGE_S, QuoteRules
from closeflow.domain.close.ticks import Grid, read_grids
from closeflow.domain.model import AssetType
from closeflow.domain.sending.absence import NOT_FOUND_WINDOW_S
from closeflow.domain.sending.claim import fence_s
from closeflow.settings import BrokerSettings, HttpUrl, KafkaSettings, PostgresSettings, RetrySettings


def _grids(value: object) -> object:
    return read_grids(value) if isinstance(value, str) else value


class OrderSubmitterSettings(BrokerSettings, KafkaSettings, PostgresSettings, RetrySettings):
    """`broker_account_id` is our name of the account whose keys these are. `broker_deduplication` is how long the
    broker is proven to refuse a repeated client order id: with `forever` an id is sent again when it was not found.
    `broker_refuses_to_exceed` is whether the broker is proven to refuse an order that says it closes and would open or
    exceed a position: then every order says so, and one for the whole position is sent again when all evidence agrees
    that the broker does not have it, which takes at least `absence_window_s`.

    `hand_over_folder` is where each process says which orders it handed to the network; the processes of one host share
    it, so that the next one knows of a killed one's orders which of them cannot have left.

    `lease_s` is how long a send belongs to its sender; a call to the broker ends within `http_deadline_s`.
    """

    model_config = SettingsConfigDict(env_prefix="ORDER_SUBMITTER_", frozen=True, extra="forbid")

    market_data_url: HttpUrl
    broker_account_id: Annotated[str, Field(min_length=1, max_length=128)]
    broker_deduplication: IdDeduplication = IdDeduplication.WHILE_OPEN
    broker_visibility_lag_s: Annotated[float, Field(ge=0, le=600)] = 5.0
    broker_refuses_to_exceed: bool = False
    absence_window_s: Annotated[float, Field(ge=1, le=86_400)] = NOT_FOUND_WINDOW_S

    hand_over_folder: Path = Path("/tmp/closeflow-order-submitter")
    consumer_group: str = "order-submitter"
    batch_max_records: Annotated[int, Field(ge=1, le=1024)] = 64
    # Planning, attending, keeping, beginnings and answers have one connection each at most, look-ups two.
    postgres_pool_size: Annotated[int, Field(ge=7, le=64)] = 7

    in_flight: Annotated[int, Field(ge=1, le=1024)] = 64
    rate_per_s: Annotated[float, Field(gt=0, le=10_000)] = 100.0
    lease_s: Annotated[float, Field(ge=0.5, le=600)] = 30.0
    http_deadline_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    poll_interval_s: Annotated[float, Field(gt=0, le=10)] = 0.2
    watch_interval_s: Annotated[float, Field(gt=0, le=10)] = 1.0
    request_visible_within_s: Annotated[float, Field(gt=0, le=20)] = 5.0

    quote_max_age_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    # How far bid, ask and last trade may lie apart; what is wider is a stub and no quote.
    max_spread_bps_stock: Annotated[int, Field(ge=1, le=20_000)] = MAX_SPREAD_BPS[AssetType.STOCK]
    max_spread_bps_option: Annotated[int, Field(ge=1, le=20_000)] = MAX_SPREAD_BPS[AssetType.OPTION]
    max_spread_bps_crypto: Annotated[int, Field(ge=1, le=20_000)] = MAX_SPREAD_BPS[AssetType.CRYPTO]
    last_trade_max_age_s: Annotated[float, Field(ge=0, le=86_400)] = 300.0
    price_ticks: Annotated[Mapping[str, Grid], BeforeValidator(_grids)] = {}
    """By symbol or option root, such as `SPY=cent,XYZ=nickel,BTC/USD=1`; all others have those of their asset type."""
    # Of a quote that was asked for again and is the newest there is, while its market is open.
    standing_quote_stock_s: Annotated[float, Field(gt=0, le=86_400)] = STANDING_QUOTE_MAX_AGE_S[AssetType.STOCK]
    standing_quote_option_s: Annotated[float, Field(gt=0, le=86_400)] = STANDING_QUOTE_MAX_AGE_S[AssetType.OPTION]
    standing_quote_crypto_s: Annotated[float, Field(gt=0, le=86_400)] = STANDING_QUOTE_MAX_AGE_S[AssetType.CRYPTO]
    quote_reuse_s: Annotated[float, Field(ge=0, le=5)] = 0.5
    clock_reuse_s: Annotated[float, Field(ge=0, le=60)] = 1.0
    deferral_s: Annotated[float, Field(gt=0, le=600)] = 1.0
    halt_deferral_s: Annotated[float, Field(gt=0, le=600)] = 5.0

    breaker_failures: Annotated[int, Field(ge=1, le=1000)] = 5
    breaker_refusals: Annotated[int, Field(ge=1, le=1000)] = 10
    breaker_probe_s: Annotated[float, Field(gt=0, le=600)] = 5.0

    @property
    def quote_rules(self) -> QuoteRules:
        """Which quotes are good enough to price an order by."""
        spreads = {
            AssetType.STOCK: self.max_spread_bps_stock,
            AssetType.OPTION: self.max_spread_bps_option,
            AssetType.CRYPTO: self.max_spread_bps_crypto,
        }
        return QuoteRules(max_spread_bps=spreads, last_trade_max_age_s=self.last_trade_max_age_s)

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        most = self.lease_s - fence_s(self.lease_s)
        if self.http_deadline_s >= most:
            raise ValueError(
                f"http_deadline_s: {self.http_deadline_s} must be below {most:g}, which is LEASE_S less the time a "
                "send may wait, so that a call ends before its send is given to another instance"
            )
        return self
