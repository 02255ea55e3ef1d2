"""How to reach Kafka; everything in this package takes one of these."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """`bootstrap_servers` is `host:port[,host:port…]`; `ca_file` the authority to trust with SSL, else the system's."""

    bootstrap_servers: str
    security_protocol: Literal["PLAINTEXT", "SSL"] = "PLAINTEXT"
    ca_file: Path | None = None
    client_id: str = "closeflow"

    def options(self) -> dict[str, object]:
        """The arguments that aiokafka's clients share."""
        secure = self.security_protocol == "SSL"
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "security_protocol": self.security_protocol,
            "ssl_context": ssl.create_default_context(cafile=self.ca_file) if secure else None,
        }
