"""The outbox connector of one database: registered with a Connect worker, and waited for until it really streams.

Registering it again with the same settings changes nothing. Names follow from the database's: connector
`closeflow-outbox-<database>`, slot `closeflow_<database>`, so several databases share a worker and a server.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from closeflow.project_files import project_path
from closeflow.storage.schema.databases import address_of
from closeflow.storage.schema.migrate import DEBEZIUM
from closeflow.storage.schema.slots import copies_slots, slot_dropping, slot_looks
from closeflow.tls import SYSTEM_AUTHORITIES, ClientTls

TEMPLATE: Final = "connect/outbox-connector.json"
POLL_S: Final = 0.1
RESTARTS: Final = 3
"""How often a FAILED task is restarted: forgives a server that was still starting, not a slot that is lost."""
SLOT_PATIENCE_S: Final = 5.0
"""How long a RUNNING task may be without its slot before it is restarted; doubled each time."""
SLOT_LOST: Final = "no longer available on the server"


class NotRegistered(Exception):
    """The connector does not stream; the text says why and what to do."""


def slot_of(database: str) -> str:
    """The replication slot of the database of this name; PostgreSQL allows a-z, 0-9 and _."""
    return "closeflow_" + re.sub(r"[^a-z0-9_]", "_", database.lower())


@dataclass(frozen=True, slots=True)
class Outbox:
    """One database's connector: what it is called, and where Connect finds the database."""

    database: str
    host: str
    port: int
    credentials_file: Path
    topic_prefix: str = ""
    """Put before every topic, so that test databases can share a Kafka. Empty everywhere else."""
    database_ca: Path | None = None
    """Where the worker finds the authority of the database's certificate; then it connects to no other database."""
    failover: bool = True
    """Whether a slot that the connector makes is kept through a promotion, where the server can (PostgreSQL 17)."""

    @property
    def connector(self) -> str:
        """The name of the connector of this database in Connect."""
        return f"closeflow-outbox-{self.database}"

    @property
    def slot(self) -> str:
        """The replication slot of this database."""
        return slot_of(self.database)

    def config(self) -> dict[str, str]:
        """The whole configuration; user and password are references that only the worker resolves."""
        settings: dict[str, str] = json.loads(project_path(TEMPLATE).read_text())
        secret = self.credentials_file
        if self.database_ca is not None:
            settings |= {"database.sslmode": "verify-full", "database.sslrootcert": str(self.database_ca)}
        return settings | {
            "name": self.connector,
            "database.hostname": self.host,
            "database.port": str(self.port),
            "database.dbname": self.database,
            "database.user": f"${{file:{secret}:user}}",
            "database.password": f"${{file:{secret}:password}}",
            "slot.name": self.slot,
            "topic.prefix": self.connector,
            "transforms.outbox.route.topic.replacement": f"{self.topic_prefix}${{routedByValue}}",
        }


def outbox_of(
    dsn: str,
    credentials_file: Path,
    *,
    topic_prefix: str = "",
    host: str = "",
    port: int = 0,
    database_ca: Path | None = None,
) -> Outbox:
    """The connector of the database of `dsn`. `host` and `port`: how Connect reaches it, where that is another way."""
    there = address_of(dsn)
    return Outbox(
        database=there.database,
        host=host or there.host,
        port=port or there.port,
        credentials_file=credentials_file,
        topic_prefix=topic_prefix,
        database_ca=database_ca,
    )


