"""Faults of the whole REST interface and of the stream."""

import time
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from broker_simulator.control import CallLimit, Control, Outage
from broker_simulator.probe import RestProbe, StreamProbe, await_condition
from broker_simulator.process import SimulatorProcess


@pytest.mark.parametrize(
    ("kind", "status"),
    [("rate_limit", 429), ("unauthorized", 401), ("forbidden", 403), ("server_error", 500), ("html", 502)],
)
def test_an_outage_answers_so_many_requests(control: Control, broker: RestProbe, kind: Any, status: str) -> None:
    control.outage(Outage(kind=kind, requests=2, retry_after_s=1.5))
    answers = [broker.http.get("/v2/clock") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [status, status, 200]
    assert answers[0].headers.get("retry-after") == ("2" if kind == "rate_limit" else None)


def test_an_account_that_takes_no_new_orders_answers_everything_else(control: Control, broker: RestProbe) -> None:
    control.outage(Outage(kind="account_refused"))
    assert broker.get("/v2/clock")["is_open"] is True
    refused = broker.post("cf-1")
    assert (refused.status_code, refused.json()["message"]) == (403, "new orders are rejected by user request")
    assert broker.find("cf-1") is None
    control.clear_outages()
    assert broker.post("cf-1").status_code == 200


@pytest.mark.parametrize(
    ("hint", "header", "seconds"),
    [
        ("seconds", "retry-after", 7),
        ("fraction", "retry-after", 7),
        ("date", "retry-after", 7),
        ("reset", "x-ratelimit-reset", 7),
        ("none", None, None),
        ("zero", "retry-after", 0),
        ("past_date", "retry-after", -3600),
        ("past_reset", "x-ratelimit-reset", -3600),
    ],
)
def test_a_rate_limit_says_when_to_come_again_in_every_form(
    control: Control, broker: RestProbe, hint: Any, header: str | None, seconds: float | None
) -> None:
    control.outage(Outage(kind="rate_limit", requests=1, retry_after_s=7, hint=hint))
    headers = broker.http.get("/v2/clock").headers
    said = {name: headers[name] for name in ("retry-after", "x-ratelimit-reset") if name in headers}
    assert set(said) == ({header} if header else set())
    for text in said.values():
        number = parsedate_to_datetime(text).timestamp() if "GMT" in text else float(text)
        assert (number - time.time() if number > 1e9 else number) == pytest.approx(seconds, abs=2)


def test_calls_to_all_endpoints_share_one_limit(control: Control, broker: RestProbe) -> None:
    control.limit_calls(CallLimit(per_minute=3))
    asked = [broker.http.get(path) for path in ("/v2/clock", "/v2/positions", "/v2/account/activities/FILL")]
    assert [one.status_code for one in asked] == [200, 200, 200]
    refused = broker.http.delete("/v2/orders/nothing")
    assert (refused.status_code, 55 < int(refused.headers["retry-after"]) <= 60) == (429, True)
    assert broker.post("cf-1").status_code == 429
    assert control.order("cf-1").posts[0].outcome == "outage: rate_limit"
    seen = control.calls()
    assert (seen.total, seen.refused) == (5, {"DELETE /v2/orders/{id}": 1, "POST /v2/orders": 1})
    control.limit_calls(None)
    assert broker.http.get("/v2/clock").status_code == 200


def test_a_black_hole_swallows_only_what_it_is_for(control: Control, broker: RestProbe) -> None:
    control.outage(Outage(kind="black_hole", method="POST", path_prefix="/v2/orders"))
    with pytest.raises(httpx.ReadTimeout):
        broker.post("cf-1", timeout_s=0.5)
    assert broker.get("/v2/clock")["is_open"] is True
    control.clear_outages()
    assert broker.find("cf-1") is None
    seen = control.order("cf-1")
    assert (seen.accepted, [post.outcome for post in seen.posts]) == (0, ["outage: black_hole"])


def test_an_answer_is_lost_after_the_order_was_taken(control: Control, broker: RestProbe) -> None:
    control.outage(Outage(kind="black_hole", when="after", method="POST", requests=1))
    with pytest.raises(httpx.ReadTimeout):
        broker.post("cf-1", timeout_s=0.5)
    broker.await_status("cf-1", "filled")


def test_a_black_hole_lets_the_order_through_when_it_is_over(control: Control, broker: RestProbe) -> None:
    control.outage(Outage(kind="black_hole", when="late", for_s=3))
    with pytest.raises(httpx.ReadTimeout):
        broker.post("cf-1", timeout_s=0.5)
    with pytest.raises(httpx.ReadTimeout):
        broker.http.get("/v2/clock", timeout=0.5)
    assert control.order("cf-1").accepted == 0
    broker.await_status("cf-1", "filled")
    assert control.order("cf-1").accepted == 1


@pytest.mark.parametrize("kind", ["reset", "truncated"])
def test_a_connection_breaks(control: Control, broker: RestProbe, kind: Any) -> None:
    control.outage(Outage(kind=kind, requests=1))
    with pytest.raises(httpx.TransportError):
        broker.http.get("/v2/clock")
    assert broker.http.get("/v2/clock").status_code == 200


def test_an_outage_ends_by_itself(control: Control, broker: RestProbe) -> None:
    control.outage(Outage(kind="rate_limit", for_s=3))
    assert broker.http.get("/v2/clock").status_code == 429
    await_condition(lambda: broker.http.get("/v2/clock").is_success, lambda: "the outage goes on")


def test_a_delay_answers_later(control: Control, broker: RestProbe) -> None:
    control.outage(Outage(kind="delay", delay_s=0.2, requests=1))
    assert broker.http.get("/v2/clock").elapsed.total_seconds() >= 0.2
    assert [state.remaining for state in control.outages()] == [0]


def test_wrong_keys_are_refused(broker: RestProbe, simulator: SimulatorProcess) -> None:
    answer = httpx.get(f"{simulator.url}/v2/clock", headers={**simulator.headers, "APCA-API-SECRET-KEY": "wrong"})
    assert (answer.status_code, answer.json()["code"]) == (401, 40110000)
    assert httpx.get(f"{simulator.url}/v2/clock").status_code == 401
    basic = httpx.BasicAuth(simulator.key_id, simulator.secret_key)
    assert httpx.get(f"{simulator.url}/v2/clock", auth=basic).status_code == 200


def test_the_stream_is_dropped_refused_and_does_not_replay(
    control: Control, broker: RestProbe, listener: StreamProbe, simulator: SimulatorProcess
) -> None:
    assert control.drop_stream(refuse_for_s=60) == 1
    with pytest.raises(ConnectionClosed):
        listener.socket.recv(timeout=5)
    broker.post("cf-1")
    broker.await_status("cf-1", "filled")
    with pytest.raises(InvalidStatus):
        connect(simulator.stream_url)
    control.heal_stream()
    with connect(simulator.stream_url) as socket:
        socket.send('{"action": "auth", "key": "simulator", "secret": "simulator-secret"}')
        assert b'"authorized"' in socket.recv(timeout=5)
        socket.send(b'{"action": "listen", "data": {"streams": ["trade_updates"]}}')
        assert b'"listening"' in socket.recv(timeout=5)
        broker.post("cf-2")
        assert b'"cf-2"' in socket.recv(timeout=5)


def test_a_silent_stream_loses_updates(control: Control, broker: RestProbe, listener: StreamProbe) -> None:
    control.silence_stream(60)
    broker.post("cf-1")
    broker.await_status("cf-1", "filled")
    control.heal_stream()
    broker.post("cf-2")
    assert {update["order"]["client_order_id"] for update in listener.until("fill")} == {"cf-2"}


def test_the_stream_wants_keys_and_known_actions(simulator: SimulatorProcess) -> None:
    with connect(simulator.stream_url) as socket:
        socket.send('{"action": "listen", "data": {"streams": ["trade_updates"]}}')
        assert b'"unauthorized"' in socket.recv(timeout=5)
        socket.send('{"action": "authenticate", "data": {"key_id": "simulator", "secret_key": "wrong"}}')
        assert b'"unauthorized"' in socket.recv(timeout=5)
        socket.send("not json")
        assert b"unknown action" in socket.recv(timeout=5)
