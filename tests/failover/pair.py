"""A primary and its standby behind one address, for a whole system or for a connector alone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import psycopg

import devstack
from demo.services import free_port
from devstack.replicas import Server, standby_of
from tests.failover.address import Address

STANDBY: Final = "standby"
connect: Final = partial(psycopg.connect, autocommit=True, connect_timeout=5)


@dataclass(slots=True)
class Pair:
    """`stack` is the instance's, with this pair's address in place of its PostgreSQL."""

    stack: devstack.Stack
    directory: Path
    address: Address
    link: Address
    """Between the two servers."""
    primary: Server
    standby: Server | None = None
    synchronous: bool = False

    def add_standby(self, database: str, *, slots: bool, waits: bool, synchronous: bool) -> Server:
        """`slots`: the failover slots of `database` are synchronised. `waits`: logical slots wait for the standby."""
        through = replace_port(self.primary, self.link.port)
        self.standby = standby_of(
            through, fresh(self.directory / "standby"), free_port(), database=database, synced_slots=slots
        )
        self.synchronous = synchronous
        self.primary.configure(
            {
                "synchronized_standby_slots": STANDBY if waits else "",
                "synchronous_standby_names": STANDBY if synchronous else "",
            }
        )
        self.primary.execute("SELECT pg_reload_conf()")
        wanted = "sync" if synchronous else "async"
        state = "SELECT sync_state FROM pg_stat_replication WHERE application_name = 'standby'"
        wait_for(lambda: self.primary.execute(state) == [(wanted,)], f"the standby is {wanted}")
        return self.standby

    def await_slot(self, name: str) -> None:
        """Until the standby holds a copy of the slot that a promotion keeps."""
        standby = self.standby
        assert standby is not None
        ready = "SELECT slot_name FROM pg_replication_slots WHERE synced AND NOT temporary"
        wait_for(lambda: (name,) in standby.execute(ready), f"slot {name} is synchronised", within_s=90)

    def fail_over(self) -> float:
        """The primary is gone at once; the standby is promoted, then the address leads to it. Returns how long the
        promotion took."""
        assert self.standby is not None
        self.primary.kill()
        self.address.leads_to(None)
        self.link.leads_to(None)
        began = time.monotonic()
        self.standby.promote()
        self.address.leads_to(self.standby.port)
        return time.monotonic() - began


def replace_port(server: Server, port: int) -> Server:
    """The same server as seen through an address."""
    seen = Server(server.stack, server.directory, port, server.connect)
    seen.run = server.run
    return seen


def fresh(directory: Path) -> Path:
    """Without what an earlier run left."""
    shutil.rmtree(directory, ignore_errors=True)
    return directory


def behind(stack: devstack.Stack, address: Address) -> devstack.Stack:
    """The stack with its PostgreSQL at the address."""
    parts = urlsplit(stack.admin_dsn)
    login = parts.netloc.rpartition("@")[0]
    dsn = urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{address.port}"))
    return replace(stack, postgres_port=address.port, admin_dsn=dsn)


@contextmanager
def primary_behind_an_address(stack: devstack.Stack, directory: Path) -> Iterator[Pair]:
    """A new primary without a standby yet; all of it is gone at the end."""
    primary = Server(stack, fresh(directory / "primary"), free_port(), connect)
    primary.start()
    with Address(primary.port) as address, Address(primary.port) as link:
        pair = Pair(behind(stack, address), directory, address, link, primary)
        try:
            yield pair
        finally:
            primary.kill()
            if pair.standby is not None:
                pair.standby.kill()
            shutil.rmtree(directory / "primary", ignore_errors=True)
            shutil.rmtree(directory / "standby", ignore_errors=True)


def wait_for(condition: Callable[[], Any], what: str, *, within_s: float = 60.0) -> float:
    """Returns how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, f"not within {within_s:g} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - began
