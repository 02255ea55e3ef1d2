"""Which scripted behaviour the next order gets."""

from dataclasses import dataclass

from .behaviour import ORDINARY, Behaviour, Match, Rule
from .store import Store


@dataclass(slots=True)
class ActiveRule:
    """A rule of the script; the next `remaining` orders that fit get it, None for all."""

    id: int
    rule: Rule
    remaining: int | None


class RuleBook:
    """The most specific rule wins: client order id, then prefix (longer first), then symbol, then default.

    Among equals the oldest that has orders left; a used-up rule falls through to the next.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.active = [ActiveRule(rule_id, rule, remaining) for rule_id, remaining, rule in store.rules()]

    def add(self, rule: Rule) -> ActiveRule:
        """Keep the rule, behind those that are there."""
        with self._store.transaction():
            active = ActiveRule(self._store.add_rule(rule), rule, rule.count)
        self.active.append(active)
        return active

    def clear(self) -> None:
        """Forget them all."""
        with self._store.transaction():
            self._store.clear_rules()
        self.active = []

    def take(self, client_order_id: str, symbol: str) -> Behaviour:
        """The behaviour of this order, counted; call inside the transaction that records the order."""
        candidates = [
            (_weight(active.rule.match), -active.id, active)
            for active in self.active
            if active.remaining != 0 and _matches(active.rule.match, client_order_id, symbol)
        ]
        if not candidates:
            return ORDINARY
        chosen = max(candidates)[2]
        if chosen.remaining is not None:
            chosen.remaining -= 1
            self._store.set_rule_remaining(chosen.id, chosen.remaining)
        return chosen.rule.behaviour


def _matches(match: Match, client_order_id: str, symbol: str) -> bool:
    if match.client_order_id is not None:
        return match.client_order_id == client_order_id
    if match.client_order_id_prefix is not None:
        return client_order_id.startswith(match.client_order_id_prefix)
    return match.symbol is None or match.symbol == symbol


def _weight(match: Match) -> tuple[int, int]:
    if match.client_order_id is not None:
        return 3, 0
    if match.client_order_id_prefix is not None:
        return 2, len(match.client_order_id_prefix)
    return (0 if match.symbol is None else 1), 0
