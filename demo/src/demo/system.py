"""The whole system on one instance of the embedded stack: database, topics, connector, broker and services."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import devstack
from broker_simulator.control import Control
from broker_simulator.settings import DEFAULT_KEY_ID, DEFAULT_SECRET_KEY
from closectl.development_key import AUDIENCE, ISSUER, JWKS, Algorithm, Grant, Scope, issue_token, make_key
from closectl.platform.connector import Outbox, outbox_of, register, unregister, write_credentials
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.topics import ensure_topics, load_topics, remove_topics
from closeflow.storage.schema import migrate
from closeflow.storage.schema.databases import drop_database, ensure_database
from demo.services import Service, ServiceSpec, free_port

REPOSITORY: Final = Path(__file__).resolve().parents[3]
ACCOUNT: Final = "main"
TOKEN_TTL: Final = timedelta(days=1)
SIMULATOR: Final = "broker-simulator"
SERVICES: Final = ("close-api", "order-submitter", "fill-processor", "broker-gateway", "reconciler")
Report = Callable[[str], None]


def quiet(_line: str) -> None:
    """Report nothing."""


@dataclass(slots=True)
class System:
    """Set up with `prepare`, then `start` services; `close` stops what runs.

    `overrides` are settings by service, in environment form: {"order-submitter": {"LEASE_S": "5"}}.
    """

    stack: devstack.Stack
    database: str
    directory: Path
    report: Report = quiet
    overrides: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    running: dict[str, Service] = field(default_factory=dict)
    _ports: dict[str, int] = field(default_factory=dict)

    # where things are

    def port(self, name: str) -> int:
        """The port of a service, chosen at its first use and kept over restarts."""
        return self._ports.setdefault(name, free_port())

    def url(self, name: str = "close-api") -> str:
        """The base address of a service's HTTP server."""
        return f"http://127.0.0.1:{self.port(name)}"

    def grpc_address(self, name: str = "close-api") -> str:
        """Where a close-api listens for gRPC, as the Python client has it."""
        return f"grpc://127.0.0.1:{self.port(f'{name} gRPC')}"

    @property
    def admin_dsn(self) -> str:
        """The owner's connection to this system's own database."""
        return urlunsplit(urlsplit(self.stack.admin_dsn)._replace(path=f"/{self.database}"))

    def dsn(self, role: str) -> str:
        """The DSN of a service's role, `closeflow_<service>`."""
        return self.stack.postgres_dsn(role, self._passwords()[role], self.database)

    @property
    def outbox(self) -> Outbox:
        """The connector that publishes this database's outbox."""
        return outbox_of(self.admin_dsn, self.stack.data_dir / "debezium.properties")

    @property
    def kafka(self) -> KafkaConnection:
        """The stack's Kafka, in plain text on the loopback address."""
        return KafkaConnection(self.stack.kafka_bootstrap_servers)

    def token(self) -> str:
        """Of a caller who may do everything with every account; good for a day."""
        grant = Grant(subject="demo", accounts=None, scopes=list(Scope))
        return issue_token(self._key, grant, ttl=TOKEN_TTL, now=datetime.now(UTC))

    def authorization(self) -> dict[str, str]:
        """The header of such a caller."""
        return {"Authorization": f"Bearer {self.token()}"}

    @property
    def _key(self) -> Path:
        """The directory of the key that signs tokens, made at its first use."""
        directory = self.directory / "token-key"
        if not (directory / JWKS).exists():
            make_key(directory, Algorithm.EDDSA)
        return directory

    def control(self) -> Control:
        """The broker-simulator's control endpoint."""
        return Control(self.url(SIMULATOR))

    # set up

    def wipe(self) -> None:
        """Remove the connector, the database, the topics and the broker's memory; nothing there is fine."""
        if self.database == urlsplit(self.stack.admin_dsn).path.strip("/"):
            raise ValueError(f"{self.database} is the stack's own database; choose another name")
        unregister(self.stack.connect_url, self.outbox, dsn=self.stack.admin_dsn)
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
        migrate.set_role_passwords(self.admin_dsn, self._passwords())
        self.report("topics")
        asyncio.run(ensure_topics(self.kafka, load_topics(REPOSITORY / "schemas" / "topics")))
        self.report("outbox connector")
        write_credentials(self.outbox.credentials_file, self._passwords()[migrate.DEBEZIUM])
        register(self.stack.connect_url, self.outbox, dsn=self.admin_dsn)

    # run

    def start(self, *names: str) -> None:
        """Start the named processes together and wait until each is ready. A second close-api is "close-api-2"."""
        for service in [self.launch(name) for name in names]:
            service.await_ready()
            self.report(service.spec.name)

    def launch(self, name: str) -> Service:
        """Start the named process, ready or not. It ends with the calling thread (devstack.processes)."""
        self.running[name] = service = Service(self._spec(name), directory=self.directory)
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

    def _passwords(self) -> dict[str, str]:
        return migrate.role_passwords(str(urlsplit(self.stack.admin_dsn).password))

    def _spec(self, name: str) -> ServiceSpec:
        service = next(one for one in (*SERVICES, SIMULATOR) if name == one or name.startswith(f"{one}-"))
        prefix = service.upper().replace("-", "_")
        settings = {**self._settings(service, name), **self.overrides.get(service, {})}
        path = "/healthz" if service == SIMULATOR else "/readyz"
        return ServiceSpec(
            name=name,
            module=service.replace("-", "_"),
            environment={f"{prefix}_{key}": value for key, value in settings.items()},
            ready_url=f"{self.url(name)}{path}",
        )

    def _settings(self, service: str, name: str) -> dict[str, str]:
        port = str(self.port(name))
        if service == SIMULATOR:
            return {"PORT": port, "STATE_PATH": str(self.directory / "broker-simulator.sqlite3")}
        dsn = self.dsn(f"closeflow_{service.replace('-', '_')}")
        if service == "close-api":
            return {
                "POSTGRES_DSN": dsn,
                "OPERATOR_POSTGRES_DSN": self.dsn("closeflow_operator"),
                "AUTH": "jwt",
                "JWKS": str(self._key / JWKS),
                "ISSUER": ISSUER,
                "AUDIENCE": AUDIENCE,
                "HTTP_PORT": port,
                "GRPC_PORT": str(self.port(f"{name} gRPC")),
                "REPLICATION_SLOT": self.outbox.slot,
            }
        settings = {
            "POSTGRES_DSN": dsn,
            "KAFKA_BOOTSTRAP_SERVERS": self.stack.kafka_bootstrap_servers,
            "HEALTH_PORT": port,
        }
        if service == "fill-processor":
            return settings
        broker = self.url(SIMULATOR)
        settings |= {
            "BROKER_URL": broker,
            "BROKER_KEY_ID": DEFAULT_KEY_ID,
            "BROKER_SECRET_KEY": DEFAULT_SECRET_KEY,
            "BROKER_ACCOUNT_ID": ACCOUNT,
        }
        if service == "broker-gateway":
            return settings | {"BROKER_STREAM_URL": broker.replace("http://", "ws://") + "/stream"}
        settings["MARKET_DATA_URL"] = broker
        if service == "order-submitter":
            settings["BROKER_DEDUPLICATION"] = "forever"  # what the simulator proves
            return settings
        outbox = self.outbox
        return settings | {
            "CONNECT_URL": self.stack.connect_url,
            "CONNECTOR": outbox.connector,
            "REPLICATION_SLOT": outbox.slot,
        }
