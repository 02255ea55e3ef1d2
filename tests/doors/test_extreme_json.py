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
