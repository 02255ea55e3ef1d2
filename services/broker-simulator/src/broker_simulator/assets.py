"""What a symbol is: its class, its id, its tick and lot, and Alpaca's JSON of it."""

import re
from decimal import Decimal
from typing import Final, Literal
from uuid import NAMESPACE_DNS, uuid5

AssetClass = Literal["us_equity", "us_option", "crypto"]
AssetType = Literal["stock", "option", "crypto"]

CLASS_OF_TYPE: Final[dict[AssetType, AssetClass]] = {"stock": "us_equity", "option": "us_option", "crypto": "crypto"}
MULTIPLIER: Final[dict[AssetClass, Decimal]] = {
    "us_equity": Decimal(1),
    "us_option": Decimal(100),
    "crypto": Decimal(1),
}

_OCC = re.compile(r"[A-Z]{1,6}\d{6}[CP]\d{8}")
_STOCK = re.compile(r"[A-Z]{1,5}(\.[A-Z]{1,2})?")
_CRYPTO = re.compile(r"[A-Z0-9]{2,10}/[A-Z]{3,5}")
_NAMESPACE = uuid5(NAMESPACE_DNS, "broker-simulator")


def class_of(symbol: str) -> AssetClass | None:
    """By the symbol's form: OCC is an option, BASE/QUOTE is crypto, up to five letters is a stock; else None."""
    if _OCC.fullmatch(symbol):
        return "us_option"
    if _CRYPTO.fullmatch(symbol):
        return "crypto"
    if _STOCK.fullmatch(symbol):
        return "us_equity"
    return None


def asset_id(symbol: str) -> str:
    """Computed from the symbol, so that it is the same after a restart."""
    return str(uuid5(_NAMESPACE, symbol))


def account_uuid(name: str) -> str:
    """Computed from the account's name, so that it is the same after a restart."""
    return str(uuid5(_NAMESPACE, f"account:{name}"))


def tick_of(asset_class: AssetClass, price: Decimal) -> Decimal:
    """The smallest price step: a cent for options and stocks from 1 USD on, else a hundredth of that."""
    match asset_class:
        case "us_equity":
            return Decimal("0.01") if price >= 1 else Decimal("0.0001")
        case "us_option":
            return Decimal("0.01")
        case "crypto":
            return Decimal("0.01") if price >= 1 else Decimal("0.000001")


def asset_json(symbol: str, asset_class: AssetClass) -> dict[str, object]:
    """The symbol as `GET /v2/assets` shows it: always active and tradable."""
    fractional = asset_class != "us_option"
    return {
        "id": asset_id(symbol),
        "class": asset_class,
        "exchange": "CRYPTO" if asset_class == "crypto" else "NASDAQ",
        "symbol": symbol,
        "name": symbol,
        "status": "active",
        "tradable": True,
        "marginable": asset_class == "us_equity",
        "shortable": asset_class == "us_equity",
        "easy_to_borrow": asset_class == "us_equity",
        "fractionable": fractional,
        "attributes": [],
    }
