"""close-api as a process with both doors and authentication, on a real PostgreSQL, and who may come in."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx
import jwt
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from demo.services import Service, ServiceSpec, free_port
from devstack import Stack
from tests.conftest import Database, fresh_database

ISSUER: Final = "https://issuer.example"
AUDIENCE: Final = "closeflow"
MINE: Final = "MINE"
FOREIGN: Final = "FOREIGN"
ALL_SCOPES: Final = "close:write close:read close:operate"


@dataclass(frozen=True)
class Issuer:
    """Signs tokens with a key that is in its key set."""

    key: Ed25519PrivateKey
    kid: str = "one"

    def jwks(self) -> str:
        raw = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        return json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.kid, "alg": "EdDSA"}]})

    def token(self, *accounts: str, subject: str = "desk", scope: str = ALL_SCOPES, **claims: object) -> str:
        """Of these accounts, valid for an hour; `claims` are put over its own."""
        now = int(time.time())
        payload = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "iat": now,
            "exp": now + 3600,
            "accounts": list(accounts),
            "scope": scope,
        }
        return jwt.encode({**payload, **claims}, self.key, algorithm="EdDSA", headers={"kid": self.kid})


@dataclass(frozen=True)
class Running:
    """A close-api that runs."""

    service: Service
    http_port: int
    grpc_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc_target(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"


@dataclass
class Desk:
    """A database with positions of two accounts, an issuer of tokens, and the processes that accept closes."""

    database: Database
    directory: Path
    issuer: Issuer = field(default_factory=lambda: Issuer(Ed25519PrivateKey.generate()))

    def __post_init__(self) -> None:
        self.jwks.write_text(self.issuer.jwks())
        self.empty()

    def empty(self) -> None:
        """Leave nothing but two accounts; ids of positions go on."""
        self.run("TRUNCATE accounts, positions, close_requests, outbox_events, incidents, operator_actions CASCADE")
        self.run("INSERT INTO accounts (account_id, broker) VALUES (%s, 'sim'), (%s, 'sim')", MINE, FOREIGN)

    @property
    def jwks(self) -> Path:
        return self.directory / "jwks.json"

    @contextmanager
    def api(self, *, ports: tuple[int, int] | None = None, **settings: str) -> Iterator[Running]:
        """One more close-api under its own role, stopped at the end. A setting that is "" is left out."""
        http_port, grpc_port = ports or (free_port(), free_port())
        environment = {
            "POSTGRES_DSN": self.database.dsn("closeflow_close_api"),
            "OPERATOR_POSTGRES_DSN": self.database.dsn("closeflow_operator"),
            "AUTH": "jwt",
            "JWKS": str(self.jwks),
            "ISSUER": ISSUER,
            "AUDIENCE": AUDIENCE,
            "HTTP_PORT": str(http_port),
            "GRPC_PORT": str(grpc_port),
            "REPLICATION_SLOT": f"closeflow_{self.database.name}",
        } | settings
        spec = ServiceSpec(
            name=f"close-api-{http_port}",
            module="close_api",
            environment={f"CLOSE_API_{name}": value for name, value in environment.items() if value},
            ready_url=f"http://127.0.0.1:{http_port}/healthz",
        )
        running = Running(Service(spec, directory=self.directory), http_port, grpc_port)
        try:
            running.service.await_ready()
            yield running
        finally:
            running.service.stop()

    def run(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """As the owner of the database; the rows, if there are any."""
        with psycopg.connect(self.database.admin_dsn, autocommit=True) as owner:
            cursor = owner.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def open_positions(
        self, count: int, quantity: str = "10", *, account: str = MINE, asset_type: str = "stock"
    ) -> list[int]:
        found = self.run(
            "INSERT INTO positions (account_id, symbol, asset_type, opening_qty, quantity)"
            " SELECT %s, 'S' || gen_random_uuid(), %s, %s, %s FROM generate_series(1, %s) RETURNING id",
            account,
            asset_type,
            Decimal(quantity),
            Decimal(quantity),
            count,
        )
        return [int(one) for (one,) in found]

    def requests(self) -> int:
        """How many close requests there are."""
        return int(self.run("SELECT count(*) FROM close_requests")[0][0])


@pytest.fixture(scope="module")
def _desk(stack: Stack, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with fresh_database(stack, template) as database:
        yield Desk(database, tmp_path_factory.mktemp("doors"))


@pytest.fixture(scope="module")
def api(_desk: Desk) -> Iterator[Running]:
    """One for the tests of a file, because a start takes seconds."""
    with _desk.api() as running:
        yield running


@pytest.fixture
def desk(_desk: Desk) -> Desk:
    """Empty at the beginning of each test."""
    _desk.empty()
    return _desk


@pytest.fixture
def rest(api: Running, desk: Desk) -> Iterator[httpx.Client]:
    """A client of the REST door with a token of the account MINE."""
    headers = {"Authorization": f"Bearer {desk.issuer.token(MINE)}"}
    with httpx.Client(base_url=api.url, headers=headers, timeout=10) as client:
        yield client
