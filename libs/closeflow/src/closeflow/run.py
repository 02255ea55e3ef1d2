"""Run one service: signals become a stop event, and what goes wrong becomes an exit code."""

from __future__ import annotations

import asyncio
import decimal
import signal
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import uvloop

Main = Callable[[asyncio.Event], Awaitable[None]]

STOP_DEADLINE_S: Final = 45.0
"""From the signal to the end; longer than a batch of Kafka records may take. What is cut off is read again."""

DIGITS: Final = 40
"""A quantity has up to 33 digits (15 before the point, 18 after it). Python's own 28 would round their sums, and a
position of which PostgreSQL says that it is closed would keep a rest."""

log = structlog.get_logger(__name__)


def run_service(main: Main, *, stop_deadline_s: float = STOP_DEADLINE_S) -> None:
    """Run `main(stop)` on uvloop until it returns, with decimals of DIGITS digits. SIGTERM and SIGINT set `stop`; a
    second one, or the deadline, cancels.

    Raises SystemExit: 0 after a return, 1 after an exception (logged as `service_failed`) or a stop cut short.
    """
    decimal.setcontext(decimal.Context(prec=DIGITS))
    raise SystemExit(uvloop.run(_supervise(main, stop_deadline_s)))


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
    try:
        await running
    except asyncio.CancelledError:
        log.error("stop_cut_short", deadline_s=stop_deadline_s)
        return 1
    except Exception:
        log.exception("service_failed")
        return 1
    log.info("service_stopped")
    return 0
