"""The last released services on today's schema, beside today's, under load; and today's on an older schema.

The positions of the load stay: what verifies after it reads more, so it comes last of its half (conftest.py).
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import devstack
from closeflow.storage.schema import migrate
from demo.system import SERVICES, System
from tests.conftest import fresh_database
from tests.system.desk import Desk, Held
from tests.system.released import NOTED, REPOSITORY, NoRelease, Released, last_release, release_or_expected_failure

pytestmark = pytest.mark.timeout(400)  # Both versions of every service start, several times, under load.
EACH = 6
"""Closes of a step; beside them the load goes on."""
LOAD = 600
EVERY_S = 0.5


@pytest.fixture(scope="module")
def released() -> Released:
    return release_or_expected_failure()


def theirs(*names: str) -> list[str]:
    """What the released processes of these services are called."""
    return [f"{name}-released" for name in names]


class Load(threading.Thread):
    """Closes one position after the other over whichever of `doors` is there, with the same key until it is taken."""

    def __init__(self, desk: Desk, positions: Sequence[Held]) -> None:
        super().__init__(daemon=True)
        self._positions = iter(positions)
        self._desk = desk
        self._over = threading.Event()
        self.doors = ["close-api"]
        self.taken: list[Held] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            for held in self._positions:
                self.close(held)
                self.taken.append(held)
                if self._over.wait(EVERY_S):
                    return
        except Exception as error:
            self.error = error

    def close(self, held: Held) -> None:
        system, deadline = self._desk.system, time.monotonic() + 30
        while True:
            door = self.doors[held.id % len(self.doors)]
            headers = {**system.authorization(), "Idempotency-Key": "k"}
            try:
                answer = httpx.post(
                    system.url(door) + held.path, headers=headers, json={}, timeout=5, verify=system.links.verify
                )
            except httpx.TransportError as error:
                refused = str(error)
            else:
                if answer.status_code in (httpx.codes.OK, httpx.codes.CREATED):
                    return
                refused = answer.text
                assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, refused
            assert time.monotonic() < deadline, f"{door} takes no close: {refused}"
            time.sleep(0.1)

    def end(self) -> list[Held]:
        self._over.set()
        self.join(60)
        if self.error is not None:
            raise self.error
        return self.taken


@contextmanager
def load(desk: Desk) -> Iterator[Load]:
    made = Load(desk, desk.hold_all([(7, "stock")] * LOAD))
    made.start()
    try:
        yield made
    finally:
        taken = made.end()
    assert len(taken) < LOAD, "the load ended before the last step"
    assert len(taken) > 10
    desk.until_status("closed", taken)
    desk.assert_closed_once(taken)


@contextmanager
def todays_afterwards(system: System) -> Iterator[None]:
    """Whatever happens, the other tests find each of today's services, and no released one."""
    try:
        yield
    finally:
        for name in set(system.running) & set(theirs(*SERVICES)):
            system.stop(name)
        for name in set(SERVICES) - set(system.running):
            system.start(name)


def test_the_last_release_and_this_one_work_side_by_side_on_todays_schema(desk: Desk, released: Released) -> None:
    """An upgrade service by service, with its way back: each version handles what the other has written, both ways."""
    system = desk.system
    system.programs |= dict.fromkeys(theirs(*SERVICES), released.program)
    steps = [desk.hold_all([(9, "stock")] * EACH) for _ in range(5)]
    consumers, others = ("order-submitter", "fill-processor"), ("broker-gateway", "reconciler")

    def stop(*names: str) -> None:
        assert {name: system.stop(name) for name in names} == dict.fromkeys(names, 0)

    def start(*names: str) -> None:
        for name in names:  # one by one, as an upgrade does it
            if name in theirs("close-api") and released.ready_on_its_own_schema_alone and released.head != migrate.HEAD:
                start_unready(system, name)
            else:
                system.start(name)

    with todays_afterwards(system), load(desk) as going:

        def step(*doors: str) -> None:
            going.doors = list(doors)
            batch = steps.pop()
            for held in batch:
                going.close(held)
            desk.until_status("closed", batch)
            desk.assert_closed_once(batch)

        start(*theirs(*SERVICES))
        step("close-api", "close-api-released")  # both of everything
        stop(*consumers)
        step("close-api")  # what today's publish, theirs consume
        going.doors = ["close-api-released"]
        stop("close-api", *others)
        step("close-api-released")  # theirs alone on today's schema
        start(*consumers)
        stop(*theirs(*consumers))
        step("close-api-released")  # what theirs publish, today's consume
        start("close-api", *others)
        going.doors = ["close-api"]
        stop(*theirs("close-api", *others))
        step("close-api")


