"""kill -9 of each container in the middle of a hundred closes, and a restart of everything: nothing lost or doubled."""

from __future__ import annotations

import time

import pytest

from tests.deploy.closing import Desk, seconds_since
from tests.deploy.conftest import CONTAINERS, symbols, tell

pytestmark = pytest.mark.timeout(2400)


def test_everything_is_healthy_and_what_is_done_once_ended_well(desk: Desk) -> None:
    states = desk.project.running()
    jobs = {"secrets", "migrate", "topics", "connector"}
    assert {name: state for name, state in states.items() if name not in jobs} == dict.fromkeys(CONTAINERS, "healthy")
    assert {states[job] for job in jobs} == {"exited 0"}


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_killed_container_changes_nothing(desk: Desk, container: str) -> None:
    mine = symbols(CONTAINERS.index(container))
    started, killed = time.monotonic(), []

    def kill_and_restart() -> None:
        killed.append(time.monotonic())
        desk.project.kill(container)
        desk.project.start(container)

    ended = desk.close(mine, kill_and_restart)
    assert [one.close_request_status for one in ended] == ["completed"] * len(mine)
    after = time.monotonic() - killed[0]
    assert desk.at_broker(mine) == {one: [1] for one in mine}
    assert desk.held(mine) == {}
    verified = desk.verify()
    tell(f"{container:17} {len(ended)} closed, one order each, {after:.1f} s after the kill; {verified}")
    assert killed[0] > started


def test_what_is_taken_down_and_up_again_is_as_it_was(desk: Desk) -> None:
    def positions() -> object:
        return desk.project.closectl_json("positions", "list", "--limit", "10000")

    before, authority = positions(), desk.authority.read_text()
    desk.project.down(and_volumes=False)
    started = time.monotonic()
    desk.project.up()
    took = seconds_since(started)
    assert positions() == before
    assert desk.project.authority(desk.directory).read_text() == authority
    mine = symbols(len(CONTAINERS))[:10]
    ended = desk.close(mine, lambda: None)
    assert [one.close_request_status for one in ended] == ["completed"] * len(mine)
    assert desk.at_broker(mine) == {one: [1] for one in mine}
    tell(f"down and up     {len(list(desk.ids))} positions as before, healthy after {took}; {desk.verify()}")
