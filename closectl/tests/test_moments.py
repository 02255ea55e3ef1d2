"""A time that an operator gives is held against the database's clock, not against that of his host."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from closectl.arguments import _moment


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_host_whose_clock_is_wrong_takes_the_time_of_a_fill_of_now(hours: int) -> None:
    now = datetime.now(UTC)
    with time_machine.travel(now + timedelta(hours=hours), tick=True):
        assert _moment(now.isoformat()) == now
