"""The whole system on one instance of the embedded stack: database, topics, connector, broker and services."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import devstack
from broker_simulator.control import Control
from closectl.development_key import AUDIENCE, ISSUER, JWKS, Algorithm, Grant, Scope, issue_token, make_key
from closectl.platform.connector import Outbox, outbox_of, register, unregister, write_credentials
from closeflow.kafka.apply_topics import ensure_topics
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.topics import load_topics, remove_topics
from closeflow.storage.schema import migrate
from closeflow.storage.schema.databases import drop_database, ensure_database
from demo.links import Links
from demo.services import Program, Service, ServiceSpec, free_port

REPOSITORY: Final = Path(__file__).resolve().parents[3]
ACCOUNT: Final = "main"
TOKEN_TTL: Final = timedelta(days=1)
SIMULATOR: Final = "broker-simulator"
SERVICES: Final = ("close-api", "order-submitter", "fill-processor", "broker-gateway", "reconciler")
BOARD: Final = "close-board"
"""Not one of those that `start_all` starts: it changes nothing, and each start costs seconds."""
Report = Callable[[str], None]


def quiet(_line: str) -> None:
    """Report nothing."""


@dataclass(slots=True)
class System:
    """Set up with `prepare`, then `start` services; `close` stops what runs.

    `overrides` are settings by service, in environment form: {"order-submitter": {"LEASE_S": "5"}}. `programs` says by
    the name of a process ("close-api-2") which version it is of, if not this clone's. Without `failover_slot` the
    connector's slot ends with its server.
    """

    stack: devstack.Stack
    database: str
    directory: Path
    report: Report = quiet
    overrides: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    programs: dict[str, Program] = field(default_factory=dict)
    failover_slot: bool = True
    running: dict[str, Service] = field(default_factory=dict)
    _ports: dict[str, int] = field(default_factory=dict)
    _links: Links | None = None

    # where things are

    def port(self, name: str) -> int:
        """The port of a service, chosen at its first use and kept over restarts."""
        return self._ports.setdefault(name, free_port())

    def url(self, name: str = "close-api") -> str:
        """The base address of a service's HTTP server: close-api's and the broker's serve TLS on a secure instance;
        what the others have is for health checks alone."""
        secured = name == SIMULATOR or name.startswith("close-api")
        return f"{self.links.scheme if secured else 'http'}://127.0.0.1:{self.port(name)}"

    def board_url(self, name: str = BOARD) -> str:
        """The page of a board."""
        return f"{self.links.scheme}://127.0.0.1:{self.port(f'{name} page')}"

    def board_login(self, name: str = BOARD) -> str:
        """The page of a board with a token, in the part of the address that no browser sends to a server."""
        return f"{self.board_url(name)}/login#token={self.token()}"

    @property
    def links(self) -> Links:
        """How everything here reaches each other."""
        if self._links is None:
            self._links = Links(self.stack)
        return self._links

    def grpc_address(self, name: str = "close-api") -> str:
        """Where a close-api listens for gRPC, as the Python client has it."""
        return f"grpc{'s' if self.links.secure else ''}://127.0.0.1:{self.port(f'{name} gRPC')}"

    @property
    def admin_dsn(self) -> str:
        """The owner's connection to this system's own database."""
        return urlunsplit(urlsplit(self.stack.admin_dsn)._replace(path=f"/{self.database}"))

    def dsn(self, role: str) -> str:
        """The DSN of a service's role, `closeflow_<service>`."""
        return self.stack.postgres_dsn(role, self.links.passwords()[role], self.database)

    @property
    def outbox(self) -> Outbox:
        """The connector that publishes this database's outbox."""
        found = outbox_of(
            self.admin_dsn,
            self.links.debezium_credentials(),
            host=self.stack.connect_postgres_host,
            port=self.stack.connect_postgres_port,
            database_ca=self.links.administrator.ca,
        )
        return replace(found, failover=self.failover_slot)

    @property
    def kafka(self) -> KafkaConnection:
        """The stack's Kafka, as its administrator."""
        return self.links.kafka

    def token(
        self, *, subject: str = "demo", accounts: Sequence[str] | None = None, scopes: Sequence[Scope] = tuple(Scope)
    ) -> str:
        """Of a caller who may do everything with every account, if nothing else is said; good for a day."""
        grant = Grant(subject=subject, accounts=accounts, scopes=scopes)
        return issue_token(self._key, grant, ttl=TOKEN_TTL, now=datetime.now(UTC))

    def authorization(self) -> dict[str, str]:
        """The header of such a caller."""
        return {"Authorization": f"Bearer {self.token()}"}

    @property
    def _key(self) -> Path:
        """The directory of the key that signs tokens, made at its first use."""
        directory = self.links.secrets / "token-key" if self.links.secure else self.directory / "token-key"
        if not (directory / JWKS).exists():
            make_key(directory, Algorithm.EDDSA)
        return directory

    def control(self) -> Control:
        """The broker-simulator's control endpoint."""
        return Control(self.url(SIMULATOR), verify=self.links.verify)

    # set up

    def wipe(self) -> None:
        """Remove the connector, the database, the topics and the broker's memory; nothing there is fine."""
        if self.database == urlsplit(self.stack.admin_dsn).path.strip("/"):
            raise ValueError(f"{self.database} is the stack's own database; choose another name")
        unregister(self.stack.connect_url, self.outbox, dsn=self.stack.admin_dsn, tls=self.links.administrator)
        drop_database(self.stack.admin_dsn, self.database)
        asyncio.run(remove_topics(self.kafka, load_topics(REPOSITORY / "schemas" / "topics")))
        for file in self.directory.glob("broker-simulator.sqlite3*"):
            file.unlink()

    def prepare(self) -> None:
        """Database, migrations, roles, topics and connector; what is there already stays as it is."""
        self.directory.mkdir(parents=True, exist_ok=True)
        ensure_database(self.stack.admin_dsn, self.database)
        self.report("migrations and roles")
        migrate.upgrade(self.admin_dsn)
        migrate.set_role_passwords(self.admin_dsn, self.links.passwords())
        self.report("topics")
        asyncio.run(ensure_topics(self.kafka, load_topics(REPOSITORY / "schemas" / "topics")))
        self.report("outbox connector")
        if not self.links.secure:
            write_credentials(self.outbox.credentials_file, self.links.passwords()[migrate.DEBEZIUM])
        register(self.stack.connect_url, self.outbox, dsn=self.admin_dsn, tls=self.links.administrator)

    # run

    def start(self, *names: str) -> None:
        """Start the named processes together and wait until each is ready. A second close-api is "close-api-2"."""
        for service in [self.launch(name) for name in names]:
            service.await_ready()
            self.report(service.spec.name)

    def launch(self, name: str) -> Service:
        """Start the named process, ready or not. It ends with the calling thread (devstack.processes)."""
        self.running[name] = service = Service(self._spec(name), directory=self.directory, verify=self.links.verify)
        return service

    def start_all(self) -> None:
        """The broker, if it does not run yet, then every service."""
        if SIMULATOR not in self.running:
            self.start(SIMULATOR)
        self.start(*SERVICES)

    def stop(self, name: str) -> int:
        """Ask the service to end, and wait for it; returns its exit code."""
        return self.running.pop(name).stop()

    def kill(self, name: str) -> None:
        """kill -9, as a crash does it."""
        self.running.pop(name).kill()

    def close(self) -> None:
        """Stop everything that runs, the services before the broker."""
        for name in sorted(self.running, key=lambda one: one == SIMULATOR):
            self.running[name].ask_to_stop()
        while self.running:
            self.running.popitem()[1].stop()

    def closectl(self) -> dict[str, str]:
        """The settings of closectl for this system, as an operator has them."""
        settings = (
            self.links.closectl()
            | self._login("closeflow_operator")
            | {
                "API_URL": self.url(),
                "API_TOKEN": self.token(),
                "BROKER_URL": self.url(SIMULATOR),
                "BROKER_ACCOUNT_ID": ACCOUNT,
            }
        )
        return {f"CLOSECTL_{name}": value for name, value in settings.items()}

    def _login(self, role: str, name: str = "POSTGRES") -> dict[str, str]:
        """The settings `<name>_DSN`, and on a secure instance `<name>_PASSWORD_FILE`: then the DSN is no secret."""
        if not self.links.secure:
            return {f"{name}_DSN": self.dsn(role)}
        parts = urlsplit(self.dsn(role))
        dsn = urlunsplit(parts._replace(netloc=f"{role}@{parts.hostname}:{parts.port}"))
        return {f"{name}_DSN": dsn, f"{name}_PASSWORD_FILE": str(self.links.secrets / "postgres" / role)}

    def _spec(self, name: str) -> ServiceSpec:
        service = next(one for one in (*SERVICES, SIMULATOR, BOARD) if name == one or name.startswith(f"{one}-"))
        prefix = service.upper().replace("-", "_")
        settings = {**self._settings(service, name), **self.overrides.get(service, {})}
        path = "/healthz" if service == SIMULATOR else "/readyz"
        return ServiceSpec(
            name=name,
            module=service.replace("-", "_"),
            environment={f"{prefix}_{key}": value for key, value in settings.items()},
            ready_url=f"{self.url(name)}{path}",
            program=self.programs.get(name, Program()),
        )

    def _settings(self, service: str, name: str) -> dict[str, str]:
        port = str(self.port(name))
        if service == SIMULATOR:
            state = {"PORT": port, "STATE_PATH": str(self.directory / "broker-simulator.sqlite3")}
            return state | self.links.simulator()
        if service == BOARD:
            return self._board_settings(name)
        login = self._login(f"closeflow_{service.replace('-', '_')}")
        if service == "close-api":
            return {
                **login,
                **self._login("closeflow_operator", "OPERATOR_POSTGRES"),
                **self.links.server("close-api"),
                "AUTH": "jwt",
                "JWKS": str(self._key / JWKS),
                "ISSUER": ISSUER,
                "AUDIENCE": AUDIENCE,
                "HTTP_PORT": port,
                "GRPC_PORT": str(self.port(f"{name} gRPC")),
                "REPLICATION_SLOT": self.outbox.slot,
            }
        settings = {**login, **self.links.kafka_of(service), "HEALTH_PORT": port}
        if service == "fill-processor":
            return settings
        broker = self.url(SIMULATOR)
        settings |= {**self.links.broker(), "BROKER_URL": broker, "BROKER_ACCOUNT_ID": ACCOUNT}
        if service == "broker-gateway":
            return settings | {"BROKER_STREAM_URL": broker.replace("http", "ws", 1) + "/stream"}
        settings["MARKET_DATA_URL"] = broker
        if service == "order-submitter":
            settings["BROKER_DEDUPLICATION"] = "forever"  # what the simulator proves
            return settings
        outbox = self.outbox
        return (
            settings
            | self.links.connect("reconciler")
            | {
                "BROKER_DEDUPLICATION": "forever",
                "CONNECT_URL": self.stack.connect_url,
                "CONNECTOR": outbox.connector,
                "REPLICATION_SLOT": outbox.slot,
            }
        )

    def _board_settings(self, name: str) -> dict[str, str]:
        settings = {
            **self.links.kafka_of(BOARD),
            **self.links.server(BOARD),
            "HEALTH_PORT": str(self.port(name)),
            "HTTP_PORT": str(self.port(f"{name} page")),
            "CLOSE_API_URL": self.url(),
            "INSTANCE": self.stack.instance,
        }
        authority = self.links.administrator.ca
        return settings if authority is None else settings | {"CLOSE_API_CA_PATH": str(authority)}
