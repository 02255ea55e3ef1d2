"""Run one service: signals become a stop event, and what goes wrong becomes an exit code."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import structlog
import uvloop

from closeflow.kafka.topics_at_start import TopicsDiffer
from closeflow.tasks import end_tasks
from closeflow.telemetry.metrics import histogram

Main = Callable[[asyncio.Event], Awaitable[None]]

STOP_DEADLINE_S: Final = 45.0
"""From the signal to the end; longer than a batch of Kafka records may take. What is cut off is read again."""

LAG: Final = histogram("closeflow_event_loop_lag_seconds")
LAG_INTERVAL_S: Final = 0.5

log = structlog.get_logger(__name__)


class EndedUnasked(Exception):
    """A part of a service ended although nobody asked it to stop."""


async def run_parts(stop: asyncio.Event, parts: dict[str, Coroutine[Any, Any, object]]) -> None:
    """Run the named parts until `stop` is set and each has ended by itself.

    One that ends before that ends the others, whether it fails, returns or is cancelled by something inside it: an
    `asyncio.TaskGroup` takes the last two for a good end, and the service would live on without it. Raises its error,
    or EndedUnasked.
    """
    running = {name: asyncio.create_task(part, name=name) for name, part in parts.items()}
    left = set(running.values())
    try:
        while left:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            for name in (name for name, task in running.items() if task in done):
                if running[name].cancelled():
                    raise EndedUnasked(f"{name} was cancelled")
                running[name].result()
                if not stop.is_set():
                    raise EndedUnasked(f"{name} returned")
    finally:
        await end_tasks(left)


def run_service(main: Main, *, stop_deadline_s: float = STOP_DEADLINE_S) -> None:
    """Run `main(stop)` on uvloop until it returns. SIGTERM and SIGINT set `stop`; a second one, or the deadline,
    cancels.

    Raises SystemExit: 0 when it returned because it was asked to; else 1, after one line that says why: an exception
    (`service_failed`), an end that nobody asked for (`service_ended_unasked`), or a stop cut short; and 2 where Kafka's
    topics are not as their files say (`start_refused`), because no restart mends that.
    """
    _spare_the_collector()
    raise SystemExit(uvloop.run(_supervise(main, stop_deadline_s)))


def _spare_the_collector() -> None:
    """What is imported by now lives to the end, and a batch makes thousands of objects that die young: collecting at
    Python's defaults cost a third of each request of close-api."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def _supervise(main: Main, stop_deadline_s: float) -> int:
    stop = asyncio.Event()
    running = asyncio.ensure_future(main(stop))
    loop = asyncio.get_running_loop()

    def on_signal(received: signal.Signals) -> None:
        if stop.is_set():
            running.cancel()
            return
        log.info("stop_requested", signal=received.name)
        stop.set()
        loop.call_later(stop_deadline_s, running.cancel)

    for received in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(received, on_signal, received)
    measuring = asyncio.create_task(_measure_lag())
    try:
        await running
    except asyncio.CancelledError:
        if stop.is_set():
            log.error("stop_cut_short", deadline_s=stop_deadline_s)
        else:
            log.error("service_ended_unasked", how="cancelled")
        return 1
    except TopicsDiffer as error:
        log.error("start_refused", reason=str(error))
        return 2
    except Exception as error:
        log.exception("service_failed", reason=f"{type(error).__name__}: {error}".partition("\n")[0])
        return 1
    finally:
        measuring.cancel()
    if not stop.is_set():
        log.error("service_ended_unasked", how="returned")
        return 1
    log.info("service_stopped")
    return 0


async def _measure_lag() -> None:
    loop = asyncio.get_running_loop()
    while True:
        due_at = loop.time() + LAG_INTERVAL_S
        await asyncio.sleep(LAG_INTERVAL_S)
        LAG.observe(max(0.0, loop.time() - due_at))
