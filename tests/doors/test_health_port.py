"""close-api's own port for those who run it, beside its doors: probes and Prometheus need no certificate there."""

import httpx

from demo.services import free_port
from tests.doors.conftest import Desk


def test_health_is_served_apart_from_the_doors(desk: Desk) -> None:
    port = free_port()
    with desk.api(HEALTH_PORT=str(port)) as api:
        answers = {path: httpx.get(f"http://127.0.0.1:{port}{path}") for path in ("/healthz", "/readyz", "/metrics")}
        door = httpx.get(f"{api.url}/readyz")
        closing = httpx.post(f"http://127.0.0.1:{port}/v1/positions/1/close")
    assert {path: answer.status_code for path, answer in answers.items()} == {
        "/healthz": 200,
        "/readyz": 503,
        "/metrics": 200,
    }
    # Both say the same: this database has no slot.
    assert answers["/readyz"].json()["missing"]["closes"] == door.json()["reasons"][0]
    assert "close_api_waiting_closes" in answers["/metrics"].text
    assert closing.status_code == 405
