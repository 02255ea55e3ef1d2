"""How the services, and who uses them, reach each other on an instance: secured if the instance is, else in plain."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import devstack
from broker_simulator.settings import DEFAULT_KEY_ID, DEFAULT_SECRET_KEY
from closeflow.kafka.connection import KafkaConnection
from closeflow.storage.schema import migrate
from closeflow.tls import SYSTEM_AUTHORITIES, ClientTls

ADMINISTRATOR: Final = "closectl"
"""Whose certificate Kafka's administrators and Connect's clients show here."""


@dataclass(frozen=True)
class Links:
    """Of one instance. Settings are in environment form, without a service's prefix: {"KAFKA_CA_PATH": …}."""

    stack: devstack.Stack

    @property
    def secure(self) -> bool:
        """Whether the instance was made secure."""
        return self.stack.secrets is not None

    @property
    def secrets(self) -> Path:
        """The directory of a secure instance's secrets; only to be asked for of one."""
        assert self.stack.secrets is not None
        return self.stack.secrets

    @property
    def scheme(self) -> str:
        """Of close-api's REST and the broker: `http`, or `https`."""
        return "https" if self.secure else "http"

    @cached_property
    def verify(self) -> ssl.SSLContext | bool:
        """What httpx takes to reach any server of the instance, Connect among them."""
        return self.administrator.context() if self.secure else True

    @property
    def administrator(self) -> ClientTls:
        """The files of whoever administers Kafka and the connector."""
        return self.client(ADMINISTRATOR)

    def client(self, name: str) -> ClientTls:
        """The authority, and the certificate of this name; neither where nothing is secured."""
        if not self.secure:
            return SYSTEM_AUTHORITIES
        return ClientTls(self.secrets / "ca.pem", self.secrets / name / "tls.pem", self.secrets / name / "tls.key")

    @property
    def kafka(self) -> KafkaConnection:
        """As its administrator."""
        if not self.secure:
            return KafkaConnection(self.stack.kafka_bootstrap_servers)
        return KafkaConnection(self.stack.kafka_administrators, "SSL", tls=self.administrator)

    @property
    def broker_keys(self) -> tuple[str, str]:
        """The key id and the secret of the account at the broker."""
        if not self.secure:
            return DEFAULT_KEY_ID, DEFAULT_SECRET_KEY
        return self._secret("broker/key-id"), self._secret("broker/secret-key")

    def passwords(self) -> dict[str, str]:
        """Of the roles of PostgreSQL."""
        if not self.secure:
            return migrate.role_passwords(str(urlsplit(self.stack.admin_dsn).password))
        return {role: self._secret(f"postgres/{role}") for role in migrate.ROLES}

    def debezium_credentials(self) -> Path:
        """The file that the connector's configuration refers to; of an instance that is not secure, to be written."""
        return (
            self.secrets / "connect/debezium.properties" if self.secure else self.stack.data_dir / "debezium.properties"
        )

    # settings

    def server(self, name: str) -> dict[str, str]:
        """With what a server of ours serves TLS."""
        if not self.secure:
            return {}
        folder = self.secrets / name
        return {"TLS_CERTIFICATE_PATH": str(folder / "tls.pem"), "TLS_KEY_PATH": str(folder / "tls.key")}

    def simulator(self) -> dict[str, str]:
        """Of the broker's simulator."""
        if not self.secure:
            return {}
        keys = {"KEY_ID": self.broker_keys[0], "SECRET_KEY_FILE": str(self.secrets / "broker/secret-key")}
        return keys | self.server("broker-simulator")

    def kafka_of(self, service: str) -> dict[str, str]:
        """Of a service that logs in as itself."""
        servers = {"KAFKA_BOOTSTRAP_SERVERS": self.stack.kafka_bootstrap_servers}
        if not self.secure:
            return servers
        return servers | {
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_CA_PATH": str(self.secrets / "ca.pem"),
            "KAFKA_USERNAME": service,
            "KAFKA_PASSWORD_FILE": str(self.secrets / "kafka" / service),
        }

    def broker(self) -> dict[str, str]:
        """Of who speaks with the broker, but where it is."""
        if not self.secure:
            return {"BROKER_KEY_ID": DEFAULT_KEY_ID, "BROKER_SECRET_KEY": DEFAULT_SECRET_KEY}
        return {
            "BROKER_KEY_ID_FILE": str(self.secrets / "broker/key-id"),
            "BROKER_SECRET_KEY_FILE": str(self.secrets / "broker/secret-key"),
            "BROKER_CA_PATH": str(self.secrets / "ca.pem"),
        }

    def connect(self, client: str) -> dict[str, str]:
        """Of who asks Connect, with this client's certificate, but where it is."""
        return self._files("CONNECT", self.client(client))

    def closectl(self) -> dict[str, str]:
        """What closectl needs beside addresses, logins and tokens."""
        if not self.secure:
            return {"KAFKA_BOOTSTRAP_SERVERS": self.stack.kafka_bootstrap_servers, **self.broker()}
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.stack.kafka_administrators,
            "KAFKA_SECURITY_PROTOCOL": "SSL",
            "API_CA_PATH": str(self.secrets / "ca.pem"),
            **self._files("KAFKA", self.administrator),
            **self.connect(ADMINISTRATOR),
            **self.broker(),
        }

    def _files(self, name: str, tls: ClientTls) -> dict[str, str]:
        files = {"CA": tls.ca, "CERTIFICATE": tls.certificate, "KEY": tls.key}
        return {f"{name}_{what}_PATH": str(path) for what, path in files.items() if path is not None}

    def _secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()
