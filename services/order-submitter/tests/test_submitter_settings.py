"""Settings that cannot work stop the start with one line."""

from __future__ import annotations

import pytest

from closeflow.broker import IdDeduplication
from closeflow.domain.close.ticks import CENT, NICKEL
from closeflow.settings import BadSetting, read
from order_submitter.settings import OrderSubmitterSettings

GIVEN = {
    "ORDER_SUBMITTER_POSTGRES_DSN": "postgresql://u:p@localhost/db",
    "ORDER_SUBMITTER_KAFKA_BOOTSTRAP_SERVERS": "localhost:9092",
    "ORDER_SUBMITTER_BROKER_URL": "http://localhost:8090",
    "ORDER_SUBMITTER_MARKET_DATA_URL": "http://localhost:8090",
    "ORDER_SUBMITTER_BROKER_KEY_ID": "k",
    "ORDER_SUBMITTER_BROKER_SECRET_KEY": "s",
    "ORDER_SUBMITTER_BROKER_ACCOUNT_ID": "main",
}


def test_the_defaults_are_those_of_the_design() -> None:
    settings = read(OrderSubmitterSettings, GIVEN)
    assert (settings.http_deadline_s, settings.lease_s, settings.in_flight) == (5, 30, 64)
    assert (settings.quote_max_age_s, settings.batch_max_records) == (5, 64)
    assert settings.broker_deduplication is IdDeduplication.WHILE_OPEN
    assert (settings.broker_refuses_to_exceed, settings.absence_window_s) == (False, 60)


def test_increments_and_spreads_are_settings() -> None:
    given = {"ORDER_SUBMITTER_PRICE_TICKS": "SPY=cent,XYZ=nickel", "ORDER_SUBMITTER_MAX_SPREAD_BPS_OPTION": "5000"}
    settings = read(OrderSubmitterSettings, GIVEN | given)
    assert settings.price_ticks == {"SPY": CENT, "XYZ": NICKEL}
    assert settings.quote_rules.max_spread_bps == {"stock": 1000, "option": 5000, "crypto": 1000}


BAD = {
    "an unknown class of increments": ({"PRICE_TICKS": "SPY=halves"}, "PRICE_TICKS"),
    "no limit to a spread": ({"MAX_SPREAD_BPS_STOCK": "0"}, "MAX_SPREAD_BPS_STOCK"),
    "a call that outlives its lease": ({"HTTP_DEADLINE_S": "30"}, "HTTP_DEADLINE_S"),
    "a call that outlives its lease if it begins late": ({"HTTP_DEADLINE_S": "29"}, "HTTP_DEADLINE_S"),
    "no sends at all": ({"IN_FLIGHT": "0"}, "IN_FLIGHT"),
    "no rate": ({"RATE_PER_S": "0"}, "RATE_PER_S"),
    "an unknown promise": ({"BROKER_DEDUPLICATION": "perhaps"}, "BROKER_DEDUPLICATION"),
    "a misspelt name": ({"LEASES_S": "30"}, "LEASES_S"),
    "plain HTTP to somewhere else": ({"BROKER_URL": "http://broker.example"}, "BROKER_URL"),
}


@pytest.mark.parametrize(("changes", "named"), BAD.values(), ids=BAD)
def test_an_impossible_setting_is_named(changes: dict[str, str], named: str) -> None:
    environ = GIVEN | {f"ORDER_SUBMITTER_{name}": value for name, value in changes.items()}
    with pytest.raises(BadSetting, match=f"ORDER_SUBMITTER_{named}"):
        read(OrderSubmitterSettings, environ)
