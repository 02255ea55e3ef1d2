"""docs/access.md: who may do what in Kafka and PostgreSQL. `python -m tests.storage.access_page` writes it."""

from __future__ import annotations

from typing import Any, Final

import psycopg

import devstack
from closeflow.contracts.kafka_rights import PRINCIPALS_FILE, Resource, load_access
from closeflow.storage.schema import migrate
from tests.conftest import INSTANCE, REPOSITORY, fresh_database
from tests.storage.grants import read_grants, worded

PAGE: Final = REPOSITORY / "docs/access.md"
HEAD: Final = """# Who may do what in Kafka and PostgreSQL

Made from the topic files, `schemas/principals.yaml`, and the catalog of a migrated database:
`python -m tests.storage.access_page` writes this page. Tests hold it to both sides: `tests/system/test_kafka_access.py`
tries every operation on every topic and group as every principal, and `tests/storage/test_access.py` every privilege on
every column, table, view, sequence and function as every role: what stands here works, and everything else is refused.
How they log in is in [security](security.md).

## Kafka

`READ` and `WRITE` include `DESCRIBE`; a name that ends with `*` is the beginning of names. Nobody has rights to the
cluster or to transactional ids. The administrator (`closectl`, by its certificate) and the brokers are super users.
"""
POSTGRES: Final = """
## PostgreSQL

Everything belongs to the owner of the database, who migrates it. Nothing that is not here is granted, to roles or to
`PUBLIC`. A right with columns in brackets is for these columns alone. `<day>` stands for every day's partition.
"""


def page(database: psycopg.Connection[Any]) -> str:
    """The whole text."""
    return HEAD + _kafka() + POSTGRES + _postgres(database)


def _kafka() -> str:
    access = load_access(REPOSITORY / "schemas/topics", REPOSITORY / PRINCIPALS_FILE)
    lines = ["", "| principal | topics | groups |", "|---|---|---|"]
    for principal in access.principals:
        cells = []
        for resource in (Resource.TOPIC, Resource.GROUP):
            found: dict[str, list[str]] = {}
            for acl in sorted(access.acls):
                if acl.principal == principal and acl.resource is resource:
                    name = str(acl).rpartition(" ")[2]
                    found.setdefault(name, []).append(acl.operation)
            cells.append("<br>".join(f"`{name}`: {', '.join(ops)}" for name, ops in found.items()))
        lines.append(f"| {principal} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def _postgres(database: psycopg.Connection[Any]) -> str:
    text = ""
    for item, by_role in sorted(read_grants(database).items()):
        text += f"\n### {item.kind} `{item.name}`\n\n| role | may |\n|---|---|\n"
        text += "".join(f"| {role} | {worded(privileges)} |\n" for role, privileges in sorted(by_role.items()))
    return text


def main() -> None:
    """Write the page from a database that is migrated for it."""
    stack = devstack.up(INSTANCE)
    with fresh_database(stack, None) as made:
        migrate.upgrade(made.admin_dsn)
        with psycopg.connect(made.admin_dsn) as database:
            PAGE.write_text(page(database))


if __name__ == "__main__":
    main()
