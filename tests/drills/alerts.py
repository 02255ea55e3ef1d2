"""Five faults, each made on the running system under a real Prometheus: its alert fires, and clears once it is mended.

`python -m tests.drills.alerts [fault ...] [--patience SECONDS]` runs the faults that are named. The rules are those of
`deploy/monitoring`, but for how long a fault has to last until its alert fires: with `--patience` (default 2) every
alert has the same short one, so that the drill takes minutes; `--patience rules` leaves it as the rules have it.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Final

import httpx
import yaml

from broker_simulator.behaviour import Behaviour, FillThen, Reject
from demo.services import free_port
from demo.system import SERVICES, System
from deploy.monitoring.rules import rendered
from deploy.monitoring.tools import install, program
from tests.drills.harness import Lines, main, verified, whole_system
from tests.system.desk import Desk
from tests.system.test_publication import Worker

FIRES_WITHIN_S: Final = 240.0
CLEARS_WITHIN_S: Final = 240.0
SCRAPED_EVERY: Final = "2s"
SHORT_PATIENCE_S: Final = 2.0
PROCESSOR: Final = "fill-processor"


class Prometheus:
    """Scrapes the services of a system and evaluates the rules."""

    def __init__(self, system: System, directory: Path, patience_s: float | None) -> None:
        install()
        self._port = free_port()
        (directory / "alerts.yaml").write_text(rendered(patience_s=patience_s))
        jobs = [
            {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{system.port(name)}"]}]} for name in SERVICES
        ]
        every = {"scrape_interval": SCRAPED_EVERY, "evaluation_interval": SCRAPED_EVERY}
        config = {"global": every, "rule_files": [str(directory / "alerts.yaml")], "scrape_configs": jobs}
        (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self._directory = directory

    @contextmanager
    def running(self) -> Iterator[None]:
        options = {
            "config.file": self._directory / "prometheus.yaml",
            "storage.tsdb.path": self._directory / "prometheus",
            "web.listen-address": f"127.0.0.1:{self._port}",
        }
        argv = [program("prometheus"), *(f"--{name}={value}" for name, value in options.items())]
        with (self._directory / "prometheus.log").open("wb") as told:
            process = subprocess.Popen(argv, stdout=told, stderr=told)
            try:
                self.until("Watchdog fires", lambda: "Watchdog" in self.firing(), within_s=120)
                yield
            finally:
                process.terminate()
                process.wait(timeout=60)

    def firing(self) -> dict[str, Mapping[str, str]]:
        """By name, the labels of an alert that fires now; none while Prometheus does not answer."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self._port}/api/v1/alerts", timeout=10)
            answer.raise_for_status()
        except httpx.HTTPError:
            return {}
        alerts = answer.json()["data"]["alerts"]
        return {one["labels"]["alertname"]: one["labels"] for one in alerts if one["state"] == "firing"}

    def until(self, what: str, condition: Callable[[], bool], *, within_s: float) -> float | None:
        """How long it took; None, and a line, when it did not come true."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > within_s:
                print(f"  not within {within_s:.0f} s: {what}; firing: {sorted(self.firing())}", flush=True)
                return None
            time.sleep(0.5)
        return time.monotonic() - began


@contextmanager
def stopped_connector(desk: Desk) -> Iterator[None]:
    Worker(desk).stop()
    yield
    Worker(desk).tell("PUT", "resume")


@contextmanager
def dropped_slot(desk: Desk) -> Iterator[None]:
    """While the connector is stopped: where it runs the reconciler makes a new one sooner than anybody is told."""
    worker = Worker(desk)
    worker.stop()
    desk.rows("SELECT pg_drop_replication_slot(%s)", worker.slot)
    yield
    worker.tell("PUT", "resume")


@contextmanager
def halted_fill_processor(desk: Desk) -> Iterator[None]:
    desk.system.kill(PROCESSOR)
    for held in desk.hold_all([(5, "stock")] * 3):
        desk.close(held)
    yield
    desk.system.start(PROCESSOR)


@contextmanager
def open_breaker(desk: Desk) -> Iterator[None]:
    """A broker that refuses order after order."""
    desk.control.script(Behaviour(answer=Reject(message="price is outside of the price band")))
    for held in desk.hold_all([(5, "stock")] * 30):
        desk.close(held)
    yield
    desk.control.clear_script()
    desk.close(desk.hold(5))


@contextmanager
def sequence_gap(desk: Desk) -> Iterator[None]:
    """A fill that the broker states and does not name."""
    held = desk.hold(10)
    unnamed = Behaviour(execution=FillThen(quantity=Decimal(4), then="cancel"), executions="unnamed")
    desk.control.script(unnamed, symbol=held.symbol, count=1)
    desk.close(held)
    yield
    (order,) = desk.orders(held)
    desk.control.name_executions(order["client_order_id"])


FAULTS: Final = {
    "ConnectorNotRunning": stopped_connector,
    "ReplicationSlotMissing": dropped_slot,
    "ConsumerStalled": halted_fill_processor,
    "BrokerBreakerOpen": open_breaker,
    "SequenceGap": sequence_gap,
}


def one_fault(prometheus: Prometheus, desk: Desk, alert: str, lines: Lines) -> None:
    quiet = prometheus.until(f"{alert} is quiet", lambda: alert not in prometheus.firing(), within_s=CLEARS_WITHIN_S)
    lines.check(f"{alert} is quiet before the fault", quiet is not None, f"after {quiet or 0:.0f} s")
    with FAULTS[alert](desk):
        fired = prometheus.until(f"{alert} fires", lambda: alert in prometheus.firing(), within_s=FIRES_WITHIN_S)
        others = sorted(prometheus.firing().keys() - {alert, "Watchdog"})
        lines.check(
            f"{alert} fires", fired is not None, f"after {fired or 0:.1f} s, with {', '.join(others) or 'none'}"
        )
    clear = prometheus.until(f"{alert} clears", lambda: alert not in prometheus.firing(), within_s=CLEARS_WITHIN_S)
    lines.check(f"{alert} clears once it is mended", clear is not None, f"after {clear or 0:.1f} s")


def drill(lines: Lines, faults: list[str], patience_s: float | None) -> None:
    with whole_system() as system:
        prometheus = Prometheus(system, system.directory, patience_s)
        with Desk(system) as desk, prometheus.running():
            for alert in faults:
                one_fault(prometheus, desk, alert, lines)
            ended = "SELECT count(*) FROM close_requests WHERE status NOT IN ('completed', 'failed')"
            done = prometheus.until("every close ended", lambda: desk.count(ended) == 0, within_s=CLEARS_WITHIN_S)
            lines.check("every close ended", done is not None, f"after {done or 0:.0f} s")
            held = verified(desk)
            lines.check("closectl verify finds every invariant to hold", held, "all" if held else "see above")


def patience(text: str) -> float | None:
    return None if text == "rules" else float(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fault", nargs="*", choices=[[], *FAULTS], help="the alert whose fault is made")
    parser.add_argument("--patience", type=patience, default=SHORT_PATIENCE_S, help="seconds, or `rules`")
    given = parser.parse_args()
    main(lambda lines: drill(lines, given.fault or list(FAULTS), given.patience))
