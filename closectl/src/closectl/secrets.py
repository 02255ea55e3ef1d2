"""`closectl secrets`: keys, certificates and passwords of one system, made where they are missing."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from closectl.arguments import shown
from closectl.certificates import is_address
from closectl.command_line import examples
from closectl.output import fail, visible
from closectl.secrets_directory import CLIENTS, SERVERS, Owner, SecretsDirectory, SecretsTrouble

secrets = typer.Typer(
    no_args_is_help=True,
    help="Keys, certificates and passwords of one system. In production your own authority and secret store may make "
    "them; the files are the same.",
)
LONGEST_DAYS: Final = 3650
_HOST: Final = re.compile(r"[A-Za-z0-9*]([A-Za-z0-9.-]{0,250}[A-Za-z0-9])?")
_OWNER: Final = re.compile(r"(?:([a-z-]+)=)?([0-9]{1,9}):([0-9]{1,9})")
_DIRECTORIES: Final = (*SERVERS, *CLIENTS, "broker", "token-key")


def _hosts(values: list[str] | None) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for value in values or []:
        server, given, host = value.partition("=")
        if server not in SERVERS or not given or not (is_address(host) or _HOST.fullmatch(host)):
            raise typer.BadParameter(f"{shown(value)} must be server=name, the server one of {', '.join(SERVERS)}")
        found.setdefault(server, []).append(host)
    return found


def _owners(values: list[str] | None) -> dict[str, Owner]:
    found = {}
    for value in values or []:
        parts = _OWNER.fullmatch(value)
        if parts is None or parts[1] not in (None, *_DIRECTORIES):
            raise typer.BadParameter(
                f"{shown(value)} must be UID:GID, or one directory's as in postgres=999:999; the directories are "
                f"{', '.join(_DIRECTORIES)}"
            )
        found[parts[1] or ""] = Owner(int(parts[2]), int(parts[3]))
    return found


@secrets.command(
    "make",
    epilog=examples(
        "secrets make --directory ./secrets",
        "secrets make --directory ./secrets --host postgres=db.internal --host kafka=kafka-0.kafka",
        "secrets make --directory ./secrets --owner 10001:10001 --owner postgres=999:999",
    ),
)
def make_(
    directory: Annotated[Path, typer.Option(metavar="DIR", file_okay=False, help="Where they are kept.")],
    host: Annotated[
        list[str] | None, typer.Option(help="One more name or address of a server: server=name. May be repeated.")
    ] = None,
    owner: Annotated[
        list[str] | None,
        typer.Option(help="Whose the files are: UID:GID, or of one directory: postgres=UID:GID. Needs root."),
    ] = None,
    days: Annotated[
        int, typer.Option(min=1, max=LONGEST_DAYS, help="How long certificates that are made now are good.")
    ] = 397,
) -> None:
    """Make what is missing of a system's secrets; nothing that is there is changed, so it may be repeated.

    To replace a secret remove its file, run this again, and restart who uses it.
    """
    made = SecretsDirectory(directory, datetime.now(UTC), hosts=_hosts(host), owners=_owners(owner), days=days)
    try:
        made.complete()
    except SecretsTrouble as error:
        fail(str(error), code=2)
    for line in (*(f"made {name}" for name in made.made), *made.notes):
        typer.echo(visible(line))
    if not made.made:
        typer.echo(visible(f"nothing is missing in {directory}"))
