"""What each role may do in a database, as its catalog says: the access lists themselves, and no function's verdict."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg

_OF_RELATIONS: Final = """
    SELECT c.relkind, c.relname, NULL, pg_get_userbyid(nullif(a.grantee, 0)), a.privilege_type
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a
    WHERE n.nspname = 'public' AND a.grantee <> c.relowner"""
_OF_COLUMNS: Final = """
    SELECT c.relkind, c.relname, t.attname, pg_get_userbyid(nullif(a.grantee, 0)), a.privilege_type
    FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace,
        aclexplode(t.attacl) a
    WHERE n.nspname = 'public' AND a.grantee <> c.relowner ORDER BY t.attnum"""
_OF_FUNCTIONS: Final = """
    SELECT 'f', p.proname, NULL, pg_get_userbyid(nullif(a.grantee, 0)), a.privilege_type
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace,
        aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
    WHERE n.nspname = 'public' AND a.grantee <> p.proowner"""
_EVERYBODY: Final = "everybody"
_DAY: Final = re.compile(r"_[0-9]{8}$|_p?[0-9]{4}_?[0-9]{2}_?[0-9]{2}$")
KINDS: Final = {"r": "table", "p": "table", "v": "view", "S": "sequence", "f": "function"}


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """What a grant is of; partitions of a day have one name."""

    kind: str
    name: str


def item_of(kind: str | bytes, name: str) -> Item:
    """As the catalog has them: the kind is one letter."""
    letter = kind if isinstance(kind, str) else kind.decode()
    return Item(KINDS[letter], _DAY.sub("_<day>", name))


Grants = Mapping[Item, Mapping[str, Mapping[str, tuple[str, ...]]]]
"""By item and role the privileges, and of each the columns; none where it is the whole item's."""


def read_grants(database: psycopg.Connection[Any]) -> Grants:
    """Everything in the schema `public` that is not its owner's alone."""
    found: dict[Item, dict[str, dict[str, list[str]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for statement in (_OF_RELATIONS, _OF_COLUMNS, _OF_FUNCTIONS):
        for kind, name, column, role, privilege in database.execute(statement.encode()).fetchall():
            item = item_of(kind, name)
            columns = found[item][role or _EVERYBODY][privilege]
            if column is not None and column not in columns:
                columns.append(column)
    return {item: {role: {p: tuple(c) for p, c in of.items()} for role, of in by.items()} for item, by in found.items()}


def worded(privileges: Mapping[str, tuple[str, ...]]) -> str:
    """As SQL's GRANT has it."""
    order = ("SELECT", "INSERT", "UPDATE", "DELETE", "USAGE", "EXECUTE")
    named = sorted(privileges.items(), key=lambda one: (order.index(one[0]) if one[0] in order else 9, one[0]))
    return ", ".join(f"{name} ({', '.join(columns)})" if columns else name for name, columns in named)
