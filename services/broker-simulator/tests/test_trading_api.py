"""REST details that the system relies on: lists, look-ups, refusals, matching, hours, activities."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from broker_simulator.control import AcceptCancel, Behaviour, Control, FillInParts, MarketHours, NeverFill, PositionSpec
from broker_simulator.probe import RestProbe, StreamProbe
from broker_simulator.settings import ActivityIds, Deduplication

OPTION = "AAPL261218C00200000"


@pytest.mark.parametrize(
    ("fields", "status", "code", "words"),
    [
        ({"symbol": ""}, 422, 40010001, "symbol is required"),
        ({"symbol": "not a symbol"}, 422, 42210000, "not found"),
        ({"side": "hold"}, 422, 40010001, "side"),
        ({"qty": "0"}, 422, 40010001, "qty must be > 0"),
        ({"qty": "NaN"}, 422, 40010001, "qty is required"),
        ({"type": "stop"}, 422, 42210000, "not supported"),
        ({"type": "limit"}, 422, 40010001, "limit price"),
        ({"type": "limit", "limit_price": "10.001"}, 422, 42210000, "sub-penny"),
        ({"limit_price": "10"}, 422, 40010001, "must not have"),
        ({"symbol": OPTION, "time_in_force": "gtc"}, 422, 42210000, "time_in_force"),
        ({"symbol": OPTION, "qty": "1.5"}, 422, 42210000, "whole"),
        ({"symbol": "BTC/USD", "qty": "0.1"}, 422, 42210000, "time_in_force"),
        ({"symbol": "NVDA", "qty": "0.5", "time_in_force": "gtc"}, 422, 42210000, "fractional"),
        ({"position_intent": "buy_to_close"}, 422, 40010001, "position_intent"),
        ({"client_order_id": "x" * 129}, 422, 40010001, "128"),
        ({"qty": "121"}, 403, 40310000, r"requested: 121, available: 120"),
        ({"symbol": "MSFT"}, 403, 40310000, r"available: 0"),
        ({"symbol": "TSLA", "side": "buy", "qty": "51"}, 403, 40310000, r"available: 50"),
        ({"symbol": "AAPL", "side": "buy", "position_intent": "buy_to_close"}, 403, 40310000, "available: 0"),
    ],
)
def test_refusals(broker: RestProbe, fields: dict[str, str], status: int, code: int, words: str) -> None:
    body = {"symbol": "AAPL", "qty": "10", "side": "sell", "type": "market", "time_in_force": "day"}
    answer = broker.http.post("/v2/orders", json={**body, "client_order_id": "cf-1", **fields})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert words in answer.json()["message"]


def test_a_body_that_is_no_object_is_refused(broker: RestProbe) -> None:
    assert broker.http.post("/v2/orders", content=b"[1").json()["code"] == 40010000
    assert broker.http.post("/v2/orders", content=b"[1]").status_code == 400


def test_a_query_on_what_changes_something_is_refused(broker: RestProbe) -> None:
    order = broker.post("cf-1").json()
    answers = [
        broker.http.post("/v2/orders", params={"qty": "3"}, json={}),
        broker.http.delete(f"/v2/orders/{order['id']}", params={"dry_run": "true"}),
        broker.http.delete("/v2/orders", params={"symbols": "AAPL"}),
    ]
    assert [answer.status_code for answer in answers] == [422] * 3


def test_open_orders_hold_their_quantity(control: Control, broker: RestProbe) -> None:
    control.script(Behaviour(execution=NeverFill()), count=1)
    held = broker.post("cf-1", qty="100").json()
    assert broker.get("/v2/positions/AAPL")["qty_available"] == "20"
    refusal = broker.post("cf-2", qty="21").json()
    assert (refusal["held_for_orders"], refusal["available"], refusal["existing_qty"]) == ("100", "20", "120")
    broker.http.delete(f"/v2/orders/{held['id']}")
    broker.await_status("cf-1", "canceled")
    assert broker.post("cf-2", qty="21").status_code == 200


def test_an_account_that_may_go_short_holds_closes_to_what_is_held(control: Control, broker: RestProbe) -> None:
    """What says nothing may open; what says that it closes may neither open nor exceed, open orders counted."""
    control.set_capabilities(oversell="refuse_closes")
    sale, cover = "sell_to_close", "buy_to_close"
    control.script(Behaviour(execution=NeverFill()), count=1)
    assert broker.post("cf-rests", qty="100", position_intent=sale).status_code == 200
    more = {
        "than is left": broker.post("cf-1", qty="21", position_intent=sale),
        "than there is": broker.post("cf-2", symbol="MSFT", position_intent=sale),
        "than is short": broker.post("cf-3", symbol="TSLA", side="buy", qty="51", position_intent=cover),
        "where it is long": broker.post("cf-4", side="buy", position_intent=cover),
    }
    assert {why: answer.status_code for why, answer in more.items()} == dict.fromkeys(more, 403)
    assert broker.post("cf-5", qty="20", position_intent=sale).status_code == 200
    assert broker.post("cf-6", symbol="MSFT").status_code == 200
    assert broker.await_status("cf-6", "filled")
    assert control.positions()["MSFT"] == -10


@pytest.mark.parametrize(("mode", "while_open", "afterwards"), [("while_open", 422, 200), ("none", 200, 200)])
def test_deduplication_modes(
    control: Control, broker: RestProbe, mode: Deduplication, while_open: int, afterwards: int
) -> None:
    control.set_capabilities(deduplication=mode)
    control.script(Behaviour(execution=NeverFill()))
    first = broker.post("cf-1").json()
    assert broker.post("cf-1").status_code == while_open
    broker.http.delete(f"/v2/orders/{first['id']}")
    broker.http.delete(f"/v2/orders/{broker.find('cf-1')['id']}")
    broker.await_status("cf-1", "canceled")
    assert broker.post("cf-1").status_code == afterwards
    seen = control.order("cf-1")
    assert seen.accepted == len(seen.orders) >= 2


def test_a_limit_order_fills_at_the_quote_or_rests_until_it_is_crossed(control: Control, broker: RestProbe) -> None:
    control.pin_quote("AAPL", "100.00", "100.10")
    broker.post("cf-through", type="limit", limit_price="99.00")
    assert broker.await_status("cf-through", "filled")["filled_avg_price"] == "100"
    broker.post("cf-rests", type="limit", limit_price="101.00")
    assert broker.await_status("cf-rests", "new")
    control.pin_quote("AAPL", "101.05", "101.15")
    assert broker.await_status("cf-rests", "filled")["filled_avg_price"] == "101.05"


def test_an_immediate_order_that_does_not_cross_is_cancelled(control: Control, broker: RestProbe) -> None:
    control.pin_quote("AAPL", "100.00", "100.10")
    broker.post("cf-1", type="limit", limit_price="101.00", time_in_force="ioc")
    broker.await_status("cf-1", "canceled")


def test_quotes_can_be_old_or_absent(control: Control, broker: RestProbe) -> None:
    control.pin_quote("AAPL", "100", "101", age_s=60)
    control.withhold_quote("TSLA")
    quotes = broker.get("/v2/stocks/quotes/latest", symbols="AAPL,TSLA")["quotes"]
    assert set(quotes) == {"AAPL"}
    assert datetime.now(UTC) - datetime.fromisoformat(quotes["AAPL"]["t"]) > timedelta(seconds=59)


def test_a_limit_off_the_increment_is_refused(control: Control, broker: RestProbe) -> None:
    option = "AAPL261218C00200000"
    control.pin_quote(option, "2.40", "2.45", tick="0.05")
    refusal = broker.post("cf-1", symbol=option, qty="1", type="limit", limit_price="2.41")
    assert (refusal.status_code, refusal.json()["code"]) == (422, 42210000)
    assert "increment" in refusal.json()["message"]
    assert broker.post("cf-2", symbol=option, qty="1", type="limit", limit_price="2.40").status_code == 200


def test_a_closed_market_queues_orders_and_crypto_goes_on(control: Control, broker: RestProbe) -> None:
    control.set_hours(MarketHours(is_open=False))
    assert broker.get("/v2/clock")["is_open"] is False
    broker.post("cf-stock")
    broker.post("cf-crypto", symbol="BTC/USD", qty="0.1", time_in_force="gtc")
    broker.await_status("cf-crypto", "filled")
    broker.await_status("cf-stock", "accepted")
    assert broker.post("cf-option", symbol=OPTION, qty="1").json()["code"] == 42210000
    control.set_hours(MarketHours())
    broker.await_status("cf-stock", "filled")


def test_a_cancel_goes_through_while_the_market_is_closed(control: Control, broker: RestProbe) -> None:
    control.set_hours(MarketHours(is_open=False))
    control.script(Behaviour(execution=FillInParts(parts=2), cancel=AcceptCancel(after_s=0.1)))
    order = broker.post("cf-1").json()
    broker.await_status("cf-1", "accepted")
    broker.http.delete(f"/v2/orders/{order['id']}")
    assert broker.await_status("cf-1", "canceled")["filled_qty"] == "0"


def test_a_quote_that_crosses_while_a_cancel_is_pending_fills(control: Control, broker: RestProbe) -> None:
    control.pin_quote("AAPL", "100.00", "100.10")
    control.script(Behaviour(cancel=AcceptCancel(after_s=None)))
    order = broker.post("cf-1", type="limit", limit_price="101.00").json()
    broker.http.delete(f"/v2/orders/{order['id']}")
    broker.await_status("cf-1", "pending_cancel")
    control.pin_quote("AAPL", "101.00", "101.10")
    broker.await_status("cf-1", "filled")


def test_a_closed_market_opens_at_its_time(control: Control, broker: RestProbe) -> None:
    control.set_hours(MarketHours(is_open=False, next_open=datetime.now(UTC) + timedelta(milliseconds=300)))
    broker.post("cf-1")
    broker.await_status("cf-1", "filled")
    assert broker.get("/v2/clock")["is_open"] is True


def test_lists_are_filtered_by_submission_and_paged_by_it(broker: RestProbe) -> None:
    placed = [broker.post(f"cf-{n}", qty="1").json() for n in range(5)]
    names = [order["client_order_id"] for order in placed]
    everything = broker.get("/v2/orders", status="all")
    assert [order["client_order_id"] for order in everything] == names[::-1]
    later = broker.get("/v2/orders", status="all", after=placed[1]["submitted_at"], direction="asc", limit="2")
    assert [order["client_order_id"] for order in later] == names[2:4]
    early = broker.get("/v2/orders", status="all", until=placed[1]["submitted_at"], direction="asc")
    assert [order["client_order_id"] for order in early] == names[:2]
    assert broker.get("/v2/orders", status="all", symbols="TSLA,MSFT") == []
    assert broker.http.get("/v2/orders", params={"after": "yesterday"}).status_code == 422
    assert broker.http.get("/v2/orders", params={"limit": "501"}).status_code == 422


@pytest.mark.parametrize("ids", ["same", "different"])
@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_activities_page_through_every_fill_once(
    control: Control, broker: RestProbe, listener: StreamProbe, ids: ActivityIds, direction: str
) -> None:
    control.set_capabilities(activity_ids=ids)
    control.script(Behaviour(execution=FillInParts(parts=7)))
    order = broker.post("cf-1").json()
    listener.until("fill")
    streamed = [update["execution_id"] for update in listener.updates if "qty" in update]
    pages, token = [], ""
    while page := broker.get("/v2/account/activities/FILL", page_size="3", direction=direction, page_token=token):
        pages += page
        token = page[-1]["id"]
    pages = pages if direction == "asc" else pages[::-1]
    assert [activity["cum_qty"] for activity in pages] == ["2", "4", "6", "7", "8", "9", "10"]
    assert {activity["order_id"] for activity in pages} == {order["id"]}
    assert ([activity["id"].split("::")[1] for activity in pages] == streamed) == (ids == "same")
    after = broker.get("/v2/account/activities/FILL", after=pages[4]["transaction_time"], direction="asc")
    assert after == pages[5:]


def test_an_activity_keeps_its_id_when_later_ones_are_named_otherwise(
    control: Control, broker: RestProbe, listener: StreamProbe
) -> None:
    control.script(Behaviour(execution=FillInParts(parts=2)))
    control.set_capabilities(activity_ids="different")
    broker.post("cf-1")
    listener.until("fill")
    before = [activity["id"] for activity in broker.get("/v2/account/activities/FILL", direction="asc")]
    control.set_capabilities(activity_ids="same")
    broker.post("cf-2", symbol="MSFT", side="buy")
    listener.until("fill", count=2)
    after = [activity["id"] for activity in broker.get("/v2/account/activities/FILL", direction="asc")]
    streamed = [update["execution_id"] for update in listener.updates if "qty" in update]
    assert after[:2] == before
    assert [name.split("::")[1] for name in after[2:]] == streamed[2:]
    assert not {name.split("::")[1] for name in before} & set(streamed)


def test_positions_can_be_set_while_running(control: Control, broker: RestProbe) -> None:
    control.set_positions([PositionSpec(symbol="MSFT", asset_type="stock", quantity=Decimal(7))])
    assert control.positions() == {"MSFT": 7}
    header = "account_id,symbol,asset_type,quantity,multiplier,currency\n"
    control.import_positions(f"{header}A,IBM,stock,-3,1,USD\nB,IBM,stock,-4,1,USD\n")
    assert control.positions() == {"IBM": -7}
    broker.post("cf-1", symbol="IBM", side="buy", qty="7")
    broker.await_status("cf-1", "filled")
    assert control.positions() == {}
    assert broker.http.get("/v2/positions/IBM").status_code == 404


def test_what_is_not_there_is_said_in_alpacas_shape(broker: RestProbe) -> None:
    assert broker.http.get("/v2/watchlists").json()["code"] == 40410000
    assert broker.http.delete("/v2/positions/AAPL").status_code == 422
    assert broker.http.get("/v2/account/activities/DIV").json()["code"] == 40010001
    assert broker.http.get("/v2/assets/not-a-symbol").status_code == 404
