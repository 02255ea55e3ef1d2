"""Ids as pure functions of what they name."""

from __future__ import annotations

from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeflow.domain.ids import (
    NAMESPACE,
    broker_update_id,
    client_order_id,
    correction_event_id,
    execution_event_id,
    parse_client_order_id,
    position_event_id,
    reversal_event_id,
    submit_event_id,
)

from .builders import OTHER_ID, REQUEST_ID


@given(st.uuids(), st.integers(1, 999_999))
def test_a_client_order_id_can_be_parsed_back_without_a_database(request_id: UUID, attempt: int) -> None:
    text = client_order_id(request_id, attempt)
    assert parse_client_order_id(text) == (request_id, attempt)
    assert len(text) <= 42


@pytest.mark.parametrize(
    "text",
    [
        "",
        "my-own-id",
        REQUEST_ID.hex,
        f"cf-{REQUEST_ID.hex}",
        f"cf-{REQUEST_ID.hex}-0",
        f"cf-{REQUEST_ID.hex}-01",
        f"cf-{REQUEST_ID.hex}-1000000",
        f"cf-{REQUEST_ID.hex}--1",
        f"cf-{REQUEST_ID}-1",
        f"cf-{REQUEST_ID.hex.upper()}-1",
        f"cf-{REQUEST_ID.hex}-1\n",
        f"cf-{REQUEST_ID.hex}-١",
        f" cf-{REQUEST_ID.hex}-1",
    ],
)
def test_somebody_elses_id_is_not_taken_for_ours(text: str) -> None:
    assert parse_client_order_id(text) is None


def test_an_events_id_is_the_uuid5_of_its_name() -> None:
    assert position_event_id(41, 2) == uuid5(NAMESPACE, "position/41/2")
    assert execution_event_id("b", "ä", "e") == uuid5(NAMESPACE, "execution/b/ä/e")
    assert position_event_id(41, 2).version == 5


def test_ids_of_different_things_differ_and_the_same_thing_has_one() -> None:
    def ids() -> list[object]:
        return [
            submit_event_id(REQUEST_ID, 1),
            submit_event_id(REQUEST_ID, 2),
            submit_event_id(OTHER_ID, 1),
            position_event_id(41, 1),
            position_event_id(41, 2),
            position_event_id(4, 11),
            execution_event_id("alpaca", "PA1", "e"),
            execution_event_id("alpaca", "PA2", "e"),
            execution_event_id("other", "PA1", "e"),
            reversal_event_id("alpaca", "PA1", "e", "f"),
            reversal_event_id("alpaca", "PA1", "e", "g"),
            correction_event_id("alpaca", "PA1", "e", "f"),
            correction_event_id("alpaca", "PA1", "e", "g"),
            broker_update_id("alpaca", "PA1", "order", None),
            broker_update_id("alpaca", "PA1", "order", 1),
        ]

    assert ids() == ids()
    assert len(set(ids())) == len(ids())
