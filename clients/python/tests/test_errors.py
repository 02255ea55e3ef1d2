"""A class for each code, and everything that a caller may ask of one."""

from __future__ import annotations

import copy
import pickle
from decimal import Decimal
from uuid import UUID

import pytest

from closeflow_client import CloseflowError, FieldError
from closeflow_client.errors import (
    ExpectedQuantityMismatch,
    Forbidden,
    PositionAlreadyClosing,
    error_of,
)

from .answers import ACTIVE_ID


def test_each_code_has_a_class_of_its_own() -> None:
    classes = CloseflowError.classes
    assert len(set(classes.values())) == len(classes) > 25
    for code, one in classes.items():
        assert type(error_of(code, "why")) is one
        assert (error_of(code, "why").code, one.code) == (code, code)


def test_a_caller_may_derive_from_them() -> None:
    class Ours(CloseflowError):
        """No code of the server."""

    assert (Ours("why").code, type(error_of("unknown", ""))) == ("unknown", CloseflowError)


def test_an_unknown_code_is_the_base_and_keeps_its_code() -> None:
    error = error_of("moon_too_full", "Wait for it to wane.", status=409)
    assert type(error) is CloseflowError
    assert (error.code, error.status) == ("moon_too_full", 409)
    assert error_of("not_found", "").code == "not_found"


def test_the_text_says_all_that_is_known() -> None:
    error = error_of(
        "invalid_fields",
        "Some values cannot be used.",
        status=422,
        key="k-1",
        trace_id="abc",
        fields=[FieldError("quantity", "must be greater than 0")],
        outcome_unknown=True,
    )
    assert str(error) == (
        "invalid_fields: Some values cannot be used; quantity: must be greater than 0; an attempt got no answer and "
        "may have been accepted; the same call with the same key finds out (status 422, key k-1, trace id abc)"
    )


@pytest.mark.parametrize(
    ("code", "members", "text"),
    [
        ("unauthenticated", {"reason": "the token has expired", "trace_id": "abc"}, "Why; the token has expired"),
        ("close_request_finished", {"reasons": ["it is completed", "it is old"]}, "Why; it is completed; it is old"),
        ("close_request_finished", {"reasons": "it is completed"}, "Why; it is completed"),  # As gRPC has it.
        ("forbidden", {"scope": "close:write"}, "Why; scope close:write"),
        ("expected_quantity_mismatch", {"quantity": "10", "version": 4}, "Why; quantity 10; version 4"),
        (
            "position_already_closing",
            {"active_close_request_id": ACTIVE_ID},
            f"Why; active_close_request_id {ACTIVE_ID}",
        ),
    ],
)
def test_the_text_says_what_the_message_points_at(code: str, members: dict[str, object], text: str) -> None:
    assert str(error_of(code, "Why.", members=members)) == f"{code}: {text}"


def test_members_have_their_types() -> None:
    closing = error_of("position_already_closing", "", members={"active_close_request_id": ACTIVE_ID})
    assert isinstance(closing, PositionAlreadyClosing)
    assert closing.active_close_request_id == UUID(ACTIVE_ID)
    changed = error_of("expected_quantity_mismatch", "", members={"quantity": "12.5", "version": 4})
    assert isinstance(changed, ExpectedQuantityMismatch)
    assert (changed.quantity, changed.version) == (Decimal("12.5"), 4)
    lacking = error_of("forbidden", "", members={"scope": "close:write"})
    assert isinstance(lacking, Forbidden)
    assert lacking.scope == "close:write"


@pytest.mark.parametrize(
    "members", [{}, {"active_close_request_id": 5, "quantity": "many", "version": "x", "scope": 1}]
)
def test_members_that_are_not_as_expected_are_none(members: dict[str, object]) -> None:
    closing, changed = PositionAlreadyClosing(members=members), ExpectedQuantityMismatch(members=members)
    assert closing.active_close_request_id is None
    assert (changed.quantity, changed.version, Forbidden(members=members).scope) == (None, None, None)


def test_an_error_survives_pickle_and_copy() -> None:
    """Task queues and process pools hand exceptions on so."""
    error = error_of("rate_limited", "Later.", status=429, key="k", retry_after_s=2.0, members={"a": 1})
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), error.copy()):
        assert type(again) is type(error)
        assert again.__dict__ == error.__dict__
        assert str(again) == str(error)
