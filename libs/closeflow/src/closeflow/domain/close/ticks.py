"""Price increments: which prices of an instrument are legal (FIX MinPriceIncrement, tag 969, by price band).

What an instrument's increments are is not in any message, so they come from here, from settings by symbol or option
root, and, after a refusal for the increment, from the coarser grid of the asset type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

from closeflow.domain.model import ZERO, AssetType, Order, Statement
from closeflow.domain.option_symbol import read_option

BAD_INCREMENT: Final = "bad_increment"
"""The reject code of a price that is not on the instrument's grid."""

Grid = tuple[tuple[Decimal, Decimal], ...]
"""From this price on, this tick; highest price first, down to 0."""


def _grid(*bands: tuple[str, str]) -> Grid:
    return tuple((Decimal(start), Decimal(tick)) for start, tick in bands)


CENT: Final = _grid(("0", "0.01"))
"""SPY, QQQ and IWM: a cent at every price."""
PENNY: Final = _grid(("3", "0.05"), ("0", "0.01"))
"""Option classes in the penny interval programme (Cboe Rule 5.4)."""
NICKEL: Final = _grid(("3", "0.10"), ("0", "0.05"))
"""Every other option class: nickels below 3, dimes from 3 on."""

CLASSES: Final[Mapping[str, Grid]] = {"cent": CENT, "penny": PENNY, "nickel": NICKEL}

TICKS: Final[Mapping[AssetType, Grid]] = {
    # SEC Rule 612 (Regulation NMS): whole cents from one dollar on, hundredths of a cent below.
    AssetType.STOCK: _grid(("1", "0.01"), ("0", "0.0001")),
    AssetType.OPTION: PENNY,
    AssetType.CRYPTO: _grid(("1", "0.01"), ("0.001", "0.000001"), ("0", "0.000000001")),
}
"""Where nothing else is known of the instrument."""

COARSER: Final[Mapping[AssetType, Grid]] = {
    AssetType.STOCK: _grid(("1", "0.05"), ("0", "0.01")),
    AssetType.OPTION: NICKEL,
    AssetType.CRYPTO: _grid(
        ("1000", "1"),
        ("10", "0.1"),
        ("1", "0.01"),
        ("0.01", "0.0001"),
        ("0.0001", "0.000001"),
        ("0", "0.00000001"),
    ),
}
"""What is tried once when the broker refuses a price for its increment and does not say which one it wants."""

_LARGEST_SHARE: Final = {
    AssetType.STOCK: Decimal("0.01"),
    AssetType.OPTION: Decimal("0.05"),
    AssetType.CRYPTO: Decimal("0.01"),
}
"""Of a price, that an increment may be which is known from a refusal alone."""

_STATED: Final = re.compile(
    r"(?:increments?|multiples?|ticks?(?: size)?)(?: of| is| must be|:)? ?\$?([0-9]*\.?[0-9]+)"
    r"|\$?([0-9]*\.?[0-9]+) (?:increments?|ticks?)\b",
    re.IGNORECASE,
)
_PLACES: Final = re.compile(r"([0-9]) decimal", re.IGNORECASE)


def refusals_for_increment(orders: Iterable[Order]) -> tuple[Order, ...]:
    """Of one request's orders, oldest first. After the first the coarser grid is tried, after a second nothing is."""
    return tuple(order for order in orders if order.reject_code == BAD_INCREMENT)


def grid_after(grid: Grid, asset_type: AssetType, orders: Iterable[Order]) -> Grid:
    """The grid of the next order of a request, which stays on what its orders so far have taught."""
    refused = refusals_for_increment(orders)
    return coarser_grid(asset_type, refused[0].statements) if refused else grid


def is_doubted(grid: Grid, asset_type: AssetType, price: Decimal) -> bool:
    """Whether a grid that a refusal taught is coarser than any of its asset type is at this price. Its words can be of
    something else, as the lot of a quantity; a price rounded by them would be far from the market."""
    tick = tick_size(grid, price)
    return tick > max(price * _LARGEST_SHARE[asset_type], tick_size(COARSER[asset_type], price))


def grid_of(asset_type: AssetType, symbol: str, known: Mapping[str, Grid]) -> Grid:
    """The grid that is set for the symbol, for an option's root, or else for its asset type."""
    if symbol in known:
        return known[symbol]
    option = read_option(symbol) if asset_type is AssetType.OPTION else None
    return known.get(option.root, TICKS[asset_type]) if option else TICKS[asset_type]


def coarser_grid(asset_type: AssetType, said: Iterable[Statement]) -> Grid:
    """After a refusal for the increment: the one that its words name, else the asset type's coarser one."""
    words = " ".join(one.detail or "" for one in said)
    stated = _STATED.search(words)
    tick = ZERO if stated is None else Decimal(stated[1] or stated[2])
    if tick > ZERO:
        return ((ZERO, tick),)
    places = _PLACES.search(words)
    return ((ZERO, Decimal(1).scaleb(-int(places[1]))),) if places else COARSER[asset_type]


def read_grids(text: str) -> Mapping[str, Grid]:
    """`SPY=cent,XYZ=nickel,BTC/USD=1`: symbols or option roots, each with a class of options or one tick for every
    price. Raises ValueError."""
    grids: dict[str, Grid] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (part.strip() for part in entry.partition("="))
        found = CLASSES.get(value.lower())
        if found is None and re.fullmatch(r"[0-9]{0,9}\.?[0-9]{1,12}", value) and Decimal(value) > ZERO:
            found = ((ZERO, Decimal(value)),)
        if not name or name in grids or found is None:
            raise ValueError(f"{entry!r} must be SYMBOL={'|'.join(CLASSES)} or SYMBOL=tick, each symbol once")
        grids[name] = found
    return grids


def tick_size(grid: Grid, price: Decimal) -> Decimal:
    """The increment at this price; a grid begins at 0, so that there always is one."""
    return next(tick for start, tick in grid if price >= start)


def tick_below(grid: Grid, price: Decimal) -> Decimal:
    """The highest legal price that is not above `price`; 0 when there is none."""
    tick = tick_size(grid, price)
    return (price / tick).to_integral_value(ROUND_FLOOR) * tick


def tick_above(grid: Grid, price: Decimal) -> Decimal:
    """The lowest legal price that is not below `price`."""
    tick = tick_size(grid, price)
    return (price / tick).to_integral_value(ROUND_CEILING) * tick
