"""The secrets of one system in one directory: what is missing is made, and nothing is ever overwritten."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from closectl.certificates import (
    BadPair,
    Pair,
    hosts_of,
    is_signed_by,
    key_pem,
    make_authority,
    new_key,
    read_key,
    read_pair,
    sign,
)
from closectl.development_key import Algorithm, KeyTrouble, make_key
from closeflow.storage.schema import migrate

CA: Final = "ca.pem"
CA_KEY: Final = "ca.key"
SERVERS: Final = ("postgres", "kafka", "connect", "broker-simulator", "close-api", "close-board")
CLIENTS: Final = ("closectl", "reconciler")
"""Who shows a certificate: Kafka's administrator, who also registers the connector, and who watches the connector."""
KAFKA_PRINCIPALS: Final = (
    "order-submitter",
    "broker-gateway",
    "fill-processor",
    "reconciler",
    "close-board",
    "connect",
)
POSTGRES_ADMIN: Final = "closeflow_admin"
TOKEN_KEY: Final = "token-key"
RENEW_WITHIN: Final = timedelta(days=30)
_PRIVATE: Final = 0o400
_PUBLIC: Final = 0o444


class SecretsTrouble(Exception):
    """The directory cannot be completed; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Numeric user and group of files."""

    user: int
    group: int


