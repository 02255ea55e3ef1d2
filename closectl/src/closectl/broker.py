"""The broker of the settings, made in the one place of closectl that names an adapter."""

from __future__ import annotations

from dataclasses import dataclass

from closeflow.broker.alpaca import AlpacaBroker
from closeflow.broker.protocol import Broker
from closeflow.tls import SYSTEM_AUTHORITIES, ClientTls


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Where and as whom to ask the broker."""

    url: str
    key_id: str
    secret_key: str
    account_id: str
    broker: str
    tls: ClientTls = SYSTEM_AUTHORITIES


def make_broker(account: Account) -> Broker:
    """Whoever asks for it closes it."""
    return AlpacaBroker(
        base_url=account.url,
        market_data_url=account.url,
        key_id=account.key_id,
        secret_key=account.secret_key,
        account_id=account.account_id,
        name=account.broker,
        tls=account.tls,
    )
