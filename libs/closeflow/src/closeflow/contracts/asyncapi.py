"""`schemas/asyncapi.yaml`: the topics as an AsyncAPI 3.0 document, made of the topic files and the schema files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from closeflow.contracts.record_headers import event_types_of, headers_of
from closeflow.contracts.topic_files import TopicFile, read_topic_files

_BOUND = ("retention.ms", "max.message.bytes")
"""The settings that AsyncAPI's Kafka channel binding 0.5.0 has a place for, besides cleanup.policy."""


def asyncapi_text(schemas: Path) -> str:
    """The document for the topics of `schemas/topics`; dead letter topics are left to their YAML files. Raises
    BadTopicFile."""
    files = [told for _, told in read_topic_files(schemas / "topics", of=TopicFile)]
    carried = [told for told in files if not told.carries_dead_letters]
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "closeflow",
            "version": "1.0.0",
            "description": "Generated: python -m closeflow.contracts.schema_files write schemas",
        },
        "defaultContentType": "application/json",
        "channels": {told.topic: _channel(told) for told in carried},
        "operations": {name: operation for told in carried for name, operation in _operations(told).items()},
        "components": {
            "messages": {told.schema_name: _message(told) for told in carried},
            "schemas": {f"{told.topic}-headers": _headers(told.topic) for told in carried},
        },
    }
    return yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)


def promises(told: TopicFile) -> dict[str, str]:
    """What a topic's readers may rely on, by its heading."""
    return {
        "Owner": told.owner,
        "Compatibility": told.compatibility,
        "Order": told.ordering,
        "Delivery": told.delivery,
        "Kept": told.retention,
    }


def _channel(told: TopicFile) -> dict[str, Any]:
    bound = {
        "cleanup.policy": [told.config["cleanup.policy"]],
        **{name: int(told.config[name]) for name in _BOUND},
    }
    said = [told.description, *(f"**{heading}**: {text}" for heading, text in promises(told).items())]
    said.append("A consumer must:\n\n" + "\n".join(f"- {one}" for one in told.consumers_must))
    return {
        "address": told.topic,
        "description": "\n\n".join(said),
        "messages": {told.schema_name: {"$ref": f"#/components/messages/{told.schema_name}"}},
        "bindings": {
            "kafka": {
                "bindingVersion": "0.5.0",
                "topic": told.topic,
                "partitions": told.partitions,
                "topicConfiguration": bound,
            }
        },
    }


def _operations(told: TopicFile) -> dict[str, Any]:
    channel = f"#/channels/{told.topic}"
    return {
        f"send-{told.topic}": {"action": "send", "channel": {"$ref": channel}, "summary": f"By {told.producer}."},
        f"receive-{told.topic}": {
            "action": "receive",
            "channel": {"$ref": channel},
            "summary": f"By {', '.join(told.consumers)}.",
        },
    }


def _headers(topic: str) -> dict[str, Any]:
    said: dict[str, dict[str, Any]] = {
        name: {"type": "string", "description": text} for name, text in headers_of(topic).items()
    }
    said["ce_type"]["enum"] = list(event_types_of(topic))
    return {"type": "object", "properties": said}


def _message(told: TopicFile) -> dict[str, Any]:
    return {
        "name": told.schema_name,
        "headers": {"$ref": f"#/components/schemas/{told.topic}-headers"},
        "payload": {
            "schemaFormat": "application/schema+json;version=2020-12",
            "schema": {"$ref": f"./json/{told.schema_name}.json"},
        },
        "bindings": {
            "kafka": {"bindingVersion": "0.5.0", "key": {"type": "string", "description": told.key}},
        },
    }
