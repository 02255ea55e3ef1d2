"""`closectl database`, `topics` and `connector`: what an installation or an upgrade runs once, in this order.

Each may be repeated, and changes nothing that is as it should be.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from closectl.arguments import seconds, shown
from closectl.command_line import examples
from closectl.environment import connect_tls, database_dsn, database_says
from closectl.output import console, fail
from closectl.platform.connector import NotRegistered, outbox_of, register
from closectl.platform.passwords import DIRECTORY, of_each
from closectl.platform.topics_commands import APPLY_EXAMPLES, DIFF_EXAMPLES, apply_, diff_
from closeflow.project_files import ProjectFilesMissing
from closeflow.storage.core.engine import DatabaseError, DriverError, first_line
from closeflow.storage.schema import migrate


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
topics = typer.Typer(no_args_is_help=True, help="The topics of Kafka: make them, compare them with their files.")
topics.command("apply", epilog=APPLY_EXAMPLES)(apply_)
topics.command("diff", epilog=DIFF_EXAMPLES)(diff_)
connector = typer.Typer(no_args_is_help=True, help="The outbox connector, which publishes what services say.")


@database.command("migrate", epilog=examples("database migrate", "database migrate --passwords /run/secrets/postgres"))
def migrate_(
    passwords: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Then give each role the password in DIR/<role>.", **DIRECTORY),
    ] = None,
) -> None:
    """Bring the database to the newest schema, as its owner: CLOSECTL_POSTGRES_DSN is the owner's here.

    It waits for another one that migrates. What it does to tables in use waits for them only briefly, and is tried
    again: services may run.
    """
    dsn = database_dsn("the database's owner")
    given = {} if passwords is None else of_each(migrate.ROLES, passwords)
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
