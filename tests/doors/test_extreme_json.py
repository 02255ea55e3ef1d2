"""JSON at the edge of what its parsers take: refused by name and in no time, whatever it is put into."""

from __future__ import annotations

import threading
import time

import httpx
import pytest

from .conftest import Desk, Running

KEY = {"Idempotency-Key": "edge"}
NOWHERE = "01900000-0000-7000-8000-000000000000"


@pytest.mark.parametrize("field", ["quantity", "percentage", "limit_price", "expected_quantity", "max_slippage_bps"])
@pytest.mark.parametrize("number", ["1e1000000", "-1e1000000", "0e1000000", "1e-1000000"])
def test_a_number_of_any_size_is_a_field_error(rest: httpx.Client, desk: Desk, field: str, number: str) -> None:
    (position,) = desk.open_positions(1)
    answer = rest.post(f"/v1/positions/{position}/close", content=f'{{"{field}": {number}}}', headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_fields")
    assert [one["field"] for one in answer.json()["fields"]] == [field]
    assert desk.requests() == 0


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/v1/positions/{position}/close", r'{"\ud800": 1}'),
        ("/v1/positions/{position}/close", r'{"reason": "\udc00"}'),
        ("/v1/positions:batchClose", r'{"\ud800": []}'),
        ("/v1/positions:batchClose", r'{"closes": [{"position_id": {position}}, {"idempotency_key": "\udfff"}]}'),
        (f"/v1/close-requests/{NOWHERE}/cancel", r'{"\ud800": "a"}'),
        ("/v1/operator/positions/{position}/adjust", r'{"reason": "a", "delta": 1, "\uD8AB": 1}'),
    ],
)
def test_half_of_a_surrogate_pair_is_no_text(rest: httpx.Client, desk: Desk, path: str, content: str) -> None:
    position = str(desk.open_positions(1)[0])
    filled = content.replace("{position}", position)
    answer = rest.post(path.replace("{position}", position), content=filled, headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")
    assert desk.requests() == 0


def test_a_pair_of_surrogates_is_one_character(rest: httpx.Client, desk: Desk) -> None:
    (position,) = desk.open_positions(1)
    content = r'{"reason": "\ud83d\ude00 \\ud800"}'
    assert rest.post(f"/v1/positions/{position}/close", content=content, headers=KEY).status_code == 201


def test_an_id_of_very_many_digits_holds_up_nobody(rest: httpx.Client, api: Running) -> None:
    answers: list[httpx.Response] = []

    def send(digits: int) -> None:
        content = f'{{"closes": [{{"position_id": {"1" * digits}}}]}}'
        answers.append(httpx.post(f"{api.url}/v1/positions:batchClose", content=content, headers=sent, timeout=60))

    sent = {**rest.headers, **KEY}
    began = time.monotonic()
    senders = [threading.Thread(target=send, args=(digits,)) for digits in (300_000, 1_000_001)]
    for one in senders:
        one.start()
    for one in senders:
        one.join()
    assert time.monotonic() - began < 2
    assert [one.json()["results"][0]["error"]["code"] for one in answers] == ["invalid_fields"] * 2
    assert [one.json()["results"][0]["position_id"] for one in answers] == [None] * 2
