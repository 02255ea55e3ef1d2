"""`schemas/asyncapi.yaml`: the topics as an AsyncAPI 3.0 document, made of the topic files and the schema files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_HEADERS = (
    "ce_id",
    "ce_type",
    "ce_source",
    "ce_specversion",
    "ce_time",
    "ce_dataschema",
    "content-type",
    "traceparent",
)
_BOUND = ("retention.ms", "max.message.bytes")
"""The settings that AsyncAPI's Kafka channel binding 0.5.0 has a place for, besides cleanup.policy."""


def asyncapi_text(schemas: Path) -> str:
    """The document for the topics of `schemas/topics`; dead letter topics are left to their YAML files."""
    topics = [yaml.safe_load(path.read_text()) for path in sorted((schemas / "topics").glob("*.yaml"))]
    carried = [told for told in topics if not told["topic"].endswith(".dlq")]
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "closeflow",
            "version": "1.0.0",
            "description": "Generated: python -m closeflow.contracts.schema_files write schemas",
        },
        "defaultContentType": "application/json",
        "channels": {told["topic"]: _channel(told) for told in carried},
        "operations": {name: operation for told in carried for name, operation in _operations(told).items()},
        "components": {
            "messages": {told["schema"]: _message(told) for told in carried},
            "schemas": {"headers": {"type": "object", "properties": {name: {"type": "string"} for name in _HEADERS}}},
        },
    }
    return yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)


def _channel(told: Mapping[str, Any]) -> dict[str, Any]:
    config = told["config"]
    bound = {"cleanup.policy": [config["cleanup.policy"]], **{name: config[name] for name in _BOUND}}
    return {
        "address": told["topic"],
        "description": told["description"],
        "messages": {told["schema"]: {"$ref": f"#/components/messages/{told['schema']}"}},
        "bindings": {
            "kafka": {
                "bindingVersion": "0.5.0",
                "topic": told["topic"],
                "partitions": told["partitions"],
                "topicConfiguration": bound,
            }
        },
    }


def _operations(told: Mapping[str, Any]) -> dict[str, Any]:
    channel = {"$ref": f"#/channels/{told['topic']}"}
    return {
        f"send-{told['topic']}": {"action": "send", "channel": channel, "summary": f"By {told['producer']}."},
        f"receive-{told['topic']}": {
            "action": "receive",
            "channel": channel,
            "summary": f"By {', '.join(told['consumers'])}.",
        },
    }


def _message(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": told["schema"],
        "headers": {"$ref": "#/components/schemas/headers"},
        "payload": {
            "schemaFormat": "application/schema+json;version=2020-12",
            "schema": {"$ref": f"./json/{told['schema']}.json"},
        },
        "bindings": {
            "kafka": {"bindingVersion": "0.5.0", "key": {"type": "string", "description": str(told["key"])}},
        },
    }
