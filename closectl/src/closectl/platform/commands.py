"""`closectl database`, `topics` and `connector`: what an installation or an upgrade runs once, in this order.

Each may be repeated, and changes nothing that is as it should be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from closectl.arguments import seconds, shown
from closectl.command_line import examples
from closectl.environment import connect_tls, database_dsn, database_says, kafka_connection, kafka_says
from closectl.output import console, fail
from closectl.platform.acls import PRINCIPALS_FILE, Access, BadAccess, load_access
from closectl.platform.connector import NotRegistered, outbox_of, register
from closectl.platform.kafka_access import AccessNotApplied, apply_access
from closeflow.kafka import KafkaConnection, KafkaError
from closeflow.kafka.topics import TopicMismatch, ensure_topics, load_topics
from closeflow.project_files import ProjectFilesMissing, project_path
from closeflow.storage.core.engine import DatabaseError, DriverError, first_line
from closeflow.storage.schema import migrate

TOPICS: Final = "schemas/topics"
LARGEST_FACTOR: Final = 32_767
_DIRECTORY: Final = {"exists": True, "file_okay": False, "readable": True}


def _worker(value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise typer.BadParameter(f"{shown(value)} must be an address such as http://127.0.0.1:8083")
    return value


database = typer.Typer(no_args_is_help=True, help="The database: its schema and the passwords of the services' roles.")
topics = typer.Typer(no_args_is_help=True, help="The topics of Kafka.")
connector = typer.Typer(no_args_is_help=True, help="The outbox connector, which publishes what services say.")


@database.command("migrate", epilog=examples("database migrate", "database migrate --passwords /run/secrets/postgres"))
def migrate_(
    passwords: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Then give each role the password in DIR/<role>.", **_DIRECTORY),
    ] = None,
) -> None:
    """Bring the database to the newest schema, as its owner: CLOSECTL_POSTGRES_DSN is the owner's here.

    It waits for another one that migrates. What it does to tables in use waits for them only briefly, and is tried
    again: services may run.
    """
    dsn = database_dsn("the database's owner")
    given = {} if passwords is None else _of_each(migrate.ROLES, passwords)
    try:
        migrate.upgrade(dsn)
        migrate.set_role_passwords(dsn, given)
    except ProjectFilesMissing as error:
        fail(str(error), code=2)
    except DatabaseError as error:
        fail(database_says(error), code=2)
    except DriverError as error:
        fail(f"the roles' passwords were not all set: {first_line(error)}", code=2)
    told = f", {len(given)} roles have their passwords" if given else ""
    console.print(f"the database is at revision {migrate.HEAD}{told}", highlight=False, soft_wrap=True)


def _of_each(names: Iterable[str], directory: Path) -> dict[str, str]:
    """Passwords by name; each needs its file, because who has none cannot log in."""
    found = {}
    for name in names:
        try:
            found[name] = (directory / name).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            fail(f"{directory / name} cannot be read ({why}); give each one's password in a file of its name", code=2)
        if not found[name]:
            fail(f"{directory / name} is empty; put the password into it", code=2)
    return found


@topics.command(
    "apply",
    epilog=examples(
        "topics apply", "topics apply --replication-factor 1", "topics apply --acls --secrets /run/secrets"
    ),
)
def apply_(
    replication_factor: Annotated[
        int, typer.Option(min=1, max=LARGEST_FACTOR, help="Copies of each new topic; at most as many as brokers.")
    ] = 3,
    directory: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Other topic files than closeflow's.", **_DIRECTORY)
    ] = None,
    acls: Annotated[
        bool, typer.Option("--acls", help="Then let each service do what it needs, and nothing else; needs --secrets.")
    ] = False,
    secrets: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="As `secrets make` fills it: passwords are in DIR/kafka.", **_DIRECTORY),
    ] = None,
) -> None:
    """Create the topics that are missing; those that exist are only checked.

    min.insync.replicas is what the topic's file says, and at most the replication factor. With --acls the users of
    Kafka get their passwords, and the rights that the topic files and schemas/principals.yaml give them; what else they
    may do is taken away, and said.
    """
    if acls is (secrets is None):
        fail("give --acls and --secrets together: rights are of users, and those have passwords", code=2)
    kafka = kafka_connection()
    access = _access(directory) if acls else None
    passwords = {} if access is None or secrets is None else _of_each(access.principals, secrets / "kafka")
    try:
        specs = load_topics(directory or project_path(TOPICS))
    except (ProjectFilesMissing, ValueError) as error:
        fail(str(error), code=2)
    try:
        made = asyncio.run(ensure_topics(kafka, specs, replication_factor=replication_factor))
    except (KafkaError, TimeoutError) as error:
        fail(kafka_says(kafka, error), code=2)
    except TopicMismatch as error:
        fail(str(error))
    told = f"created {', '.join(made)}" if made else "nothing to create"
    console.print(f"{len(specs)} topics are as their files say: {told}", highlight=False, soft_wrap=True)
    if access is not None:
        _apply_access(kafka, access, passwords)


def _access(directory: Path | None) -> Access:
    try:
        return load_access(directory or project_path(TOPICS), project_path(PRINCIPALS_FILE))
    except (ProjectFilesMissing, BadAccess) as error:
        fail(str(error), code=2)


def _apply_access(kafka: KafkaConnection, access: Access, passwords: Mapping[str, str]) -> None:
    try:
        done = apply_access(kafka, access, passwords)
    except AccessNotApplied as error:
        fail(f"Kafka's users and rights are not all as they should be: {error}; repeating the command is safe", code=2)
    lines = [f"{len(done.users)} users have their passwords, and {len(access.acls)} rights"]
    lines += [f"now allowed: {one}" for one in done.added] + [f"no longer allowed: {one}" for one in done.removed]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


@connector.command(
    "register",
    epilog=examples(
        "connector register --connect-url http://127.0.0.1:8083 --credentials-file /run/secrets/debezium.properties"
    ),
)
def register_(
    connect_url: Annotated[str, typer.Option(callback=_worker, help="The worker's REST address.")],
    credentials_file: Annotated[
        Path, typer.Option(help="Where the worker finds user= and password=; a path of its own file system.")
    ],
    database_host: Annotated[str, typer.Option(help="How the worker reaches the database, if another way.")] = "",
    database_port: Annotated[int, typer.Option(min=0, max=65_535, help="The same; 0 is the DSN's.")] = 0,
    database_ca: Annotated[
        Path | None,
        typer.Option(help="Where the worker finds the authority that the database's certificate must be of."),
    ] = None,
    topic_prefix: Annotated[str, typer.Option(help="Put before every topic: for tests that share a Kafka.")] = "",
    wait: Annotated[float, seconds("Give up after this long.")] = 60,
) -> None:
    """Register the connector of the database of CLOSECTL_POSTGRES_DSN, and wait until it streams.

    The login is any that may connect: the replication slot is looked up with it. A worker that asks for a certificate
    is shown the one of CLOSECTL_CONNECT_CERTIFICATE_PATH and _KEY_PATH. Exit code 1: it does not stream, and why.
    """
    dsn = database_dsn("any role that may connect")
    try:
        outbox = outbox_of(
            dsn,
            credentials_file,
            topic_prefix=topic_prefix,
            host=database_host,
            port=database_port,
            database_ca=database_ca,
        )
        register(connect_url, outbox, dsn=dsn, deadline_s=wait, tls=connect_tls())
    except ProjectFilesMissing as error:
        fail(str(error), code=2)
    except DriverError as error:
        fail(database_says(error), code=2)
    except NotRegistered as error:
        fail(f"not registered: {error}")
    console.print(f"{outbox.connector} is running, slot {outbox.slot} is active", highlight=False, soft_wrap=True)
