"""What each of our principals may do in Kafka: what the topic files say, and `schemas/principals.yaml` beside them.

A service that writes or reads a topic may also see the topic's settings, because it compares them at its start.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import yaml

from closeflow.contracts.topic_files import BadTopicFile, TopicAccess, read_topic_files

PRINCIPALS_FILE: Final = "schemas/principals.yaml"
_CONSUMERS: Final = re.compile(r"consumers of [^()]+ \(([^()]*)\)")
_NAMES: Final = re.compile(r"[a-z-]+(, [a-z-]+)*")


class Resource(StrEnum):
    """What an ACL is about."""

    TOPIC = "TOPIC"
    GROUP = "GROUP"


class Pattern(StrEnum):
    """Whether the name of an ACL is the whole name of the resource, or how it begins."""

    LITERAL = "LITERAL"
    PREFIXED = "PREFIXED"


OPERATIONS: Final = ("READ", "WRITE", "CREATE", "DELETE", "ALTER", "DESCRIBE", "DESCRIBE_CONFIGS", "ALTER_CONFIGS")
"""Of topics; of these READ, DELETE and DESCRIBE are of groups too. READ and WRITE include DESCRIBE."""


@dataclass(frozen=True, slots=True, order=True)
class Acl:
    """One thing that a principal is allowed to do, from any host."""

    principal: str
    resource: Resource
    pattern: Pattern
    name: str
    operation: str

    def __str__(self) -> str:
        name = f"{self.name}*" if self.pattern is Pattern.PREFIXED else self.name
        return f"{self.principal}: {self.operation} {self.resource.lower()} {name}"


@dataclass(frozen=True, slots=True)
class Access:
    """The principals, and all that they may do."""

    principals: tuple[str, ...]
    acls: frozenset[Acl]


class BadAccess(BadTopicFile):
    """A file says what cannot be; the text names it."""


def load_access(topics: Path, principals: Path) -> Access:
    """Read the topic files and the file of the principals. Raises BadAccess, also for a topic's producer or consumer
    that is neither a principal nor one of the `others`, and BadTopicFile."""
    told = yaml.safe_load(principals.read_text())
    known, others = tuple(told["principals"]), set(told["others"])
    found = {acl for name, more in told["principals"].items() for acl in _own(name, more or {})}
    for path, topic in read_topic_files(topics, of=TopicAccess):
        for operation, names in (("WRITE", _producers(topic, told["outbox"])), ("READ", topic.consumers)):
            for name in names:
                if name not in known and name not in others:
                    raise BadAccess(f"{path.name}: {name} is neither a principal nor one of others in {principals}")
                if name in known:
                    found.add(Acl(name, Resource.TOPIC, Pattern.LITERAL, topic.topic, operation))
                if name in known and name != told["outbox"]:
                    found.add(Acl(name, Resource.TOPIC, Pattern.LITERAL, topic.topic, "DESCRIBE_CONFIGS"))
    return Access(known, frozenset(found))


def rights_on_topics(access: Access, principal: str) -> Mapping[str, frozenset[str]]:
    """By the whole name of a topic, what the principal may do with it."""
    found: dict[str, frozenset[str]] = {}
    for acl in access.acls:
        if acl.principal == principal and (acl.resource, acl.pattern) == (Resource.TOPIC, Pattern.LITERAL):
            found[acl.name] = found.get(acl.name, frozenset()) | {acl.operation}
    return found


def _own(principal: str, more: Mapping[str, Mapping[str, list[str]]]) -> Iterator[Acl]:
    kinds = {
        "topics": (Resource.TOPIC, Pattern.LITERAL),
        "prefixed_topics": (Resource.TOPIC, Pattern.PREFIXED),
        "groups": (Resource.GROUP, Pattern.LITERAL),
        "prefixed_groups": (Resource.GROUP, Pattern.PREFIXED),
    }
    for kind, names in more.items():
        if kind not in kinds:
            raise BadAccess(f"{principal} has {kind}, which is none of {', '.join(kinds)}")
        for name, operations in names.items():
            for operation in operations:
                if operation not in OPERATIONS:
                    raise BadAccess(f"{principal} may not {operation} {name}: that is no operation of Kafka's")
                yield Acl(principal, *kinds[kind], name, operation)


def _producers(topic: TopicAccess, outbox: str) -> list[str]:
    """A topic's producers as its file words them: names, `outbox (…)`, or `consumers of … (names)`."""
    said = topic.producer
    if said.startswith("outbox "):
        return [outbox]
    consumers = _CONSUMERS.fullmatch(said)
    names = consumers[1] if consumers is not None else said
    if not _NAMES.fullmatch(names):
        raise BadAccess(f"the producer of {topic.topic} is worded in another way than those of other topics: {said}")
    return names.split(", ")
