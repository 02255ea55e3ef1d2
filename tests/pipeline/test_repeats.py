"""An order of which nobody knows goes out again without a person only where the broker would refuse a second one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

import pytest

from broker_simulator.control import Behaviour, FillAtOnce, Outage, PositionSpec
from broker_simulator.probe import RestProbe
from broker_simulator.process import SimulatorProcess
from closeflow.domain.ids import client_order_id
from tests.pipeline.submitting import Bench, open_bench, until

if TYPE_CHECKING:
    from tests.conftest import Database

SETTINGS: Final = {
    "broker_deduplication": "while_open",
    "broker_refuses_to_exceed": "true",
    "broker_visibility_lag_s": "0.1",
    "absence_window_s": "1",
    "lease_s": "4",
    "http_deadline_s": "2",
}
WITHIN_S: Final = 180.0
_UNANSWERED: Final = """
    UPDATE order_sends s SET answered_at = NULL, answer = NULL, started_at = closeflow_now(),
           lease_until = closeflow_now() + CAST(%(lease)s AS interval)
    FROM orders o WHERE o.client_order_id = s.client_order_id AND o.account_id = %(account)s
      AND s.answer IS DISTINCT FROM 'not_sent' AND s.answer IS DISTINCT FROM 'accepted'
"""


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    settings = {"oversell": "refuse_closes", "deduplication": "while_open"}
    with SimulatorProcess(tmp_path_factory.mktemp("simulator"), settings) as running:
        yield running


@pytest.fixture
async def bench(module_database: Database, simulator: SimulatorProcess, tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(module_database, simulator, tmp_path) as made:
        made.control.reset()
        yield made


def hold(bench: Bench, held: Sequence[tuple[UUID, int]]) -> None:
    """What the broker holds in the symbols of these requests."""
    bench.control.set_positions(
        PositionSpec(symbol=bench.request(one)["symbol"], asset_type="stock", quantity=Decimal(quantity))
        for one, quantity in held
    )


async def send_and_die(bench: Bench, requests: Sequence[UUID], **settings: str) -> None:
    """A sender that is killed before it hears what became of its sends, of which the broker keeps none that is not
    scripted."""
    with bench.submitter(**{**SETTINGS, **settings}) as doomed:
        for _ in range(5):  # Where a quote came too late on a busy machine, a close is asked for again.
            await bench.ask(*(one for one in requests if not bench.orders(one)))
            with suppress(AssertionError):
                await until(lambda: all(posts(bench, one) == 1 for one in requests), "all have left", within_s=12)
                break
        assert [posts(bench, one) for one in requests] == [1] * len(requests)
        doomed.kill()
        doomed.wait()
    bench.control.clear_outages()
    bench.execute(_UNANSWERED, account=bench.account_id, lease="1 h")


@asynccontextmanager
async def next_sender(bench: Bench) -> AsyncIterator[None]:
    """Another sender, from the moment at which it runs and the leases of the one before are about to be over."""
    with bench.submitter(**SETTINGS) as process:
        runs = partial(bench.query, "SELECT FROM senders WHERE instance_id LIKE %(name)s", name=f"%-{process.pid}-%")
        await until_seen(bench, lambda: runs() != [], "it runs")
        bench.execute(_UNANSWERED, account=bench.account_id, lease="1 s")
        yield


async def until_seen(bench: Bench, condition: Callable[[], bool], what: str) -> None:
    """Wait for it. The broker is asked about an order ever more rarely; here as often as somebody looks."""

    def looked() -> bool:
        bench.execute("UPDATE orders SET next_send_at = now() WHERE account_id = %(id)s", id=bench.account_id)
        return condition()

    await until(looked, what, within_s=WITHIN_S)


def posts(bench: Bench, request_id: UUID) -> int:
    return bench.control.order(client_order_id(request_id, 1)).posts_received


def told(bench: Bench, request_id: UUID) -> str:
    """The text of the open incident that a person gets about the order; empty while there is none."""
    rows = bench.query(
        "SELECT detail ->> 'text' AS text FROM incidents WHERE kind = 'order_not_found' AND closed_at IS NULL"
        " AND client_order_id = %(id)s",
        id=client_order_id(request_id, 1),
    )
    return rows[0]["text"] if rows else ""


async def test_a_close_of_all_that_is_held_goes_out_again_and_no_other_does(bench: Bench) -> None:
    whole, part, differs = bench.add_request(10), bench.add_request(10, target=4), bench.add_request(10)
    hold(bench, [(whole, 10), (part, 10), (differs, 9)])
    bench.control.outage(Outage(kind="reset", method="POST", path_prefix="/v2/orders"))
    await send_and_die(bench, [whole, part, differs])
    async with next_sender(bench):
        await until_seen(bench, lambda: bench.sends(whole)[-1] == "accepted", "it is sent again")
        await until_seen(bench, lambda: all(told(bench, one) for one in (part, differs)), "people are told")
    seen = bench.control.order(client_order_id(whole, 1))
    assert (seen.posts_received, seen.accepted, len(set(seen.bodies))) == (2, 1, 1)
    assert json.loads(seen.bodies[0])["position_intent"] == "sell_to_close"
    assert [posts(bench, one) for one in (part, differs)] == [1, 1]
    assert told(bench, whole) == ""
    assert "not sent again, because of whole position: it is to sell 4; held: 10" in told(bench, part)
    assert "because of position: the broker holds 9" in told(bench, differs)


async def test_a_sender_elsewhere_is_for_a_person_to_confirm(bench: Bench) -> None:
    whole = bench.add_request(10)
    hold(bench, [(whole, 10)])
    bench.control.outage(Outage(kind="reset", method="POST", path_prefix="/v2/orders"))
    await send_and_die(bench, [whole])
    bench.execute("UPDATE senders SET runs_in = 'another container'")
    async with next_sender(bench):
        await until_seen(bench, lambda: "closectl senders exited" in told(bench, whole), "a person is told")
        assert posts(bench, whole) == 1
        bench.execute("UPDATE senders SET exited_at = closeflow_now() WHERE runs_in = 'another container'")
        await until_seen(bench, lambda: bench.sends(whole)[-1] == "accepted", "then it is sent again")
    assert bench.control.order(client_order_id(whole, 1)).accepted == 1


async def test_what_was_sent_without_saying_that_it_closes_is_not_sent_again(bench: Bench) -> None:
    """The setting came after the send: that one could still open a position."""
    whole = bench.add_request(10)
    hold(bench, [(whole, 10)])
    bench.control.outage(Outage(kind="reset", method="POST", path_prefix="/v2/orders"))
    await send_and_die(bench, [whole], broker_refuses_to_exceed="false")
    async with next_sender(bench):
        await until_seen(bench, lambda: "refuses to exceed" in told(bench, whole), "a person is told")
    assert posts(bench, whole) == 1


async def test_a_send_that_comes_after_all_is_refused_by_the_broker(bench: Bench) -> None:
    """Longer in transit than is assumed: the evidence was wrong, and nothing is sold twice."""
    whole = bench.add_request(10)
    hold(bench, [(whole, 10)])
    bench.control.outage(Outage(kind="reset", method="POST", path_prefix="/v2/orders"))
    await send_and_die(bench, [whole])
    bench.control.script(Behaviour(execution=FillAtOnce()))
    async with next_sender(bench):
        await until_seen(bench, lambda: bench.sends(whole)[-1] == "accepted", "it is sent again")
    broker, first = RestProbe(bench.simulator), bench.control.order(client_order_id(whole, 1)).bodies[0]
    await until(lambda: broker.find(client_order_id(whole, 1))["status"] == "filled", "it is sold")
    assert broker.http.post("/v2/orders", content=first).status_code == 403
    assert bench.control.order(client_order_id(whole, 1)).accepted == 1
    assert bench.control.positions() == {}


def handed_over_lines(folder: Path) -> list[str]:
    return [line for file in folder.glob("*") for line in file.read_text().splitlines()]


def forget_hand_over(folder: Path, name: str) -> None:
    [file] = folder.glob("*")
    file.write_text("".join(f"{line}\n" for line in file.read_text().splitlines() if name not in line))


async def test_a_begun_claim_of_a_dead_sender_goes_out_at_once_if_it_was_not_handed_over(
    bench: Bench, tmp_path: Path
) -> None:
    folder = tmp_path / "handed over"
    settings = {"broker_deduplication": "none", "hand_over_folder": str(folder), "lease_s": "600"}
    bench.control.outage(Outage(kind="black_hole", method="POST", path_prefix="/v2/orders"))
    kept, handed_over = bench.add_request(), bench.add_request()
    with bench.submitter(**settings) as first:
        await bench.ask(kept, handed_over)
        await bench.until(lambda: len(handed_over_lines(folder)) == 3, "both are handed over")
        first.kill()
    bench.control.clear_outages()
    forget_hand_over(folder, client_order_id(kept, 1))
    with bench.submitter(**settings):
        await bench.until(lambda: bench.sends(kept) == ["not_sent", "accepted"], "it is sent", within_s=60)
    assert bench.sends(handed_over) == [None]
