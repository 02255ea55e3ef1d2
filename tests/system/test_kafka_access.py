"""Each principal of Kafka can do what it needs, and nothing else: every operation on every topic and group is tried."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Final

import aiokafka
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import OffsetOutOfRangeError, TopicAuthorizationFailedError
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from closectl.platform.kafka_access import acls_of
from closeflow.contracts.kafka_rights import PRINCIPALS_FILE, Access, Acl, Pattern, Resource, load_access
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.topics import load_topics
from closeflow.tls import ClientTls
from demo.system import REPOSITORY, System

TOPICS: Final = tuple(spec.name for spec in load_topics(REPOSITORY / "schemas/topics"))
GROUPS: Final = ("order-submitter", "fill-processor", "close-board-1", "closeflow-connect-system", "somebody")
PRINCIPALS: Final = (
    "order-submitter",
    "broker-gateway",
    "fill-processor",
    "reconciler",
    "close-board",
    "connect",
)
LARGER_THAN_ALLOWED: Final = b"x" * (3 * 1024 * 1024)
"""Refused for its size, after it was found that the writer may write: nothing gets into the topic."""
WAIT_S: Final = 30.0
REFUSED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
Attempt = Callable[["Client", str], None]


@pytest.fixture(scope="module")
def access() -> Access:
    return load_access(REPOSITORY / "schemas/topics", REPOSITORY / PRINCIPALS_FILE)


class Client:
    """One principal, with every kind of client."""

    def __init__(self, system: System, principal: str) -> None:
        secrets = system.links.secrets
        password = (secrets / "kafka" / principal).read_text().strip()
        self.connection = KafkaConnection(
            system.stack.kafka_bootstrap_servers,
            "SASL_SSL",
            tls=ClientTls(secrets / "ca.pem"),
            username=principal,
            password=password,
        )
        self.options: dict[str, Any] = {
            "bootstrap.servers": system.stack.kafka_bootstrap_servers,
            "security.protocol": "sasl_ssl",
            "sasl.mechanism": "SCRAM-SHA-512",
            "ssl.ca.location": str(secrets / "ca.pem"),
            "sasl.username": principal,
            "sasl.password": password,
            "log_level": 0,
        }
        self.admin = AdminClient(self.options)
        self.producer = Producer(self.options | {"message.max.bytes": 2 * len(LARGER_THAN_ALLOWED)})


def is_refused(client: Client, name: str, attempt: Attempt) -> bool:
    """Whether Kafka said that it is not allowed. Another error came after that question."""
    try:
        attempt(client, name)
    except KafkaException as error:
        return error.args[0].code() in REFUSED
    return False


def done(futures: Mapping[Any, Future[Any]] | list[Future[Any]]) -> None:
    for future in futures.values() if isinstance(futures, Mapping) else futures:
        future.result(WAIT_S)


def read(client: Client, topic: str) -> None:
    asyncio.run(_read(client.connection, topic))


async def _read(connection: KafkaConnection, topic: str) -> None:
    """Without a group, so that all that is asked for is the topic."""
    consumer, tp = AIOKafkaConsumer(**connection.options(), group_id=None), aiokafka.TopicPartition(topic, 0)
    try:
        await consumer.start()
        consumer.assign([tp])
        await consumer._client.force_metadata_update()
        if topic in consumer._client.cluster.unauthorized_topics:
            raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
        if topic not in consumer._client.cluster.topics():
            return  # It was not refused, and is not there.
        consumer.seek(tp, 0)
        async with asyncio.timeout(WAIT_S):
            while not await consumer.getmany(tp, timeout_ms=200) and consumer.last_poll_timestamp(tp) is None:
                pass
    except TopicAuthorizationFailedError:
        raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)) from None
    except OffsetOutOfRangeError:
        pass  # What was there has expired.
    finally:
        await consumer.stop()


def write(client: Client, topic: str) -> None:
    outcome: list[KafkaError | None] = []
    client.producer.produce(topic, LARGER_THAN_ALLOWED, on_delivery=lambda error, _: outcome.append(error))
    client.producer.flush(WAIT_S)
    assert outcome, f"no answer about {topic}"
    if outcome[0] is not None:
        raise KafkaException(outcome[0])


def create(client: Client, topic: str) -> None:
    done(client.admin.create_topics([NewTopic(topic, 1, 1)], validate_only=True))


def delete(client: Client, topic: str) -> None:
    done(client.admin.delete_topics([topic]))


def alter(client: Client, topic: str) -> None:
    done(client.admin.create_partitions([NewPartitions(topic, 100)], validate_only=True))


def describe_configs(client: Client, topic: str) -> None:
    done(client.admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]))


def alter_configs(client: Client, topic: str) -> None:
    entry = ConfigEntry("retention.ms", "1000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    done(client.admin.incremental_alter_configs([resource], validate_only=True))


ON_TOPICS: Final[Mapping[str, Attempt]] = {
    "READ": read,
    "WRITE": write,
    "CREATE": create,
    "DELETE": delete,
    "ALTER": alter,
    "DESCRIBE_CONFIGS": describe_configs,
    "ALTER_CONFIGS": alter_configs,
}


def join(client: Client, group: str) -> None:
    """Committing for a group needs the same right as joining it; of a topic that nobody has."""
    at = ConsumerGroupTopicPartitions(group, [TopicPartition("no-such-topic", 0, 1)])
    for answer in (future.result(WAIT_S) for future in client.admin.alter_consumer_group_offsets([at]).values()):
        for partition in answer.topic_partitions:
            if partition.error is not None and partition.error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                raise KafkaException(partition.error)


def delete_group(client: Client, group: str) -> None:
    done(client.admin.delete_consumer_groups([group]))


def describe_group(client: Client, group: str) -> None:
    done(client.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))


ON_GROUPS: Final[Mapping[str, Attempt]] = {"READ": join, "DELETE": delete_group, "DESCRIBE": describe_group}
INCLUDED: Final = {"DESCRIBE": {"DESCRIBE", "READ", "WRITE", "DELETE", "ALTER"}}
"""Which rights include this one."""


def allowed(access: Access, principal: str, resource: Resource, name: str, operation: str) -> bool:
    rights = INCLUDED.get(operation, {operation})

    def fits(acl: Acl) -> bool:
        named = name.startswith(acl.name) if acl.pattern is Pattern.PREFIXED else name == acl.name
        return named and acl.principal == principal and acl.resource is resource and acl.operation in rights

    return any(map(fits, access.acls))


@pytest.fixture(scope="module")
def everything(system: System, access: Access) -> tuple[str, ...]:
    """Every topic that there is, the ones of Connect and Debezium too."""
    connection = system.links.administrator
    admin = AdminClient(
        {
            "bootstrap.servers": system.stack.kafka_administrators,
            "security.protocol": "ssl",
            "ssl.ca.location": str(connection.ca),
            "ssl.certificate.location": str(connection.certificate),
            "ssl.key.location": str(connection.key),
            "log_level": 0,
        }
    )
    found = tuple(name for name in admin.list_topics(timeout=WAIT_S).topics if not name.startswith("__consumer"))
    assert {*TOPICS, "closeflow-connect-offsets"} <= set(found)
    assert any(name.startswith("__debezium-heartbeat.") for name in found)
    return found


def test_kafka_has_the_rights_that_the_files_say(system: System, access: Access) -> None:
    assert acls_of(system.kafka, access.principals) == set(map(str, access.acls))


def attempts(names: tuple[str, ...], verbs: Mapping[str, Attempt]) -> Iterator[tuple[str, str, Attempt]]:
    for name in names:
        for operation, attempt in verbs.items():
            yield name, operation, attempt


@pytest.mark.parametrize("principal", PRINCIPALS)
def test_a_principal_can_do_what_the_table_says_and_nothing_else(
    system: System, access: Access, everything: tuple[str, ...], principal: str
) -> None:
    client, wrong, tried = Client(system, principal), [], 0
    for resource, names, verbs in (
        (Resource.TOPIC, (*everything, "no-such-topic"), ON_TOPICS),
        (Resource.GROUP, GROUPS, ON_GROUPS),
    ):
        for name, operation, attempt in attempts(names, verbs):
            tried += 1
            may = allowed(access, principal, resource, name, operation)
            if is_refused(client, name, attempt) is may:
                wrong.append(f"{operation} {resource.lower()} {name}: {'refused' if may else 'allowed'}")
    assert wrong == []
    assert tried == len(ON_TOPICS) * (len(everything) + 1) + len(ON_GROUPS) * len(GROUPS)


@pytest.mark.parametrize("principal", PRINCIPALS)
def test_a_principal_can_give_itself_nothing(system: System, principal: str) -> None:
    client = Client(system, principal)
    more = AclBinding(
        ResourceType.TOPIC,
        "broker-fill",
        ResourcePatternType.LITERAL,
        f"User:{principal}",
        "*",
        AclOperation.ALL,
        AclPermissionType.ALLOW,
    )
    assert is_refused(client, "", lambda one, _: done(one.admin.create_acls([more])))
    transactional = Producer(client.options | {"transactional.id": principal})
    assert is_refused(client, "", lambda *_: transactional.init_transactions(WAIT_S))
