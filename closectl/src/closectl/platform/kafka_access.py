"""Give Kafka the users and rights of our principals. aiokafka knows no requests for either; confluent-kafka does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)

from closeflow.contracts.kafka_rights import Access, Acl, Pattern, Resource
from closeflow.kafka import KafkaConnection

DEADLINE_S: Final = 15.0
ITERATIONS: Final = 8192
_ANY_HOST: Final = "*"
_USER: Final = "User:"


class AccessNotApplied(Exception):
    """Kafka did not take it; the text says why."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What was changed; `users` have their passwords."""

    added: tuple[Acl, ...]
    removed: tuple[str, ...]
    users: tuple[str, ...]


def apply_access(connection: KafkaConnection, access: Access, passwords: Mapping[str, str]) -> Applied:
    """Set each user's password, add the rights that are missing, take away every other right of these principals.

    What other principals may do stays. Needs ALTER of the cluster. Raises AccessNotApplied.
    """
    try:
        admin = AdminClient(_options(connection), logger=None)
        return _apply(admin, access, passwords)
    except KafkaException as error:
        raise AccessNotApplied(_said(error)) from None
    except TimeoutError:
        raise AccessNotApplied(f"{connection.bootstrap_servers} did not answer within {DEADLINE_S:.0f} s") from None


def _apply(admin: AdminClient, access: Access, passwords: Mapping[str, str]) -> Applied:
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, ITERATIONS)
    users: list[UserScramCredentialAlteration] = [
        UserScramCredentialUpsertion(name, info, word.encode()) for name, word in sorted(passwords.items())
    ]
    if users:
        _wait(admin.alter_user_scram_credentials(users, request_timeout=DEADLINE_S).values())
    there = _bindings_of(admin, access.principals)
    wanted = {_key(binding): acl for acl in access.acls for binding in [_binding(acl)]}
    missing = sorted(acl for key, acl in wanted.items() if key not in there)
    if missing:
        _wait(admin.create_acls([_binding(acl) for acl in missing], request_timeout=DEADLINE_S).values())
    unwanted = [binding for key, binding in there.items() if key not in wanted]
    if unwanted:
        _wait(admin.delete_acls([_filter(one) for one in unwanted], request_timeout=DEADLINE_S).values())
    return Applied(tuple(missing), tuple(sorted(map(_told, unwanted))), tuple(sorted(passwords)))


def compare_access(connection: KafkaConnection, access: Access) -> list[str]:
    """A line for each right that one of the principals lacks, or has beside those of `access`. Raises
    AccessNotApplied."""
    wanted, there = set(map(str, access.acls)), acls_of(connection, access.principals)
    mend = "run `closectl topics apply --acls`"
    lines = [f"not allowed, and the files say it should be: {one}; {mend}" for one in sorted(wanted - there)]
    return lines + [f"allowed, and the files do not say it: {one}; {mend}" for one in sorted(there - wanted)]


def acls_of(connection: KafkaConnection, principals: Iterable[str]) -> set[str]:
    """What Kafka says that these principals may do, worded as an `Acl` is. Raises AccessNotApplied."""
    try:
        admin = AdminClient(_options(connection), logger=None)
        return set(map(_told, _bindings_of(admin, tuple(principals)).values()))
    except KafkaException as error:
        raise AccessNotApplied(_said(error)) from None
    except TimeoutError:
        raise AccessNotApplied(f"{connection.bootstrap_servers} did not answer within {DEADLINE_S:.0f} s") from None


def _bindings_of(admin: AdminClient, principals: tuple[str, ...]) -> dict[tuple[Any, ...], AclBinding]:
    anything: Any = None  # None is any name, principal and host; the stubs know only texts.
    every = AclBindingFilter(
        ResourceType.ANY,
        anything,
        ResourcePatternType.ANY,
        anything,
        anything,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    found = admin.describe_acls(every, request_timeout=DEADLINE_S).result(DEADLINE_S)
    ours = {f"{_USER}{name}" for name in principals}
    return {_key(one): one for one in found if one.principal in ours}


def _binding(acl: Acl) -> AclBinding:
    resource = {Resource.TOPIC: ResourceType.TOPIC, Resource.GROUP: ResourceType.GROUP}[acl.resource]
    pattern = {Pattern.LITERAL: ResourcePatternType.LITERAL, Pattern.PREFIXED: ResourcePatternType.PREFIXED}
    return AclBinding(
        resource,
        acl.name,
        pattern[acl.pattern],
        f"{_USER}{acl.principal}",
        _ANY_HOST,
        AclOperation[acl.operation],
        AclPermissionType.ALLOW,
    )


def _filter(one: AclBinding) -> AclBindingFilter:
    """Exactly this binding."""
    return AclBindingFilter(*_key(one))


def _key(one: AclBinding) -> tuple[Any, ...]:
    return (
        one.restype,
        one.name,
        one.resource_pattern_type,
        one.principal,
        one.host,
        one.operation,
        one.permission_type,
    )


def _told(one: AclBinding) -> str:
    name = f"{one.name}*" if one.resource_pattern_type is ResourcePatternType.PREFIXED else one.name
    denied = "" if one.permission_type is AclPermissionType.ALLOW else "not "
    operation, resource = AclOperation(one.operation), ResourceType(one.restype)
    return f"{one.principal.removeprefix(_USER)}: {denied}{operation.name} {resource.name.lower()} {name}"


def _options(connection: KafkaConnection) -> dict[str, Any]:
    tls = connection.tls
    options: dict[str, Any] = {
        "bootstrap.servers": connection.bootstrap_servers,
        "client.id": connection.client_id,
        "security.protocol": connection.security_protocol.lower(),
        "ssl.ca.location": tls.ca and str(tls.ca),
        "ssl.certificate.location": tls.certificate and str(tls.certificate),
        "ssl.key.location": tls.key and str(tls.key),
        "log_level": 0,
    }
    if connection.security_protocol == "SASL_SSL":
        options |= {
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": connection.username,
            "sasl.password": connection.password,
        }
    return {name: value for name, value in options.items() if value is not None}


def _wait(futures: Iterable[Future[Any]]) -> None:
    for future in futures:
        future.result(DEADLINE_S)


def _said(error: KafkaException) -> str:
    return str(error.args[0].str() if hasattr(error.args[0], "str") else error)
