"""The OpenAPI document as a file, made without running the service: `make openapi`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson

from close_api.auth.rate_limit import RateLimits
from close_api.auth.tokens import Disabled
from close_api.batching import Batches
from close_api.doors import Doors, make_doors
from close_api.rest.app import routed
from close_api.rest.openapi import describe
from closeflow.domain.close.accept import CloseCommand, Decision
from closeflow.storage.core.engine import make_engine


def openapi_text() -> str:
    """The document as the file has it. No database is connected to, and no setting read."""
    document = describe(routed(_nothing_behind()))
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def _nothing_behind() -> Doors:
    closes: Batches[CloseCommand, Decision] = Batches(work=_close_nothing, capacity=1, size=1, in_flight=1)
    return make_doors(
        make_engine("postgresql://127.0.0.1/none", pool_size=1, application_name="close-api"),
        closes,
        identity=Disabled(),
        rates=RateLimits(limit=1, window_s=1),
        slot="none",
        deadline_s=1.0,
        stopping=asyncio.Event(),
    )


async def _close_nothing(commands: Sequence[CloseCommand]) -> Sequence[Decision | Exception]:
    raise NotImplementedError


def main(arguments: list[str]) -> int:
    """Returns the exit code: 2 where the file is not named."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m close_api.rest.openapi_file schemas/openapi.json\n")
        return 2
    Path(arguments[0]).write_text(openapi_text())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
