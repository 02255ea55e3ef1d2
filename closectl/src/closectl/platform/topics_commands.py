"""`closectl topics apply` and `diff`: Kafka's topics, users and rights, and what the files say of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from closectl.arguments import AsJson
from closectl.command_line import examples
from closectl.environment import kafka_connection, kafka_says
from closectl.output import console, fail, print_json
from closectl.platform.kafka_access import AccessNotApplied, apply_access, compare_access
from closectl.platform.passwords import DIRECTORY, of_each
from closeflow.contracts.kafka_rights import PRINCIPALS_FILE, Access, load_access
from closeflow.contracts.topic_files import TOPICS_DIRECTORY, BadTopicFile
from closeflow.kafka import KafkaConnection, KafkaError, TopicMismatch, TopicSpec, load_topics
from closeflow.kafka.apply_topics import apply_topics, compare_topics
from closeflow.project_files import ProjectFilesMissing, project_path

LARGEST_FACTOR: Final = 32_767
APPLY_EXAMPLES: Final = examples(
    "topics apply", "topics apply --replication-factor 1", "topics apply --acls --secrets /run/secrets"
)
DIFF_EXAMPLES: Final = examples("topics diff", "topics diff --acls", "topics diff --replication-factor 3 --json")

Files = Annotated[Path | None, typer.Option(metavar="DIR", help="Other topic files than closeflow's.", **DIRECTORY)]


def apply_(
    replication_factor: Annotated[
        int, typer.Option(min=1, max=LARGEST_FACTOR, help="Copies of each new topic; at most as many as brokers.")
    ] = 3,
    directory: Files = None,
    acls: Annotated[
        bool, typer.Option("--acls", help="Then let each service do what it needs, and nothing else; needs --secrets.")
    ] = False,
    secrets: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="As `secrets make` fills it: passwords are in DIR/kafka.", **DIRECTORY),
    ] = None,
) -> None:
    """Create the topics that are missing, and give those that exist the settings of their files.

    A setting of a topic that its file does not say is taken away; each change is said. Another number of partitions is
    refused, because keys would move. min.insync.replicas is what the topic's file says, and at most the number of
    copies. With --acls the users of Kafka get their passwords, and the rights that the topic files and
    schemas/principals.yaml give them; what else they may do is taken away, and said.
    """
    if acls is (secrets is None):
        fail("give --acls and --secrets together: rights are of users, and those have passwords", code=2)
    kafka = kafka_connection()
    access = _access(directory) if acls else None
    passwords = {} if access is None or secrets is None else of_each(access.principals, secrets / "kafka")
    specs = _topics(directory)
    try:
        done = asyncio.run(apply_topics(kafka, specs, replication_factor=replication_factor))
    except (KafkaError, TimeoutError) as error:
        fail(kafka_says(kafka, error), code=2)
    except TopicMismatch as error:
        fail(str(error))
    told = f"created {', '.join(done.created)}" if done.created else "nothing to create"
    _say([f"{len(specs)} topics are as their files say: {told}", *done.changed])
    if access is not None:
        _apply_access(kafka, access, passwords)


def diff_(
    replication_factor: Annotated[
        int | None,
        typer.Option(min=1, max=LARGEST_FACTOR, help="How many copies each topic should have; else any will do."),
    ] = None,
    directory: Files = None,
    acls: Annotated[
        bool, typer.Option("--acls", help="Also the rights of closeflow's users; asks as Kafka's administrator.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare Kafka's topics with their files, and with --acls the rights with what the files give; changes nothing.

    Looks at topics, partitions and settings. A line for each difference, which says how to mend it. Exit code 0: none,
    1: some, 2: it could not be compared.
    """
    kafka = kafka_connection()
    access = _access(directory) if acls else None
    specs = _topics(directory)
    try:
        found = list(asyncio.run(compare_topics(kafka, specs, copies=replication_factor)))
    except (KafkaError, TimeoutError) as error:
        fail(kafka_says(kafka, error), code=2)
    if access is not None:
        try:
            found += compare_access(kafka, access)
        except AccessNotApplied as error:
            fail(f"the rights cannot be compared: {error}; ask as Kafka's administrator", code=2)
    if as_json:
        print_json({"topics": len(specs), "rights": len(access.acls) if access else None, "differences": found})
    else:
        rights = f" and {len(access.acls)} rights" if access else ""
        _say([*found, f"{len(specs)} topics{rights} compared with their files: {len(found) or 'no'} differences"])
    if found:
        raise typer.Exit(1)


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _topics(directory: Path | None) -> tuple[TopicSpec, ...]:
    try:
        return load_topics(directory or project_path(TOPICS_DIRECTORY))
    except (ProjectFilesMissing, BadTopicFile) as error:
        fail(str(error), code=2)


def _access(directory: Path | None) -> Access:
    try:
        return load_access(directory or project_path(TOPICS_DIRECTORY), project_path(PRINCIPALS_FILE))
    except (ProjectFilesMissing, BadTopicFile) as error:
        fail(str(error), code=2)


def _apply_access(kafka: KafkaConnection, access: Access, passwords: Mapping[str, str]) -> None:
    try:
        done = apply_access(kafka, access, passwords)
    except AccessNotApplied as error:
        fail(f"Kafka's users and rights are not all as they should be: {error}; repeating the command is safe", code=2)
    lines = [f"{len(done.users)} users have their passwords, and {len(access.acls)} rights"]
    lines += [f"now allowed: {one}" for one in done.added] + [f"no longer allowed: {one}" for one in done.removed]
    _say(lines)
