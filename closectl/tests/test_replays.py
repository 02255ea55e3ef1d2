"""Which dead letters may go back to their topic."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from closectl.dead_letters import Outcome, Request, _choose
from closeflow.kafka import DlqRecord


def letter(error_class: bytes, key: bytes | None, value: bytes | None) -> DlqRecord:
    return DlqRecord(
        origin="t.v1",
        partition=0,
        offset=0,
        appended_at=datetime(2026, 1, 1, tzinfo=UTC),
        key=key,
        value=value,
        headers=(("dlq_error_class", error_class),),
    )


@pytest.mark.parametrize("value", [None, b""])
def test_a_record_without_bytes_is_not_replayed_and_can_be_discarded(value: bytes | None) -> None:
    lost = letter(b"unreadable_record", None, value)
    outcome = Outcome()
    forced = Request(action="replayed", by="me", reason="again", max_replays=None)
    assert _choose([lost], {}, forced, outcome) == []
    ((refused, why),) = outcome.refused
    assert refused == lost
    assert "nothing to replay" in why
    assert _choose([lost], {}, Request(action="discarded", by="me", reason="told"), Outcome()) == [lost]


@pytest.mark.parametrize(
    "one",
    [
        letter(b"unreadable_record", b"k", b"v"),
        letter(b"unreadable_record", None, b"v"),
        letter(b"null_value", b"k", None),
    ],
)
def test_a_record_with_bytes_is_replayed(one: DlqRecord) -> None:
    assert _choose([one], {}, Request(action="replayed", by="me", reason="again"), Outcome()) == [one]
