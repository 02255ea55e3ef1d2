"""How Kafka has the topics: partitions, copies, settings, and what this login may do with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAuthorizationFailedError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

OPERATIONS: Final = {
    3: "READ",
    4: "WRITE",
    5: "CREATE",
    6: "DELETE",
    7: "ALTER",
    8: "DESCRIBE",
    10: "DESCRIBE_CONFIGS",
    11: "ALTER_CONFIGS",
}
"""Kafka's own numbers of them: bits of what it says that a login may do (KIP-430)."""
_NOT_SAID: Final = -(2**31)
_SET_ON_TOPIC: Final = 1
"""ConfigSource DYNAMIC_TOPIC_CONFIG."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicState:
    """A topic as it is. `settings` are those in force, whoever set them, and None where the login may not see them;
    `overrides` are the names of those that were set on the topic. `rights` is None where Kafka does not say."""

    name: str
    partitions: int
    copies: int
    settings: Mapping[str, str] | None
    overrides: frozenset[str] = frozenset()
    rights: frozenset[str] | None = None


async def read_topic_states(admin: AIOKafkaAdminClient, names: Collection[str]) -> dict[str, TopicState]:
    """Those of the topics that are there and that this login may see. Raises KafkaError."""
    if not names:
        return {}
    answer = (await admin._send_request(_Metadata(sorted(names)))).to_object()
    there = {one["topic"]: one for one in answer["topics"] if not one["error_code"]}
    settings = await _read_settings(admin, there)
    return {
        name: TopicState(
            name=name,
            partitions=len(one["partitions"]),
            copies=min((len(partition["replicas"]) for partition in one["partitions"]), default=0),
            settings=settings.get(name, (None, frozenset()))[0],
            overrides=settings.get(name, (None, frozenset()))[1],
            rights=_rights(one["authorized_operations"]),
        )
        for name, one in there.items()
    }


async def _read_settings(
    admin: AIOKafkaAdminClient, names: Collection[str]
) -> dict[str, tuple[Mapping[str, str], frozenset[str]]]:
    if not names:
        return {}
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(names)]
    (answer,) = await admin.describe_configs(asked)
    found: dict[str, tuple[Mapping[str, str], frozenset[str]]] = {}
    for code, message, _, name, entries in answer.resources:
        error = for_code(code)
        if error is TopicAuthorizationFailedError:
            continue
        if code:
            raise error(f"the settings of topic {name} cannot be read: {message or ''}")
        settings = {entry[0]: entry[1] or "" for entry in entries}
        overrides = frozenset(entry[0] for entry in entries if entry[3] == _SET_ON_TOPIC)
        found[name] = (settings, overrides)
    return found


def _rights(bits: int) -> frozenset[str] | None:
    if bits == _NOT_SAID:
        return None
    return frozenset(operation for number, operation in OPERATIONS.items() if bits >> number & 1)


class _MetadataResponse(Response):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8"))),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("authorized_operations", Int32),
    )


class _MetadataStruct(RequestStruct):  # type: ignore[misc]  # aiokafka has no types
    """Version 8, which says what a login may do; aiokafka's own end before it."""

    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _Metadata(Request[_MetadataStruct]):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(self._topics, False, False, True)
