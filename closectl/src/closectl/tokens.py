"""`closectl token`: for development, a key and the tokens that it signs."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shlex import quote
from typing import Annotated, Final

import typer

from closectl.arguments import proper_name, shown
from closectl.command_line import examples
from closectl.development_key import (
    AUDIENCE,
    ISSUER,
    JWKS,
    PRIVATE_KEY,
    Algorithm,
    Grant,
    KeyTrouble,
    Scope,
    issue_token,
    make_key,
)
from closectl.output import fail, visible

LONGEST_TTL: Final = timedelta(days=366)
LONGEST_SUBJECT: Final = 200
_TTL: Final = re.compile(r"([1-9][0-9]{0,8})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

token = typer.Typer(
    no_args_is_help=True,
    help="Development tokens: a key of your own, and tokens that it signs. In production your identity provider does "
    "both, and close-api reads its key set from CLOSE_API_JWKS.",
)


def _directory(value: Path) -> Path:
    if not str(value).strip() or value == Path():
        raise typer.BadParameter("must not be empty; give the directory of the key")
    return value


def _ttl(text: str) -> timedelta:
    found = _TTL.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{shown(text)} must be a number with a unit, such as 30s, 15m, 1h or 7d")
    ttl = timedelta(**{_UNITS[found[2]]: int(found[1])})
    if ttl > LONGEST_TTL:
        raise typer.BadParameter(f"{shown(text)} must not be longer than {LONGEST_TTL.days}d")
    return ttl


def _subject(value: str) -> str:
    if not (value.isprintable() and 0 < len(value) <= LONGEST_SUBJECT):
        raise typer.BadParameter(f"{shown(value)} must be 1 to {LONGEST_SUBJECT} printable characters")
    return value


def _accounts(values: list[str] | None) -> list[str] | None:
    for value in values or []:
        proper_name(value)
        if not value.isprintable() or value == "*":
            raise typer.BadParameter(f"{shown(value)} is no account; every account is --all-accounts")
    return values


@token.command("key", epilog=examples("token key ./dev-key", "token key ./dev-key --alg RS256"))
def key_(
    directory: Annotated[Path, typer.Argument(metavar="DIR", callback=_directory, help="Where it is written to.")],
    alg: Annotated[Algorithm, typer.Option(help="How it will sign: Ed25519, RSA or P-256.")] = Algorithm.EDDSA,
) -> None:
    """Make a key: DIR/private_key.pem, which only you can read, and DIR/jwks.json, which close-api checks tokens with.

    Nothing is overwritten. Prints the settings with which close-api takes the tokens of `closectl token issue`.
    """
    try:
        kid = make_key(directory, alg)
    except KeyTrouble as error:
        fail(str(error), code=2)
    for line in (
        f"{directory / PRIVATE_KEY}  keep it to yourself",
        f"{directory / JWKS}  key {kid}",
        "start close-api with:",
        f"  CLOSE_API_AUTH=jwt CLOSE_API_JWKS={quote(str(directory.absolute() / JWKS))}"
        f" CLOSE_API_ISSUER={ISSUER} CLOSE_API_AUDIENCE={AUDIENCE}",
    ):
        typer.echo(visible(line))


@token.command(
    "issue",
    epilog=examples(
        "token issue --key ./dev-key --subject portfolio --account main --account hedge",
        "token issue --key ./dev-key --subject ops --all-accounts --scope close:operate --scope close:read --ttl 15m",
        'close 104  # with CLOSECTL_API_TOKEN="$(closectl token issue --key ./dev-key --subject me --all-accounts)"',
    ),
)
def issue_(
    key: Annotated[Path, typer.Option(metavar="DIR", callback=_directory, help="The directory of `token key`.")],
    subject: Annotated[str, typer.Option(callback=_subject, help="Who calls; it is recorded with every close.")],
    account: Annotated[
        list[str] | None, typer.Option(callback=_accounts, help="An account that the caller sees; may be repeated.")
    ] = None,
    all_accounts: Annotated[bool, typer.Option("--all-accounts", help="The caller sees every account.")] = False,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="What the caller may do; may be repeated. Without it: close:write and close:read."),
    ] = None,
    ttl: Annotated[
        timedelta, typer.Option(parser=_ttl, metavar="TIME", help="How long the token is good: 30s, 15m, 1h, 7d.")
    ] = "1h",  # type: ignore[assignment] # The parser makes it one.
    issuer: Annotated[str, typer.Option(callback=_subject, help="Its iss: what CLOSE_API_ISSUER is.")] = ISSUER,
    audience: Annotated[str, typer.Option(callback=_subject, help="Its aud: what CLOSE_API_AUDIENCE is.")] = AUDIENCE,
) -> None:
    """Print a token for the header `Authorization: Bearer`, and nothing else, signed by the key of `token key`."""
    if bool(account) == all_accounts:
        fail("give either --account, as often as there are accounts, or --all-accounts", code=2)
    grant = Grant(
        subject=subject,
        accounts=None if all_accounts else account,
        scopes=list(dict.fromkeys(scope or (Scope.WRITE, Scope.READ))),
        issuer=issuer,
        audience=audience,
    )
    try:
        typer.echo(issue_token(key, grant, ttl=ttl, now=datetime.now(UTC)))
    except KeyTrouble as error:
        fail(str(error), code=2)
