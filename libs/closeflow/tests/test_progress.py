"""What readiness says of a consumer."""

from __future__ import annotations

from closeflow.kafka import ConsumerProgress


class Consumer:
    """A consumer's progress on a clock of its own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.progress = ConsumerProgress(stalled_after_s=20, clock=lambda: self.now)

    def after(self, seconds: float) -> str | None:
        self.now += seconds
        return self.progress.trouble()


def test_it_is_well_while_kafka_answers_and_batches_end() -> None:
    consumer = Consumer()
    assert consumer.after(1000) == "it has not joined its group yet"
    assert consumer.progress.still_for_s() == 0
    consumer.progress.assigned(frozenset({0, 1}))
    assert consumer.after(19) is None
    assert consumer.after(1) == "Kafka has not answered its fetches for 20 s"
    consumer.progress.moved()
    assert consumer.after(0) is None
    consumer.progress.given()
    assert consumer.after(25) == "it has worked on one batch for 25 s"
    consumer.progress.succeeded()
    assert consumer.after(0) is None


def test_a_rebalance_may_take_a_while_and_an_error_stays_until_something_succeeds() -> None:
    consumer = Consumer()
    consumer.progress.assigned(frozenset({0}))
    consumer.progress.revoked()
    assert consumer.after(19) is None
    assert consumer.after(6) == "it has held no partitions for 25 s"
    consumer.progress.assigned(frozenset({0}))
    consumer.progress.failed("the database is away")
    consumer.progress.moved()
    assert consumer.after(0) == "the database is away"
    consumer.progress.succeeded()
    assert consumer.after(0) is None


def test_who_has_no_partitions_because_others_have_them_is_well_while_its_group_answers() -> None:
    consumer = Consumer()
    consumer.progress.assigned(frozenset())
    for _ in range(100):
        assert consumer.after(10) is None
        consumer.progress.in_group()
    assert consumer.after(20) == "Kafka has not answered its heartbeats for 20 s"
    assert consumer.progress.still_for_s() == 20
    consumer.progress.in_group()
    assert consumer.after(0) is None


def test_a_heartbeat_says_nothing_of_who_has_something_to_read() -> None:
    consumer = Consumer()
    consumer.progress.assigned(frozenset({0}))
    consumer.progress.given()
    consumer.after(15)
    consumer.progress.in_group()
    assert consumer.after(5) == "it has worked on one batch for 20 s"
    consumer.progress.revoked()
    consumer.progress.in_group()
    assert consumer.after(0) is not None
