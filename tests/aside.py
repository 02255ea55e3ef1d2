"""Run a coroutine from a thread that may have a loop already."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def run_aside(work: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, in a thread of its own: where a browser is driven, a loop runs in the test's."""
    with ThreadPoolExecutor(1) as aside:
        return aside.submit(asyncio.run, work).result()
