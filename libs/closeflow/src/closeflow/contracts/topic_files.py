"""What a file of `schemas/topics` says: how Kafka has the topic, and what its readers may rely on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

TOPICS_DIRECTORY: Final = "schemas/topics"
MIN_IN_SYNC: Final = "min.insync.replicas"

T = TypeVar("T", bound=BaseModel)


class BadTopicFile(ValueError):
    """A file says what cannot be, or not what it has to; the text names both."""


def _setting(value: object) -> object:
    """As Kafka writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


Text = Annotated[str, Field(min_length=1)]
Settings = Mapping[Text, Annotated[str, BeforeValidator(_setting)]]
Partitions = Annotated[int, Field(strict=True, ge=1)]
TopicName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]


def _counted(config: Mapping[str, str]) -> Mapping[str, str]:
    in_sync = config.get(MIN_IN_SYNC)
    if in_sync is not None and not (in_sync.isascii() and in_sync.isdigit()):
        raise ValueError(f"{MIN_IN_SYNC} has to be a number")
    return config


class TopicInKafka(BaseModel):
    """As much of a file as Kafka has to do with."""

    model_config = ConfigDict(frozen=True)

    topic: TopicName
    partitions: Partitions
    config: Annotated[Settings, AfterValidator(_counted)]


class TopicAccess(BaseModel):
    """As much of a file as says who writes and reads the topic."""

    model_config = ConfigDict(frozen=True)

    topic: TopicName
    producer: Text
    consumers: Annotated[tuple[Text, ...], Field(min_length=1)]


class TopicFile(TopicInKafka, TopicAccess):
    """A whole file. `schema_name` is `<name>.v<major>`, or begins with "none" where the bytes are somebody else's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: Text
    owner: Text
    key: Text
    schema_name: Annotated[Text, Field(alias="schema")]
    compatibility: Text
    ordering: Text
    delivery: Text
    retention: Text
    consumers_must: Annotated[tuple[Text, ...], Field(min_length=1)]
    examples: Text | None = None

    @property
    def carries_dead_letters(self) -> bool:
        """Whether its records are those of another topic, put aside."""
        return self.topic.endswith(".dlq")


def read_topic_files(directory: Path, *, of: type[T]) -> tuple[tuple[Path, T], ...]:
    """Every file of the directory, by name, as a TopicFile, or as that part of it that is asked for: then the file need
    not say more. Raises BadTopicFile."""
    return tuple((path, _as(of, path, told)) for path, told in _files(directory))


def _files(directory: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    paths = sorted(directory.glob("*.yaml"))
    if not paths:
        raise BadTopicFile(f"no topic files (*.yaml) in {directory}")
    seen: dict[object, Path] = {}
    for path in paths:
        try:
            told = yaml.safe_load(path.read_text())
        except OSError as error:
            raise BadTopicFile(f"{path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise BadTopicFile(f"{path} is not UTF-8; write it as UTF-8 text") from None
        except yaml.YAMLError as error:
            raise BadTopicFile(f"{path} is no YAML: {' '.join(str(error).split())}") from None
        if not isinstance(told, dict):
            raise BadTopicFile(f"{path} has to be a mapping with topic, partitions and config")
        if (name := str(told.get("topic"))) in seen:
            raise BadTopicFile(f"{path} is about topic {name}, and so is {seen[name]}; keep one of them")
        seen[name] = path
        yield path, told


def _as(model: type[T], path: Path, told: Mapping[str, Any]) -> T:
    try:
        return model.model_validate(told)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        said = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}" for one in wrong[:3]
        )
        raise BadTopicFile(f"{path}: {said}; mend the file") from None
