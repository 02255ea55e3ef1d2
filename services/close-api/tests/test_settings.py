"""What close-api refuses to start with."""

from __future__ import annotations

import pytest

from close_api.settings import Settings
from closeflow.settings import BadSetting, read

GOOD = {"CLOSE_API_POSTGRES_DSN": "postgresql://localhost/x", "CLOSE_API_AUTH": "disabled"}


def test_two_settings_are_enough() -> None:
    settings = read(Settings, GOOD)
    assert (settings.http_host, settings.queue_capacity, settings.batch_size) == ("127.0.0.1", 1024, 64)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"CLOSE_API_HTTP_HOST": "0.0.0.0"}, "CLOSE_API_AUTH"),
        ({"CLOSE_API_HTTP_HOST": "close-api.internal"}, "CLOSE_API_AUTH"),
        ({"CLOSE_API_AUTH": "off"}, "CLOSE_API_AUTH"),
        ({"CLOSE_API_QUEUE_CAPACITY": "0"}, "CLOSE_API_QUEUE_CAPACITY"),
        ({"CLOSE_API_BATCH_SIZE": "0"}, "CLOSE_API_BATCH_SIZE"),
        ({"CLOSE_API_REQUEST_DEADLINE_MS": "0"}, "CLOSE_API_REQUEST_DEADLINE_MS"),
        ({"CLOSE_API_QUEUE": "5"}, "CLOSE_API_QUEUE"),
    ],
)
def test_an_impossible_setting_is_named(changed: dict[str, str], named: str) -> None:
    with pytest.raises(BadSetting, match=named):
        read(Settings, GOOD | changed)


def test_open_doors_have_to_be_asked_for() -> None:
    with pytest.raises(BadSetting, match="CLOSE_API_AUTH is not set"):
        read(Settings, {"CLOSE_API_POSTGRES_DSN": "postgresql://localhost/x"})
