"""Close positions over both doors while every byte between the processes is recorded, and look for what it may not say.

First on servers without TLS, where all of it must be found on its link: so the search finds what is there. Then on
secured ones, where none of it may be found on any connection of the loopback interface.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import psycopg

import devstack
from broker_simulator.control import PositionSpec
from closectl.import_positions import import_positions
from closeflow.domain.model import AssetType
from closeflow.storage.core.engine import make_engine
from closeflow.storage.imported_positions import NewPosition
from closeflow_client import Client
from demo.system import ACCOUNT, SIMULATOR, System
from tests.capture.recorder import Recorder

CLOSED_WITHIN_S: Final = 180.0
SYMBOLS: Final = ("WIREQ", "WIREZ")
IDS: Final = (734_512_345_671, 734_512_345_672)
KEYS: Final = ("capture-key-over-rest", "capture-key-over-grpc")


@dataclass(frozen=True, slots=True)
class Link:
    """Between whom, at which of the server's ports, and what its plain text says of a close."""

    name: str
    port: int
    says: Mapping[str, bytes]


class Failed(Exception):
    """Something was found that may not be there, or not found where it must be."""


def links(system: System, order: str) -> list[Link]:
    """Each link of the system, with what a close of ours puts on it."""
    symbol, position, key = SYMBOLS[0].encode(), str(IDS[0]).encode(), KEYS[0].encode()
    of_close = {"symbol": symbol, "client order id": order.encode()}
    stack = system.stack
    key_id, secret = (one.encode() for one in system.links.broker_keys)
    return [
        Link("services and Connect to PostgreSQL", stack.postgres_port, {**of_close, "idempotency key": key}),
        Link(
            "services and Connect to Kafka",
            int(stack.kafka_bootstrap_servers.rpartition(":")[2]),
            {**of_close, "position id": position},
        ),
        Link(
            "services to the broker",
            system.port(SIMULATOR),
            {**of_close, "API key": key_id, "API secret": secret},
        ),
        Link(
            "caller to close-api, REST",
            system.port("close-api"),
            {"position id": position, "idempotency key": key, "token": system.token()[:40].encode()},
        ),
        Link("caller to close-api, gRPC", system.port("close-api gRPC"), {"idempotency key": KEYS[1].encode()}),
        Link(
            "reconciler to Connect",
            int(stack.connect_url.rpartition(":")[2]),
            {"connector": system.outbox.connector.encode()},
        ),
    ]


def set_up(system: System) -> None:
    """All services, and two positions that the broker holds too."""
    system.wipe()
    system.prepare()
    system.start(SIMULATOR)
    with system.control() as control:
        control.set_positions([PositionSpec(symbol=one, asset_type="stock", quantity=Decimal(10)) for one in SYMBOLS])
        for symbol in SYMBOLS:
            control.pin_quote(symbol, "99.95", "100.05")
    system.start_all()
    asyncio.run(_import(system))


async def _import(system: System) -> None:
    rows = [
        NewPosition(
            position_id=position_id,
            account_id=ACCOUNT,
            symbol=symbol,
            asset_type=AssetType.STOCK,
            quantity=Decimal(10),
            multiplier=Decimal(1),
            currency="USD",
        )
        for position_id, symbol in zip(IDS, SYMBOLS, strict=True)
    ]
    database = make_engine(system.dsn("closeflow_operator"), pool_size=1, application_name="capture")
    try:
        await import_positions(database, rows, broker="alpaca")
    finally:
        await database.dispose()


def close_both(system: System) -> str:
    """One over each door; the client order id of the first, once both are closed."""
    ca = system.links.administrator.ca
    for address, position_id, key in zip((system.url(), system.grpc_address()), IDS, KEYS, strict=True):
        with Client(address, system.token(), ca_file=ca) as client:
            client.close(position_id, key=key)
    until = time.monotonic() + CLOSED_WITHIN_S
    with psycopg.connect(system.admin_dsn, autocommit=True) as database:
        open_ones = "SELECT count(*) FROM positions WHERE status <> 'closed'"
        while (found := database.execute(open_ones).fetchone()) and found[0]:
            if time.monotonic() > until:
                raise Failed(f"not closed within {CLOSED_WITHIN_S:.0f} s; the logs are in {system.directory}")
            time.sleep(0.1)
        order = database.execute("SELECT client_order_id FROM orders WHERE symbol = %s", (SYMBOLS[0],)).fetchone()
    assert order is not None
    return str(order[0])


def record(*, secure: bool) -> None:
    """One recording of both closes, and what was found in it. Raises Failed."""
    instance = "capture" if secure else "capture-plain"
    stack = devstack.up(instance, secure=secure)
    system = System(stack, f"closeflow_{instance.replace('-', '_')}", stack.data_dir / "services")
    try:
        with Recorder() as recorded:
            set_up(system)
            order = close_both(system)
            time.sleep(2)  # What is asked only now and then: Connect, and what was published.
        look(recorded, links(system, order), secure=secure)
    finally:
        system.close()
        devstack.reset(instance)


def look(recorded: Recorder, every: list[Link], *, secure: bool) -> None:
    """Print what each link said. Raises Failed where that is not as it must be."""
    if recorded.dropped:
        raise Failed(f"{recorded.dropped} packets were not recorded, because the machine is busy; try again")
    everything = [bytes(text) for text in recorded.streams.values()]
    wrong = []
    for link in every:
        streams = recorded.of_port(link.port)
        told = []
        for what, needle in link.says.items():
            here = sum(text.count(needle) for text in streams)
            anywhere = sum(text.count(needle) for text in everything)
            told.append(f"{what} {anywhere if secure else here}")
            if (secure and anywhere) or (not secure and not here):
                wrong.append(f"{link.name}: {what} was found {anywhere if secure else here} times")
        print(f"  {link.name:36} {sum(map(len, streams)):>9} bytes   found: {', '.join(told)}")
        if not streams:
            wrong.append(f"{link.name}: nothing was recorded")
    if wrong:
        raise Failed("; ".join(wrong))


def main() -> int:
    """0: in plain text all was found, secured nothing; 1 where not; 2 where it cannot record here."""
    if os.geteuid() != 0:
        print("recording what goes between processes needs root", file=sys.stderr)
        return 2
    try:
        for secure in (False, True):
            print("secured" if secure else "in plain text")
            record(secure=secure)
    except Failed as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except devstack.StackError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print("in plain text everything was found on its link, secured nothing on any connection")
    return 0


if __name__ == "__main__":
    sys.exit(main())
