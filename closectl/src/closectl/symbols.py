"""How the broker spells a symbol. What a file spells otherwise is rewritten where that is certain, and else refused: a
close in a symbol that the broker does not know, or knows as something else, ends nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Final

from closeflow.domain.model import AssetType

_OCC: Final = re.compile(r"(?:O:)?([A-Z][A-Z0-9]{0,5}?) *([0-9]{6})([CP])([0-9]{8})")
"""Root, padded to six in files of the OCC (Options Symbology Initiative), yymmdd, call or put, strike × 1000."""
_SHARE: Final = re.compile(r"[A-Z]{1,5}(\.(?!US$)[A-Z]{1,3})?")
_SHARE_CLASS: Final = re.compile(r"([A-Z]{1,5})(?: +|[/-])([A-Z])")
_SHARE_OF: Final = re.compile(r"\$?([A-Z]{1,5})(?:[ .]US(?: EQUITY)?)?")
_PAIR: Final = re.compile(r"([A-Z0-9]{2,10})[-/_ ]([A-Z]{3,5})")
_QUOTED_IN: Final = ("USDT", "USDC", "USD", "BTC")
_COIN: Final = re.compile(r"(?!USD$)[A-Z0-9]{2,6}")
_COMPACT: Final = re.compile(r"[-.]?([A-Z]{1,5}[0-9]?)([0-9]{6})([CP])([0-9]{1,5}(?:\.[0-9]{1,3})?)")
_RIGHT: Final = r"(C|P|CALL|PUT)"
_STRIKE: Final = r"\$?([0-9]{1,5}(?:\.[0-9]{1,3})?)"
_WORDS: Final = re.compile(rf"([A-Z]{{1,5}}) +(.{{6,12}}?) +(?:{_RIGHT} *{_STRIKE}|{_STRIKE} *{_RIGHT})")
_DAYS: Final = ("%m/%d/%y", "%m/%d/%Y", "%Y-%m-%d", "%d%b%y", "%b %d %Y", "%b %d, %Y", "%d %b %y", "%d %b %Y")
_HOW: Final[Mapping[AssetType, str]] = {
    AssetType.STOCK: "a share's symbol, which is written as AAPL or BRK.B",
    AssetType.OPTION: "an option's symbol, which is written as AAPL270119C00150000",
    AssetType.CRYPTO: "a pair's symbol, which is written as BTC/USD",
}


def canonical(asset_type: AssetType, spelled: str) -> str:
    """The symbol as the broker writes it; raises ValueError with what is wrong, and what may be meant."""
    text = spelled.upper()
    option = _OCC.fullmatch(text)
    if option is not None and asset_type is not AssetType.OPTION:
        raise ValueError("is an option's symbol; its asset_type is option")
    match asset_type:
        case AssetType.STOCK:
            found = _share(spelled)
        case AssetType.OPTION:
            found = None if option is None else _contract(option)
        case AssetType.CRYPTO:
            found = _pair(text)
    if found is not None:
        return found
    meant = _suggestion(asset_type, text)
    raise ValueError(f"is not {_HOW[asset_type]}" + (f"; is it {meant}?" if meant else ""))


def option_root(symbol: str) -> str:
    """Of an option's canonical symbol. One that ends with a digit is of an adjusted contract."""
    return symbol[:-15]


def spellings(asset_type: AssetType, symbol: str) -> frozenset[str]:
    """The spellings of a canonical symbol that lead to it: as one of them a position may be here already."""
    found = {symbol}
    match asset_type:
        case AssetType.OPTION:
            root, rest = option_root(symbol), symbol[-15:]
            found |= {root.ljust(6) + rest, f"{root} {rest}", f"O:{symbol}"}
        case AssetType.STOCK if re.search(r"\.[A-Z]$", symbol):
            found |= {symbol.replace(".", separator) for separator in " /-"}
        case AssetType.CRYPTO:
            found |= {symbol.replace("/", separator) for separator in ("", "-", "_", " ")}
        case _:
            pass
    return frozenset(found | {one.lower() for one in found})


def _share(spelled: str) -> str | None:
    text = spelled.upper()
    if not spelled.isascii():  # Upper case makes SS of ß.
        return None
    if _SHARE.fullmatch(text) is None and _SHARE_CLASS.fullmatch(text) is None:
        if _pair(text) is not None:
            raise ValueError("is a pair's symbol; its asset_type is crypto")
        return None
    if text != spelled and not spelled.islower():  # BACpL is a preferred share of BAC, and no BACPL.
        raise ValueError("has upper and lower case; a share is written as AAPL or BRK.B")
    of_class = _SHARE_CLASS.fullmatch(text)
    return text if of_class is None else f"{of_class[1]}.{of_class[2]}"


def _contract(option: re.Match[str]) -> str:
    root, day, right, strike = option.groups()
    if _day(day, "%y%m%d") is None:
        raise ValueError(f"has no such day as {day}")
    if int(strike) == 0:
        raise ValueError("has a strike of 0")
    return f"{root}{day}{right}{strike}"


def _pair(text: str) -> str | None:
    written = _PAIR.fullmatch(text)
    if written is not None:
        return _of_two(written[1], written[2])
    for currency in _QUOTED_IN:
        coin = text.removesuffix(currency)
        if coin != text and re.fullmatch(r"[A-Z0-9]{3,10}", coin):  # PYUSD and CBBTC are coins themselves.
            return _of_two(coin, currency)
    return None


def _of_two(coin: str, currency: str) -> str:
    if coin == currency:
        raise ValueError(f"is a pair of {coin} with itself")
    return f"{coin}/{currency}"


def _suggestion(asset_type: AssetType, text: str) -> str | None:
    if asset_type is AssetType.STOCK:
        share = _SHARE_OF.fullmatch(text)
        return None if share is None else share[1]
    if asset_type is AssetType.CRYPTO:
        return f"{text}/USD" if _COIN.fullmatch(text) else None
    compact = _COMPACT.fullmatch(text)
    if compact is not None:
        day = _day(compact[2], "%y%m%d")
        return None if day is None else _occ(compact[1], day, compact[3], compact[4])
    words = _WORDS.fullmatch(text)
    day = None if words is None else next(filter(None, (_day(words[2], form) for form in _DAYS)), None)
    if words is None or day is None:
        return None
    return _occ(words[1], day, words[3] or words[6], words[4] or words[5])


def _occ(root: str, day: date, right: str, strike: str) -> str:
    return f"{root}{day:%y%m%d}{right[0]}{int(Decimal(strike) * 1000):08d}"


def _day(text: str, form: str) -> date | None:
    try:
        return datetime.strptime(text, form).date()  # noqa: DTZ007
    except ValueError:
        return None
