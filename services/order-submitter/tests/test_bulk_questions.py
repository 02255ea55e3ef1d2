"""One symbol that spoils a call is found, set apart and remembered; the others have their answers at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from closeflow.broker import BrokerUnavailable, FailureCause
from closeflow.domain.model import AssetType
from order_submitter.market import MOST_CALLS, BulkQuestion, Group

GOOD = [f"G{number:02}" for number in range(60)]
HEDGE_S = 0.1


@dataclass
class Feed:
    """Answers every call but those that `spoil` is in; then it does what `how` says."""

    spoil: frozenset[str] = frozenset()
    how: FailureCause | None = FailureCause.QUESTION
    """None: it never answers."""
    down: FailureCause | None = None
    takes_s: float = 0.0
    calls: list[Group] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)

    async def ask(self, asset_type: AssetType, symbols: Sequence[str]) -> Mapping[str, str]:
        self.calls.append(tuple(symbols))
        await asyncio.sleep(self.takes_s)
        if self.down is not None:
            raise BrokerUnavailable("down", about=self.down)
        if self.spoil & set(symbols):
            if self.how is None:
                await asyncio.get_running_loop().create_future()
            raise BrokerUnavailable("spoiled", about=self.how or FailureCause.UNKNOWN)
        return dict.fromkeys(symbols, "quoted")

    def found(self, found: Mapping[str, str], asked: Group) -> None:
        self.answered |= found.keys()

    def question(self, *, optional: bool = False, first_pause_s: float = 30.0) -> BulkQuestion[str]:
        return BulkQuestion(
            asset_type=AssetType.STOCK,
            ask=self.ask,
            found=self.found,
            hedge_s=HEDGE_S,
            deadline_s=1.0,
            first_pause_s=first_pause_s,
            optional=optional,
        )


async def test_without_trouble_it_is_one_call_for_a_hundred() -> None:
    feed = Feed()
    await feed.question().look([*GOOD, *(f"H{number}" for number in range(60))])
    assert [len(call) for call in feed.calls] == [100, 20]


@pytest.mark.parametrize("how", [FailureCause.QUESTION, FailureCause.UNKNOWN])
async def test_symbols_that_spoil_a_call_are_found_and_asked_about_alone_from_then_on(how: FailureCause) -> None:
    bad = frozenset({"G07x", "G31x", "G58x"})
    feed = Feed(spoil=bad, how=how)
    question = feed.question()
    await question.look([*GOOD, *bad])
    assert feed.answered == set(GOOD)
    assert len(feed.calls) <= MOST_CALLS
    feed.calls.clear()
    await question.look([*GOOD, *bad])
    assert [len(call) for call in feed.calls] == [60], "they are left alone for a while"


async def test_one_that_is_healed_is_among_the_others_again() -> None:
    feed = Feed(spoil=frozenset({"BAD"}))
    question = feed.question(first_pause_s=0.0)
    await question.look([*GOOD, "BAD"])
    feed.spoil = frozenset()
    feed.calls.clear()
    await question.look([*GOOD, "BAD"])
    assert sorted(map(len, feed.calls)) == [1, 60]
    feed.calls.clear()
    await question.look([*GOOD, "BAD"])
    assert [len(call) for call in feed.calls] == [61]


async def test_a_call_that_is_never_answered_holds_up_nobody() -> None:
    feed = Feed(spoil=frozenset({"BAD"}), how=None)
    question = feed.question()
    await question.look(GOOD)
    feed.answered.clear()
    async with asyncio.timeout(10 * HEDGE_S):
        await question.look([*GOOD, "BAD"])
    assert feed.answered == set(GOOD)
    feed.calls.clear()
    await question.look([*GOOD, "BAD"])
    assert "BAD" not in {symbol for call in feed.calls for symbol in call}, "it is being asked about still"
    await question.aclose()


async def test_a_feed_that_is_slow_for_everybody_is_not_asked_symbol_by_symbol() -> None:
    feed = Feed(takes_s=2.5 * HEDGE_S)
    question = feed.question()
    await question.look(GOOD)
    assert len(feed.calls) <= 9
    await asyncio.sleep(5 * HEDGE_S)
    assert feed.answered == set(GOOD), "what comes late is taken all the same"
    feed.calls.clear()
    await question.look(GOOD)
    assert [len(call) for call in feed.calls] == [60], "it is known to take its time"


@pytest.mark.parametrize("down", [FailureCause.UNKNOWN, FailureCause.CALLER])
async def test_a_feed_that_is_down_is_not_blamed_on_symbols(down: FailureCause) -> None:
    feed = Feed(down=down)
    question = feed.question()
    await question.look(GOOD)
    assert len(feed.calls) <= 9
    feed.calls.clear()
    await question.look(GOOD)
    assert [len(call) for call in feed.calls] == [60], "nothing is divided while it is down"
    feed.down = None
    await question.look(GOOD)
    assert feed.answered == set(GOOD)


async def test_many_bad_symbols_do_not_make_a_call_each() -> None:
    feed = Feed(spoil=frozenset(GOOD))
    await feed.question().look(GOOD)
    assert len(feed.calls) == MOST_CALLS


async def test_what_a_broker_does_not_have_at_all_is_not_asked_for_symbol_by_symbol() -> None:
    feed = Feed(down=FailureCause.QUESTION)
    question = feed.question(optional=True)
    for _ in range(3):
        await question.look(GOOD)
    assert len(feed.calls) <= 11
