"""Start the simulator: `python -m broker_simulator [options]`."""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import structlog
import uvicorn
import uvloop
from pydantic import ValidationError
from pydantic_core import PydanticUndefined
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request as HandshakeRequest
from websockets.protocol import State

from .app import build_app
from .exchange import Exchange
from .positions import BadPositionsCsv, Seed, read_positions_csv
from .settings import PREFIX, Settings
from .store import StateInUse, Store
from .trade_stream import TradeStream

log = structlog.get_logger()

_EPILOG = f"""
Every option is also an environment variable: --state-path is {PREFIX}STATE_PATH.

Try it:
  python -m broker_simulator --port 8090 --state-path /tmp/broker.sqlite3 &
  curl -H 'APCA-API-KEY-ID: simulator' -H 'APCA-API-SECRET-KEY: simulator-secret' localhost:8090/v2/clock
  curl -X POST localhost:8090/control/rules -H 'content-type: application/json' \\
       -d '{{"match": {{"symbol": "AAPL"}}, "count": 1, "behaviour": {{"execution": {{"kind": "parts", "parts": 3}}}}}}'
Everything that can be scripted, to try in a browser: http://localhost:8090/control/docs
"""


class CuttableHttp(HttpToolsProtocol):
    """Lets a request reach its connection, so that a scripted fault can cut it."""

    def on_message_begin(self) -> None:
        """Leave the connection where a scripted answer finds it, to cut it."""
        super().on_message_begin()
        self.scope["state"]["transport"] = self.transport


class QuietlyStoppingServer(uvicorn.Server):
    """SIGTERM and SIGINT end the process with exit code 0; uvicorn would raise the signal again after its shutdown."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGTERM and SIGINT, and do not raise them again afterwards as uvicorn does."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


class CuttableWebSocket(WebSocketsSansIOProtocol):
    """The same for the stream."""

    def handle_connect(self, event: HandshakeRequest) -> None:
        """Leave the connection where a scripted loss of the stream finds it."""
        super().handle_connect(event)
        if self.handshake_initiated and not self.close_sent:
            self.scope["state"]["transport"] = self.transport

    def shutdown(self) -> None:
        """As uvicorn does it, which says goodbye even on a connection whose other end has just done so, and fails."""
        if self.conn.state is State.CLOSING:
            self.transport.close()
        else:
            super().shutdown()


def read_settings(arguments: Sequence[str], environment: Collection[str]) -> Settings:
    """Ends the process with one line when a setting is unknown or impossible. `environment`: the names that are set."""
    parser = argparse.ArgumentParser(
        prog="broker_simulator",
        description="An Alpaca-shaped broker with scriptable faults. Its memory survives kill -9.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, PydanticUndefined) else f" (default: {field.default})"
        parser.add_argument(f"--{name.replace('_', '-')}", help=f"{field.description}{default}", metavar="VALUE")
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    unknown = sorted(name for name in environment if name.startswith(PREFIX) and name not in known)
    if unknown:
        parser.error(f"unknown setting {', '.join(unknown)}; see --help for those there are")
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
        parser.error("; ".join(problems))


def configure_logs(log_format: Literal["json", "console"]) -> None:
    """One shape for every line on stdout, the web server's own lines included."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if log_format == "json" else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        logger_factory=structlog.PrintLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    foreign = logging.StreamHandler(sys.stdout)
    foreign.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[foreign])


def read_seeds(settings: Settings) -> list[Seed]:
    """The positions that the broker begins with. Raises BadPositionsCsv."""
    if settings.positions_csv is None:
        return []
    return read_positions_csv(settings.positions_csv.read_text(), settings.account)


async def serve(settings: Settings, seeds: list[Seed]) -> None:
    """Open the state, listen, and run until asked to stop."""
    store = Store(settings.state_path)
    secret_key = settings.secret()
    stream = TradeStream(key_id=settings.key_id, secret_key=secret_key, frames=settings.stream_frames)
    exchange = Exchange(store, stream, settings, seeds)
    app = build_app(exchange, key_id=settings.key_id, secret_key=secret_key, tick_s=settings.tick_ms / 1000)
    tls = settings.tls()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=CuttableHttp,
        ws=CuttableWebSocket,
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        # uvicorn's 5 s would end idle connections while a busy client is about to use them.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
        backlog=4096,
    )
    if tls is not None:
        config.load()
        config.ssl = tls
    server = QuietlyStoppingServer(config)
    log.info("started", host=settings.host, port=settings.port, orders=len(exchange.book.orders))
    await server.serve()
    store.close()
    log.info("stopped")


def main() -> int:
    """Run the simulator; the exit code is 2 where its positions, its state or its address cannot be used."""
    settings = read_settings(sys.argv[1:], os.environ)
    configure_logs(settings.log_format)
    try:
        seeds = read_seeds(settings)
        uvloop.run(serve(settings, seeds))
    except (BadPositionsCsv, StateInUse, OSError) as error:
        sys.stderr.write(f"broker_simulator: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
