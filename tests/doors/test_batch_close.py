"""Many closes in one call: each by itself, in order, and again the same."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import httpx
import pytest

from .conftest import FOREIGN, MINE, Desk

KEY: Final = {"Idempotency-Key": "the book of today"}


def batch(rest: httpx.Client, closes: list[Any], **headers: str) -> httpx.Response:
    return rest.post("/v1/positions:batchClose", json={"closes": closes}, headers=KEY | headers)


def wrong_closes(desk: Desk) -> list[tuple[Any, int, str]]:
    """Twenty kinds of items that cannot be accepted: what is sent, and the status and code that it gets."""
    closed, busy, foreign, option, short = (
        desk.open_positions(1)[0],
        desk.open_positions(1)[0],
        desk.open_positions(1, account=FOREIGN)[0],
        desk.open_positions(1, asset_type="option")[0],
        desk.open_positions(1, "-3")[0],
    )
    desk.run("UPDATE positions SET status = 'closed', quantity = 0, closed_at = now() WHERE id = %s", closed)
    zero = desk.open_positions(1, "0")[0]
    desk.run("UPDATE positions SET exposure_unproven = true WHERE id = %s", busy)
    return [
        (None, 400, "malformed_body"),
        ([1], 400, "malformed_body"),
        ({}, 422, "invalid_fields"),
        ({"position_id": 0}, 422, "invalid_fields"),
        ({"position_id": -1}, 422, "invalid_fields"),
        ({"position_id": 2**63}, 422, "invalid_fields"),
        ({"position_id": "1 OR 1=1"}, 422, "invalid_fields"),
        ({"position_id": 1.5}, 422, "invalid_fields"),
        ({"position_id": short, "idempotency_key": ""}, 400, "idempotency_key_missing"),
        ({"position_id": short, "idempotency_key": 7}, 400, "idempotency_key_invalid"),
        ({"position_id": short, "idempotency_key": "ü"}, 400, "idempotency_key_invalid"),
        ({"position_id": short, "quantity": 4}, 422, "invalid_fields"),
        ({"position_id": short, "quantity": 1, "percentage": 1}, 422, "invalid_fields"),
        ({"position_id": short, "qty": 1}, 422, "invalid_fields"),
        ({"position_id": short, "expected_quantity": 3}, 412, "expected_quantity_mismatch"),
        ({"position_id": option, "quantity": 0.5}, 422, "invalid_fields"),
        ({"position_id": closed}, 409, "position_closed"),
        ({"position_id": zero}, 400, "zero_quantity"),
        ({"position_id": busy}, 409, "exposure_unproven"),
        ({"position_id": foreign}, 404, "not_found"),
    ]


def test_of_five_hundred_with_a_hundred_bad_ones_four_hundred_are_accepted_and_again_the_same(
    rest: httpx.Client, desk: Desk
) -> None:
    wrong = wrong_closes(desk) * 5
    good = desk.open_positions(400)
    # Four good ones, then a bad one.
    closes = [wrong[n // 5][0] if n % 5 == 4 else {"position_id": good[n - n // 5], "quantity": 1} for n in range(500)]
    first, again = batch(rest, closes), batch(rest, closes)
    assert (first.status_code, again.status_code) == (200, 200)
    results, repeated = first.json()["results"], again.json()["results"]
    for n, (one, other) in enumerate(zip(results, repeated, strict=True)):
        if n % 5 == 4:
            _, status, code = wrong[n // 5]
            assert (one["status"], one["error"]["code"]) == (status, code), closes[n]
            assert (other["status"], other["error"]["code"]) == (status, code)
            continue
        assert (one["status"], one["replayed"], one["position_id"]) == (201, False, good[n - n // 5])
        assert (other["status"], other["replayed"]) == (200, True)
        assert other["close_request"]["close_request_id"] == one["close_request"]["close_request_id"]
        assert one["close_request"]["target_qty"] == 1
    assert desk.requests() == 400


def test_a_close_with_a_key_of_its_own_replays_outside_of_the_batch(rest: httpx.Client, desk: Desk) -> None:
    (position,) = desk.open_positions(1)
    (result,) = batch(rest, [{"position_id": position, "idempotency_key": "mine"}]).json()["results"]
    alone = rest.post(f"/v1/positions/{position}/close", headers={"Idempotency-Key": "mine"})
    assert (result["idempotency_key"], alone.status_code) == ("mine", 200)
    assert alone.headers["idempotency-replayed"] == "true"
    assert alone.json()["close_request_id"] == result["close_request"]["close_request_id"]


def test_the_second_close_of_a_position_in_a_batch_sees_the_first(rest: httpx.Client, desk: Desk) -> None:
    (position,) = desk.open_positions(1)
    one = {"position_id": position, "idempotency_key": "one"}
    results = batch(rest, [one, one, {"position_id": position, "idempotency_key": "two"}]).json()["results"]
    assert results[2]["error"]["should_retry"] is False
    assert [each["status"] for each in results] == [201, 200, 409]
    active = results[0]["close_request"]["close_request_id"]
    assert results[2]["error"]["active_close_request_id"] == active


def test_a_dry_run_makes_every_check_and_keeps_nothing(rest: httpx.Client, desk: Desk) -> None:
    position, option = desk.open_positions(1, "-8")[0], desk.open_positions(1, asset_type="option")[0]
    asked = {"position_id": position, "percentage": 50, "dry_run": True}
    results = batch(rest, [asked, {"position_id": option, "quantity": 11, "dry_run": True}]).json()["results"]
    assert results[0]["dry_run"]["order"] == {
        "symbol": results[0]["dry_run"]["order"]["symbol"],
        "side": "buy",
        "quantity": 4,
        "order_type": "limit",
        "limit_price": None,
        "time_in_force": "day",
    }
    assert (results[1]["status"], results[1]["error"]["code"]) == (422, "invalid_fields")
    etag = rest.get(f"/v1/positions/{position}").headers["etag"]
    assert etag == f'"{results[0]["dry_run"]["position_version"]}"'
    answer = rest.post(
        f"/v1/positions/{position}/close", headers=KEY, content='{"dry_run": true, "limit_price": 12.50}'
    )
    assert (answer.status_code, answer.json(parse_float=Decimal)["order"]["limit_price"]) == (200, Decimal("12.5"))
    assert desk.requests() == 0


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        ("", 400, "malformed_body"),
        ("[]", 400, "malformed_body"),
        ("{}", 422, "invalid_fields"),
        ('{"closes": []}', 422, "invalid_fields"),
        ('{"closes": {}}', 422, "invalid_fields"),
        ('{"closes": [{"position_id": 1}], "dry_run": true}', 422, "invalid_fields"),
        ('{"closes": [{"position_id": 1}], "closes": []}', 400, "malformed_body"),
        ('{"closes": [' + ",".join(['{"position_id": 1}'] * 501) + "]}", 422, "invalid_fields"),
        ('{"closes": "' + "x" * 1024 * 1024 + '"}', 413, "body_too_large"),
    ],
)
def test_a_batch_that_is_none_is_refused_as_a_whole(
    rest: httpx.Client, desk: Desk, content: str, status: int, code: str
) -> None:
    answer = rest.post("/v1/positions:batchClose", content=content, headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert desk.requests() == 0


def test_a_close_that_was_halted_says_when_to_come_back(rest: httpx.Client, desk: Desk) -> None:
    (position,) = desk.open_positions(1)
    desk.run("INSERT INTO trading_controls (scope, state, reason, by) VALUES (%s, 'halted', 'a test', 'test')", MINE)
    try:
        (result,) = batch(rest, [{"position_id": position}]).json()["results"]
    finally:
        desk.run("DELETE FROM trading_controls WHERE scope = %s", MINE)
    told = result["error"]
    assert (result["status"], told["code"], told["should_retry"], told["retry_after_s"]) == (
        503,
        "trading_halted",
        True,
        30,
    )
