"""Alpaca's market data: where it is asked for in bulk, and what its answers hold for each symbol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import structlog

from closeflow.broker.alpaca import parse
from closeflow.domain.model import AssetType

log = structlog.get_logger()

_T = TypeVar("_T")

PATHS: Final = {
    AssetType.STOCK: "/v2/stocks/{}/latest",
    AssetType.OPTION: "/v1beta1/options/{}/latest",
    AssetType.CRYPTO: "/v1beta3/crypto/us/latest/{}",
}


def readable_ones(
    listed: Mapping[str, object], symbols: Sequence[str], read: Callable[[str, parse.Json], _T | None]
) -> Mapping[str, _T]:
    """Each symbol's own; one that cannot be read is absent and costs the others nothing."""
    found: dict[str, _T] = {}
    for symbol in symbols:
        if listed.get(symbol) is None:
            continue
        try:
            one = read(symbol, parse.as_object(listed[symbol], "it"))
        except parse.Malformed as error:
            log.warning("market_data_not_readable", symbol=symbol, reason=str(error))
            continue
        if one is not None:
            found[symbol] = one
    return found