def write_credentials(path: Path, password: str, *, user: str = DEBEZIUM) -> None:
    """The file that the connector's configuration refers to: readable by its owner only, replaced as a whole."""
    making = path.with_name(f"{path.name}.{os.getpid()}")
    making.unlink(missing_ok=True)
    with open(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("".join(f"{name}={_escaped(value)}\n" for name, value in (("user", user), ("password", password))))
    making.replace(path)


def _escaped(value: str) -> str:
    """A value of a Java properties file."""
    return re.sub(r"^ ", r"\\ ", value.replace("\\", "\\\\"))


def _client(connect_url: str, tls: ClientTls) -> httpx.Client:
    verify = tls.context() if connect_url.startswith("https:") else True
    return httpx.Client(base_url=connect_url, timeout=10.0, verify=verify)


def register(
    connect_url: str, outbox: Outbox, *, dsn: str, deadline_s: float = 60.0, tls: ClientTls = SYSTEM_AUTHORITIES
) -> None:
    """Bring the connector to this configuration and wait until connector and task are RUNNING and the slot is active.

    `dsn` is any login to the database (it is asked for the slot only). Raises NotRegistered after `deadline_s`, or when
    the task still fails after RESTARTS restarts; DriverError when the database does not let us in.
    """
    until = time.monotonic() + deadline_s
    patience_s = SLOT_PATIENCE_S
    with (
        _client(connect_url, tls) as connect,
        slot_looks(dsn, slot=outbox.slot, database=outbox.database) as look,
    ):
        _put(connect, outbox, until, failover=outbox.failover and copies_slots(dsn))
        _await_running(connect, outbox, until)
        while not _slot_is_active(look, outbox, until, within_s=patience_s):
            # RUNNING, yet it keeps failing to connect with the credentials that it read when it started.
            path = f"/connectors/{outbox.connector}/restart?includeTasks=true"
            _request(connect, "POST", path, until, expected=(200, 202, 204))
            _await_running(connect, outbox, until)
            patience_s *= 2


def unregister(
    connect_url: str, outbox: Outbox, *, dsn: str, deadline_s: float = 30.0, tls: ClientTls = SYSTEM_AUTHORITIES
) -> None:
    """Remove the connector, its offsets and its slot, as a database that is about to be dropped needs it. Nothing there
    is fine. Offsets that stayed would keep a new connector of this name from starting with a new slot."""
    until = time.monotonic() + deadline_s
    with _client(connect_url, tls) as connect:
        _forget_offsets(connect, outbox.connector, until)
        _request(connect, "DELETE", f"/connectors/{outbox.connector}", until, expected=(204, 404))
    with slot_dropping(dsn, slot=outbox.slot, database=outbox.database) as gone:
        while not gone():
            _pause(until, f"slot {outbox.slot} is still in use; is another worker running this connector?")


def _forget_offsets(connect: httpx.Client, name: str, until: float) -> None:
    """Connect takes offsets away only from a connector that is stopped."""
    path = f"/connectors/{name}"
    if _request(connect, "PUT", f"{path}/stop", until, expected=(202, 204, 404)).status_code == 404:
        return
    while _request(connect, "GET", f"{path}/status", until, expected=(200,)).json()["connector"]["state"] != "STOPPED":
        _pause(until, f"{name} does not stop; see the worker's log")
    _request(connect, "DELETE", f"{path}/offsets", until, expected=(200, 404))


def _put(connect: httpx.Client, outbox: Outbox, until: float, *, failover: bool) -> None:
    path = f"/connectors/{outbox.connector}/config"
    config = outbox.config() | ({"slot.failover": "true"} if failover else {})
    known = _request(connect, "GET", path, until, expected=(200, 404))
    if known.status_code == 200 and known.json() == config:
        return  # a PUT would restart the connector even so
    _request(connect, "PUT", path, until, expected=(200, 201), body=config)


def _request(
    connect: httpx.Client, method: str, path: str, until: float, *, expected: tuple[int, ...], body: object = None
) -> httpx.Response:
    """Repeats while the worker is starting, rebalancing (409) or away. A refused configuration is final."""
    while True:
        try:
            answer = connect.request(method, path, json=body)
        except httpx.TransportError as error:
            why = f"Connect at {connect.base_url} does not answer ({error}); start it, or correct --connect-url"
        else:
            if answer.status_code in expected:
                return answer
            why = f"{method} {path}: {answer.status_code} {_message(answer)}"
            if answer.status_code in (400, 401, 403):
                raise NotRegistered(why)
            if answer.status_code == 500 and method == "PUT":
                # Connect 4.3 trips over Debezium's own validation error when it cannot connect, and hides it.
                why = (
                    f"the worker cannot use the database: check the login of {DEBEZIUM}, host and port ({why[:80]}...)"
                )
        _pause(until, why)


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]


def _await_running(connect: httpx.Client, outbox: Outbox, until: float) -> None:
    name, restarts = outbox.connector, 0
    while True:
        answer = _request(connect, "GET", f"/connectors/{name}/status", until, expected=(200, 404))
        parts = _parts(answer.json()) if answer.status_code == 200 else []
        failed = [part for part in parts if part["state"] == "FAILED"]
        if len(parts) >= 2 and all(part["state"] == "RUNNING" for part in parts):
            return
        if failed and restarts == RESTARTS:
            raise NotRegistered(f"{outbox.connector} failed {restarts + 1} times: {_cause(failed[0], outbox)}")
        if failed:
            restarts += 1
            path = f"/connectors/{name}/restart?includeTasks=true&onlyFailed=true"
            _request(connect, "POST", path, until, expected=(200, 202, 204))
        states = ", ".join(part["state"] for part in parts) or "unknown to the worker"
        _pause(until, f"{name} is {states}; see the worker's log", seconds=POLL_S * (1 + 5 * bool(failed)))


def _parts(status: dict[str, Any]) -> list[dict[str, Any]]:
    return [status["connector"], *status["tasks"]]


def _cause(part: dict[str, Any], outbox: Outbox) -> str:
    """The innermost cause of a Java stack trace, else its first line."""
    if SLOT_LOST in part.get("trace", ""):
        return f"its slot {outbox.slot} was lost; a reconciler starts it afresh, see docs/runbooks/slot_lost.md"
    lines = str(part.get("trace", "no trace")).splitlines()
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return (causes[-1] if causes else lines[0])[:300]


def _slot_is_active(look: Callable[[], bool | None], outbox: Outbox, until: float, *, within_s: float) -> bool:
    patient_until = time.monotonic() + within_s
    while time.monotonic() < patient_until:
        active = look()
        if active:
            return True
        seen = "is not there" if active is None else "is not active"
        _pause(until, f"{outbox.connector} runs, but its slot {outbox.slot} {seen}; see the worker's log")
    return False


def _pause(until: float, why: str, *, seconds: float = POLL_S) -> None:
    if time.monotonic() + seconds > until:
        raise NotRegistered(why)
    time.sleep(seconds)