def test_it_is_the_released_code_that_runs(released: Released) -> None:
    program = "import close_api, closeflow; print(close_api.__path__[0], closeflow.__path__[0])"
    shown = subprocess.run(
        [released.program.python, "-c", program],
        env={"PYTHONPATH": released.program.sources},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [path.startswith(f"{released.root}/") for path in shown.stdout.split()] == [True, True]


def test_todays_services_wait_for_an_older_schema_to_be_migrated(stack: devstack.Stack, tmp_path: Path) -> None:
    """They say what is missing and do nothing: not one connects to Kafka's topics or to the broker."""
    with fresh_database(stack, None) as database:
        migrate.upgrade(database.admin_dsn)
        migrate.downgrade(database.admin_dsn, "-1")
        system = System(stack, database.name, tmp_path)
        migrate.set_role_passwords(database.admin_dsn, system.links.passwords())
        try:
            for name in SERVICES:
                system.launch(name)
            for name in SERVICES:
                assert f"and this release needs {migrate.HEAD}" in unready(system, name)
            logs = {name: service.log.read_text() for name, service in system.running.items()}
            waiting = [name for name, log in logs.items() if "schema_awaited" in log]
            assert waiting == [name for name in SERVICES if name != "close-api"]
            assert {name: system.stop(name) for name in SERVICES} == dict.fromkeys(SERVICES, 0)
            assert [one for one in tmp_path.glob("*.log") if "broker-fill" in one.read_text()] == []
        finally:
            system.close()


def start_unready(system: System, name: str) -> None:
    """It takes closes, and a balancer that asks for readiness would send it none (docs/upgrading.md)."""
    system.launch(name)
    assert "the database is not at this version's schema" in unready(system, name)


def unready(system: System, name: str) -> str:
    deadline = time.monotonic() + 30
    while True:
        try:
            answer = httpx.get(f"{system.url(name)}/readyz", timeout=5, verify=system.links.verify)
        except httpx.TransportError:
            assert time.monotonic() < deadline, system.running[name].log.read_text()[-2000:]
            time.sleep(0.05)
        else:
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text
            return answer.text


def git(repository: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", "-C", str(repository), *identity, *arguments], check=True, capture_output=True)


def test_without_its_tag_a_release_is_the_commit_that_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOSEFLOW_RELEASED", raising=False)
    with pytest.raises(NoRelease, match="run this in a clone"):
        last_release(tmp_path, tmp_path / "kept")
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    with pytest.raises(NoRelease, match="names no release"):
        last_release(tmp_path, tmp_path / "kept")
    (tmp_path / NOTED).parent.mkdir(parents=True)
    (tmp_path / NOTED).write_text(f"v0.0.9 {'0' * 40}\n")
    with pytest.raises(NoRelease, match=r"v0\.0\.9 is commit 0.*git fetch --tags --unshallow"):
        last_release(tmp_path, tmp_path / "kept")


def test_the_noted_release_is_the_newest_tag() -> None:
    name, commit = (REPOSITORY / NOTED).read_text().split()
    tagged = subprocess.run(
        ["git", "-C", str(REPOSITORY), "rev-parse", "-q", "--verify", f"refs/tags/{name}^{{commit}}"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    assert tagged in ("", commit), f"{NOTED} says {commit}, and the tag is {tagged}"
