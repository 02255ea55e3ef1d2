"""One system for all scenarios: every service as a process on the embedded stack, with a database of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

import devstack
from demo.system import System
from tests.system.instance import own_instance
from tests.system.only_secured import ONLY_SECURED

pytest.register_assert_rewrite("tests.system.desk", "tests.system.tap")

from tests.system.desk import Desk  # noqa: E402
from tests.system.tap import Tap  # noqa: E402

DATABASE: Final = "closeflow_system"
collect_ignore: Final = [] if devstack.PROVIDER == "embedded" else ONLY_SECURED

OVERRIDES: Final = {
    # A broker that does not answer, and a sender that died, are noticed in seconds instead of half a minute; the order
    # of the times (deadline below lease, probe below both) is as in production.
    "order-submitter": {
        "HTTP_DEADLINE_S": "1",
        "LEASE_S": "3",
        "POLL_INTERVAL_S": "0.2",
        "WATCH_INTERVAL_S": "0.5",
        "BREAKER_PROBE_S": "0.5",
        "HALT_DEFERRAL_S": "0.5",
        "BROKER_VISIBILITY_LAG_S": "1",
        # A scenario closes the market from one moment to the next.
        "CLOCK_REUSE_S": "0",
    },
    # The pause before a retry is a second or more in production, for the broker's sake.
    "fill-processor": {"RETRY_SETTLE_DELAY_S": "0.2", "RETRY_BASE_S": "0.2"},
    # Cycles follow each other faster, though not so fast that they take a tenth of a core; an order counts as quiet
    # after 2 s, which is longer than any scripted pause.
    "reconciler": {
        "START_UP_DELAY_S": "0.2",
        "REQUESTS_INTERVAL_S": "0.5",
        "ORDERS_INTERVAL_S": "1",
        "QUIET_AFTER_S": "2",
        "GAPS_INTERVAL_S": "1",
        "NON_TRADES_INTERVAL_S": "2",
        "GAP_GRACE_S": "0.5",
        "AUDIT_INTERVAL_S": "1",
        # An event takes milliseconds to Kafka; on a machine that does three things at once, a second or two.
        "PUBLISH_WITHIN_S": "8",
        "WATCH_INTERVAL_S": "1",
        "PARTITIONS_INTERVAL_S": "2",
    },
    # In a test a close that was not asked about is still after a second.
    "close-board": {"STILL_AFTER_S": "1", "REFRESH_S": "0.5"},
    # Listening again takes half a second at most once the broker lets us.
    # It asks for what the stream lost in silence every 5 s, not 30.
    "broker-gateway": {"RECONNECT_CAP_S": "0.5", "TAKEOVER_POLL_S": "0.2", "BACKFILL_INTERVAL_S": "5"},
}


@pytest.fixture(scope="session")
def stack() -> devstack.Stack:
    """Servers of their own, with TLS and logins on every link if they are embedded: these tests need the real topics,
    and break the servers."""
    return devstack.up(own_instance(), secure=devstack.PROVIDER == "embedded")


@pytest.fixture(scope="session")
def system(stack: devstack.Stack) -> Iterator[System]:
    """Everything running. There is one set of topics per Kafka, so what an earlier run left there is removed first."""
    made = System(stack, DATABASE, stack.data_dir / "system", overrides=OVERRIDES)
    made.directory.mkdir(parents=True, exist_ok=True)
    for log in made.directory.glob("*.log"):
        log.unlink()
    made.wipe()
    made.prepare()
    try:
        made.start_all()
        yield made
        for service in made.running.values():
            service.ask_to_stop()
        assert {name: service.stop() for name, service in made.running.items()} == dict.fromkeys(made.running, 0)
    finally:
        made.close()
        made.wipe()  # without its services a connector and a slot would only keep WAL


@pytest.fixture(scope="session")
def tap(system: System) -> Iterator[Tap]:
    """On every topic, from the first record to the last."""
    made = Tap(system.kafka)
    yield made
    assert made.wrong() == []


@pytest.fixture
def desk(system: System, tap: Tap) -> Iterator[Desk]:
    """A scenario's hands; whatever it did, at its end the services live, every invariant holds, every record was as its
    topic promises, and nobody was called for anything that they need not see."""
    with Desk(system) as made:
        made.planted = tap.planted
        made.close_breaker()
        yield made
        made.control.clear_script()
        made.control.heal_stream()
        made.control.set_capabilities(activity_ids="same")
        for name, service in system.running.items():
            assert service.running, f"{name} ended:\n{service.log.read_text()[-2000:]}"
        made.verify()
        assert tap.wrong() == []
        assert made.incidents() == made.expected_incidents
