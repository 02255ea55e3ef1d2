"""What both kinds of channel are made with."""

from __future__ import annotations

from typing import Final

import grpc

from closeflow_client.address import Address, Tls
from closeflow_client.transport import USER_AGENT

OPTIONS: Final[tuple[tuple[str, int | str], ...]] = (
    ("grpc.primary_user_agent", USER_AGENT),
    ("grpc.enable_retries", 0),  # What is retried, and when, is the client's own decision.
    # A server that comes back is found at the next attempt, not after minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A watch on which nothing happens notices that the server is gone.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


def credentials_of(address: Address, tls: Tls) -> grpc.ChannelCredentials | None:
    """None for a connection in plain text. Raises OSError for files that cannot be read."""
    return grpc.ssl_channel_credentials(*tls.files()) if address.encrypted else None


def metadata_of(authorization: str | None) -> tuple[tuple[str, str], ...]:
    """The metadata of a call."""
    return () if authorization is None else (("authorization", authorization),)