@dataclass(slots=True)
class SecretsDirectory:
    """`hosts` are more names or addresses of servers, beside their own, localhost and 127.0.0.1. `owners` are by
    directory, `""` for all others; without one, files belong to whoever makes them."""

    path: Path
    now: datetime
    hosts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    owners: Mapping[str, Owner] = field(default_factory=dict)
    days: int = 397
    made: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def complete(self) -> None:
        """Make what is missing; `made` then lists it, and `notes` says which certificates end soon. Raises
        SecretsTrouble."""
        try:
            self._folder(self.path, 0o755)
            authority = self._authority()
            for name in SERVERS:
                self._pair(authority, name, ["localhost", "127.0.0.1", name, *self.hosts.get(name, ())])
            for name in CLIENTS:
                self._pair(authority, name, [])
            for role in (*migrate.ROLES, POSTGRES_ADMIN):
                self._password(f"postgres/{role}")
            for principal in KAFKA_PRINCIPALS:
                self._password(f"kafka/{principal}")
            self._password("broker/key-id", characters=10)
            self._password("broker/secret-key")
            self._connect(authority)
            self._token_key()
            self._give_to_owners()
        except OSError as error:
            raise SecretsTrouble(f"{error.filename or self.path}: {error.strerror or error}") from None

    def _authority(self) -> Pair:
        certificate, key = self.path / CA, self.path / CA_KEY
        if not certificate.exists() and not key.exists():
            made = make_authority(self.now)
            self._write(CA_KEY, made.key_pem)
            self._write(CA, made.certificate_pem, _PUBLIC)
            return made
        for path in (certificate, key):
            if not path.exists():
                raise SecretsTrouble(f"{path} is missing, and without it nothing can be signed; put it back")
        return self._read(certificate, key)

    def _pair(self, authority: Pair, name: str, hosts: Sequence[str]) -> None:
        """`tls.pem`, `tls.key`, and both with the authority in `keystore.pem`."""
        folder = self.path / name
        certificate, key = folder / "tls.pem", folder / "tls.key"
        if not key.exists():
            if certificate.exists():
                raise SecretsTrouble(f"{certificate} is there without its key; remove it, and a new pair is made")
            self._write(f"{name}/tls.key", key_pem(new_key()))
        if not certificate.exists():
            try:
                private = read_key(key.read_bytes())
            except BadPair as error:
                raise SecretsTrouble(f"{key}: {error}; remove it, and a new pair is made") from None
            made = sign(authority, private, name, hosts=hosts, now=self.now, days=self.days)
            self._write(f"{name}/tls.pem", made.certificate_pem, _PUBLIC)
        pair = self._read(certificate, key)
        self._check(pair, certificate, authority, hosts)
        store = pair.key_pem + pair.certificate_pem + authority.certificate_pem
        kept = folder / "keystore.pem"
        if kept.exists() and kept.read_bytes() != store:
            raise SecretsTrouble(f"{kept} is not of the certificate beside it; remove it, and it is made anew")
        self._write(f"{name}/keystore.pem", store)

    def _check(self, pair: Pair, path: Path, authority: Pair, hosts: Sequence[str]) -> None:
        again = f"remove {path} and keystore.pem beside it, and new ones are made"
        if not is_signed_by(pair.certificate, authority):
            raise SecretsTrouble(f"{path} is not signed by {self.path / CA}; {again}")
        if lacking := sorted(set(hosts) - set(hosts_of(pair.certificate))):
            raise SecretsTrouble(f"{path} is not good for {', '.join(lacking)}; {again}")
        ends_at = pair.certificate.not_valid_after_utc
        if ends_at - self.now < RENEW_WITHIN:
            self.notes.append(f"{path} ends on {ends_at:%Y-%m-%d}; {again}")

    def _connect(self, authority: Pair) -> None:
        """What the Connect worker's settings refer to: Debezium's login, and the worker's own secrets."""
        password = self._text(f"postgres/{migrate.DEBEZIUM}")
        self._properties("connect/debezium.properties", {"user": migrate.DEBEZIUM, "password": password})
        self._password("connect/keystore-password")
        secured_by = self._text("connect/keystore-password")
        worker = {"username": "connect", "password": self._text("kafka/connect"), "keystore.password": secured_by}
        self._properties("connect/worker.properties", worker)
        self._write("connect/truststore.p12", authority.java_truststore(secured_by))
        pair, store = self._read(self.path / "connect/tls.pem", self.path / "connect/tls.key"), "connect/keystore.p12"
        if not (self.path / store).exists():
            self._write(store, pair.pkcs12(secured_by, authority))
        elif not pair.is_in((self.path / store).read_bytes(), secured_by):
            raise SecretsTrouble(f"{self.path / store} is not of tls.pem beside it; remove it, and it is made anew")

    def _token_key(self) -> None:
        if not (self.path / TOKEN_KEY).exists():
            try:
                make_key(self.path / TOKEN_KEY, Algorithm.EDDSA)
            except KeyTrouble as error:
                raise SecretsTrouble(str(error)) from None
            self.made.append(f"{TOKEN_KEY}/")

    def _password(self, name: str, *, characters: int = 32) -> None:
        """Letters and digits: it needs no quoting in a DSN, a property file or a JAAS line."""
        alphabet = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
        self._write(name, "".join(secrets.choice(alphabet) for _ in range(characters)).encode() + b"\n")

    def _properties(self, name: str, values: Mapping[str, str]) -> None:
        text = "".join(f"{key}={value}\n" for key, value in values.items()).encode()
        kept = self.path / name
        if kept.exists() and kept.read_bytes() != text:
            raise SecretsTrouble(
                f"{kept} does not say what the passwords beside it are; remove it, and it is made anew"
            )
        self._write(name, text)

    def _text(self, name: str) -> str:
        return (self.path / name).read_text().strip()

    def _read(self, certificate: Path, key: Path) -> Pair:
        try:
            return read_pair(certificate.read_bytes(), key.read_bytes())
        except BadPair as error:
            raise SecretsTrouble(f"{certificate}: {error}; remove both, and a new pair is made") from None

    def _write(self, name: str, text: bytes, mode: int = _PRIVATE) -> None:
        """A new file, whole or not there, which never had other rights than these; one that is there stays."""
        path = self.path / name
        if path.exists():
            return
        self._folder(path.parent, 0o755 if path.parent == self.path else 0o700)
        making = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with open(making, "xb", opener=lambda file, flags: os.open(file, flags, mode)) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.link(making, path)
        finally:
            making.unlink(missing_ok=True)
        self.made.append(name)

    def _folder(self, path: Path, mode: int) -> None:
        with suppress(FileExistsError):
            path.mkdir(mode, parents=True)

    def _give_to_owners(self) -> None:
        for path in self._everything():
            owner = self.owners.get(path.relative_to(self.path).parts[0], self.owners.get(""))
            found = path.stat()
            if owner is not None and (found.st_uid, found.st_gid) != (owner.user, owner.group):
                os.chown(path, owner.user, owner.group)

    def _everything(self) -> Iterator[Path]:
        """All that is handed out: the authority's key is not among it, and stays with whoever made it."""
        yield from (path for path in sorted(self.path.rglob("*")) if path.name != CA_KEY)
