"""When a consumer group, or a server, stands still."""

from __future__ import annotations

from closeflow.domain.monitoring import (
    Away,
    Waiting,
    away_incidents,
    beyond_the_end,
    look_at_answer,
    look_at_lag,
    not_seen_to_move,
    stalled_consumers,
)

FILLS = ("fill-processor", "broker-fill", 0)
OTHER = ("fill-processor", "broker-fill", 1)
SUBMITS = ("order-submitter", "submit-order", 0)
PATIENCE_S = 30.0


def test_a_group_that_commits_nothing_while_records_wait_is_one_incident_of_all_its_partitions() -> None:
    waiting = look_at_lag({}, {FILLS: (5, 9), OTHER: (0, 1), SUBMITS: (3, 3)}, now=100.0)
    assert stalled_consumers(waiting, now=129.9, patience_s=PATIENCE_S) == []
    waiting = look_at_lag(waiting, {FILLS: (5, 20), OTHER: (0, 1), SUBMITS: (3, 3)}, now=130.0)
    (incident,) = stalled_consumers(waiting, now=130.0, patience_s=PATIENCE_S)
    assert (incident.kind, incident.subject) == ("consumer_stalled", "fill-processor/broker-fill")
    assert incident.detail == (
        "16 records of broker-fill wait for fill-processor, which has committed nothing for 30 s; "
        "by partition: 0 from 5 to 20, 1 from 0 to 1"
    )


def test_a_group_that_moves_is_behind_but_not_stalled() -> None:
    waiting = look_at_lag({}, {FILLS: (0, 1000)}, now=0.0)
    for now in range(10, 200, 10):
        waiting = look_at_lag(waiting, {FILLS: (now, 1000)}, now=float(now))
        assert stalled_consumers(waiting, now=float(now), patience_s=PATIENCE_S) == []
        assert not_seen_to_move(waiting, now=float(now), patience_s=PATIENCE_S) == frozenset()
    assert stalled_consumers(waiting, now=190.0 + PATIENCE_S, patience_s=PATIENCE_S)


def test_an_observer_that_only_began_to_look_closes_nothing_of_what_waits() -> None:
    first = look_at_lag({}, {FILLS: (5, 9)}, now=0.0)
    assert not_seen_to_move(first, now=0.0, patience_s=PATIENCE_S) == {"fill-processor/broker-fill"}
    moved = look_at_lag(first, {FILLS: (6, 9)}, now=10.0)
    assert not_seen_to_move(moved, now=10.0, patience_s=PATIENCE_S) == frozenset()
    assert not_seen_to_move(moved, now=40.0, patience_s=PATIENCE_S) == {"fill-processor/broker-fill"}
    assert look_at_lag(moved, {FILLS: (9, 9)}, now=50.0) == {}


def test_a_topic_that_was_made_anew_leaves_nothing_waiting() -> None:
    assert look_at_lag({FILLS: Waiting(committed=5, end=9, since=0.0)}, {FILLS: (5, 2)}, now=60.0) == {}


def test_a_server_is_away_from_the_first_question_without_an_answer() -> None:
    kafka = look_at_answer(None, "refused", asked_at=10.0)
    kafka = look_at_answer(kafka, "timed out", asked_at=20.0)
    assert kafka == Away(since=10.0, reason="timed out")
    assert (
        away_incidents([("kafka", "kafka", kafka), ("broker", "an account", None)], now=39.9, patience_s=PATIENCE_S)
        == []
    )
    (incident,) = away_incidents(
        [("kafka", "kafka", kafka), ("broker", "an account", None)], now=40.0, patience_s=PATIENCE_S
    )
    assert (incident.kind, incident.subject) == ("kafka_away", "kafka")
    assert incident.detail == "kafka has given no answer for 30 s: timed out"
    assert look_at_answer(kafka, None, asked_at=50.0) is None


def test_a_group_beyond_the_end_of_a_log_is_one_incident_of_all_its_partitions() -> None:
    assert beyond_the_end({FILLS: (9, 9), OTHER: (0, 4)}) == []
    (incident,) = beyond_the_end({FILLS: (9, 7), OTHER: (5, 4), SUBMITS: (3, 3)})
    assert (incident.kind, incident.severity, incident.subject) == (
        "log_tail_lost",
        "critical",
        "fill-processor/broker-fill",
    )
    assert incident.detail == (
        "the newest records of broker-fill are lost: partition 0 was read up to 9 and the log ends at 7, "
        "partition 1 was read up to 5 and the log ends at 4"
    )
