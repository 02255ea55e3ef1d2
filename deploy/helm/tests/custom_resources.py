"""Schemas of the resources of other operators, as far as the charts use them: what is not named here is a mistake.

Field names are those of kafka.strimzi.io/v1, monitoring.coreos.com/v1, external-secrets.io/v1 and keda.sh/v1alpha1.
"""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]
TEXT: Final[Schema] = {"type": "string", "minLength": 1}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
FLAG: Final[Schema] = {"type": "boolean"}
ANY: Final[Schema] = {"type": "object"}


def closed(_needed: str = "", **fields: Schema) -> Schema:
    """An object with these fields and no other; the needed ones are named with blanks between them."""
    return {"type": "object", "properties": fields, "required": _needed.split(), "additionalProperties": False}


def many(item: Schema) -> Schema:
    """A list that is not empty."""
    return {"type": "array", "items": item, "minItems": 1}


def scalars(pattern: str = ".+") -> Schema:
    """A map of texts and numbers."""
    return {
        "type": "object",
        "propertyNames": {"pattern": pattern},
        "additionalProperties": {"type": ["string", "integer", "boolean"]},
    }


_REFERENCE: Final = closed("secretName certificate", secretName=TEXT, certificate=TEXT)
_ACL: Final = closed(
    "resource operations",
    resource=closed(
        "type name", type={"enum": ["topic", "group"]}, name=TEXT, patternType={"enum": ["literal", "prefix"]}
    ),
    operations=many({"enum": ["Read", "Write", "Create", "Describe", "DescribeConfigs"]}),
    host=TEXT,
)
_RULE: Final = {
    "type": "object",
    "required": ["alert", "expr", "labels", "annotations"],
    "properties": {"alert": TEXT, "expr": TEXT, "for": TEXT, "labels": ANY, "annotations": ANY},
    "additionalProperties": False,
}

SPECS: Final[dict[tuple[str, str], Schema]] = {
    ("kafka.strimzi.io/v1", "KafkaTopic"): closed(
        "partitions replicas", partitions=COUNT, replicas=COUNT, config=scalars()
    ),
    ("kafka.strimzi.io/v1", "KafkaUser"): closed(
        "authentication authorization",
        authentication=closed("type", type={"const": "scram-sha-512"}),
        authorization=closed("type acls", type={"const": "simple"}, acls={"type": "array", "items": _ACL}),
    ),
    ("kafka.strimzi.io/v1", "KafkaConnect"): closed(
        "replicas bootstrapServers groupId configStorageTopic offsetStorageTopic statusStorageTopic",
        version=TEXT,
        image=TEXT,
        replicas=COUNT,
        bootstrapServers=TEXT,
        groupId=TEXT,
        configStorageTopic=TEXT,
        offsetStorageTopic=TEXT,
        statusStorageTopic=TEXT,
        tls=closed("trustedCertificates", trustedCertificates=many(_REFERENCE)),
        authentication=closed(
            "type username passwordSecret",
            type={"const": "scram-sha-512"},
            username=TEXT,
            passwordSecret=closed("secretName password", secretName=TEXT, password=TEXT),
        ),
        config=scalars(),
        template=closed(pod=closed(securityContext=ANY, volumes=many(ANY)), connectContainer=ANY),
    ),
    ("kafka.strimzi.io/v1", "KafkaConnector"): closed(
        "class tasksMax autoRestart config",
        **{"class": TEXT},
        tasksMax=COUNT,
        autoRestart=closed("enabled", enabled={"const": True}, maxRestarts=COUNT),
        config=scalars(r"^[a-zA-Z.]+$"),
    ),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): closed(
        "selector endpoints",
        selector=closed("matchLabels", matchLabels=ANY),
        endpoints=many(closed("port path", port=TEXT, path=TEXT, interval=TEXT)),
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): closed(
        "groups", groups=many(closed("name rules", name=TEXT, rules=many(_RULE)))
    ),
    ("external-secrets.io/v1", "ExternalSecret"): closed(
        "secretStoreRef target data",
        refreshInterval=TEXT,
        secretStoreRef=closed("kind name", kind={"enum": ["SecretStore", "ClusterSecretStore"]}, name=TEXT),
        target=closed("name", name=TEXT, creationPolicy={"const": "Owner"}),
        data=many(closed("secretKey remoteRef", secretKey=TEXT, remoteRef=closed("key", key=TEXT, property=TEXT))),
    ),
    ("keda.sh/v1alpha1", "ScaledObject"): closed(
        "scaleTargetRef triggers",
        scaleTargetRef=closed("name", name=TEXT),
        minReplicaCount=COUNT,
        maxReplicaCount=COUNT,
        cooldownPeriod=COUNT,
        triggers=many(
            closed(
                "type metadata",
                type={"const": "kafka"},
                metadata=scalars(),
                authenticationRef=closed("name", name=TEXT),
            )
        ),
    ),
    ("keda.sh/v1alpha1", "TriggerAuthentication"): closed(
        "secretTargetRef",
        env=many(closed("parameter name", parameter=TEXT, name=TEXT, containerName=TEXT)),
        secretTargetRef=many(closed("parameter name key", parameter=TEXT, name=TEXT, key=TEXT)),
    ),
}


def schema_of(api_version: str, kind: str) -> Schema | None:
    """The schema of a whole resource, or None for one that is not known."""
    spec = SPECS.get((api_version, kind))
    if spec is None:
        return None
    metadata = closed("name labels", name=TEXT, labels=ANY, annotations=ANY)
    return closed("apiVersion kind metadata spec", apiVersion=TEXT, kind=TEXT, metadata=metadata, spec=spec)
