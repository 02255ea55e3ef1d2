"""How to reach Kafka; everything in this package takes one of these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from closeflow.tls import SYSTEM_AUTHORITIES, ClientTls

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_SSL"]
SASL_MECHANISM = "SCRAM-SHA-512"


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """`bootstrap_servers` is `host:port[,host:port…]`. With SASL_SSL the user name and the password prove who connects
    (SCRAM-SHA-512), with SSL the certificate of `tls`, where it has one."""

    bootstrap_servers: str
    security_protocol: SecurityProtocol = "PLAINTEXT"
    tls: ClientTls = SYSTEM_AUTHORITIES
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    client_id: str = "closeflow"

    def options(self) -> dict[str, object]:
        """The arguments that aiokafka's clients share. Raises closeflow.tls.BadPem."""
        options: dict[str, object] = {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "security_protocol": self.security_protocol,
            "ssl_context": None if self.security_protocol == "PLAINTEXT" else self.tls.context(),
        }
        if self.security_protocol == "SASL_SSL":
            options |= {
                "sasl_mechanism": SASL_MECHANISM,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return options
