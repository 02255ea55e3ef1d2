"""Whose tokens are taken: those that a key of the issuer signed, for us, now; and how long they are known again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from token_signing import (
    CLAIMS,
    ED_KEY,
    P256_KEY,
    P384_KEY,
    P521_KEY,
    RSA_KEY,
    RULES,
    Asked,
    Still,
    T,
    refused,
    sign,
    token,
    write_jwks,
)

from close_api.auth.caller import ANYONE, Caller, Scope
from close_api.auth.claims import EXPLAINED, Refusal
from close_api.auth.tokens import Disabled, Tokens
from closeflow.clock import driven_by


@pytest.fixture
def clock() -> Iterator[Still]:
    still = Still()
    with driven_by(still):
        yield still


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "jwks.json"
    write_jwks(found)
    return found


@pytest.fixture
def keys(file: Path, clock: Still) -> Asked:
    return Asked(str(file))


@pytest.fixture
def tokens(keys: Asked) -> Tokens:
    return Tokens(keys, RULES)


@pytest.mark.parametrize(
    ("kid", "alg", "key"),
    [
        *(("rsa", alg, RSA_KEY) for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        ("rs256", "RS256", RSA_KEY),
        ("p256", "ES256", P256_KEY),
        ("p384", "ES384", P384_KEY),
        ("p521", "ES512", P521_KEY),
        ("ed", "EdDSA", ED_KEY),
    ],
)
async def test_a_token_of_each_algorithm_names_its_caller(tokens: Tokens, kid: str, alg: str, key: Any) -> None:
    found = await tokens.caller(f"Bearer {sign({'alg': alg, 'kid': kid, 'typ': 'JWT'}, CLAIMS, key, alg)}")
    assert found == Caller("portfolio", frozenset({"main", "hedge"}), frozenset({Scope.WRITE}))


@pytest.mark.parametrize(
    ("authorization", "claims"),
    [
        ("bearer {}", {}),
        ("BEARER   {}  ", {}),
        ("Bearer {}", {"aud": ["other", RULES.audience]}),
        ("Bearer {}", {"nbf": None, "iat": None}),
        ("Bearer {}", {"exp": T - 29}),
        ("Bearer {}", {"nbf": T + 30, "iat": T + 30}),
        ("Bearer {}", {"anything": {"else": [1.5, None]}}),
    ],
)
async def test_what_a_token_may_be(tokens: Tokens, authorization: str, claims: dict[str, Any]) -> None:
    assert (await tokens.caller(authorization.format(token(**claims)))).subject == "portfolio"


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt"])
async def test_a_token_may_say_that_it_is_one_for_access(tokens: Tokens, kind: str) -> None:
    assert (await tokens.caller(f"Bearer {token(header={'typ': kind})}")).subject == "portfolio"


@pytest.mark.parametrize(
    ("claim", "accounts"),
    [
        ("*", None),
        (["*"], None),
        (["main"], {"main"}),
        (["main", "*"], {"main"}),
        (["main", 5, None, "", "a\nb", "\ud800", "x" * 129, ["*"]], {"main"}),
        ([], set()),
        ("main", set()),
        ("**", set()),
        ({"*": 1}, set()),
        (True, set()),
        (None, set()),
    ],
)
async def test_a_caller_sees_the_accounts_that_are_named_and_no_other(
    tokens: Tokens, claim: object, accounts: set[str] | None
) -> None:
    found = await tokens.caller(f"Bearer {token(accounts=claim)}")
    assert found.accounts == accounts
    assert found.may_see("other") == (accounts is None)


@pytest.mark.parametrize(
    ("claim", "scopes"),
    [
        ("close:write close:read close:operate", {Scope.WRITE, Scope.READ, Scope.OPERATE}),
        (["close:read", 5, {}], {Scope.READ}),
        ("close:writer close CLOSE:READ close:read,close:write", set()),
        ({"close:write": True}, set()),
        (None, set()),
    ],
)
async def test_a_caller_may_what_its_scope_names_and_nothing_else(
    tokens: Tokens, claim: object, scopes: set[Scope]
) -> None:
    assert (await tokens.caller(f"Bearer {token(scope=claim)}")).scopes == scopes


@pytest.mark.parametrize("authorization", [None, "", "Bearer x", "\x00"])
async def test_without_authentication_anyone_is_everyone(authorization: str | None) -> None:
    assert await Disabled().caller(authorization) is ANYONE


# Known again


async def test_a_token_that_is_known_costs_no_signature(tokens: Tokens, keys: Asked) -> None:
    good = f"Bearer {token()}"
    first = await tokens.caller(good)
    assert [await tokens.caller(good) for _ in range(3)] == [first] * 3
    assert keys.kids == ["ed"]


async def test_a_token_that_is_known_expires_all_the_same(tokens: Tokens, keys: Asked, clock: Still) -> None:
    good = f"Bearer {token()}"
    await tokens.caller(good)
    clock.by = 599.9
    await tokens.caller(good)
    assert keys.kids == ["ed"]
    clock.by = 600
    await tokens.caller(good)
    assert keys.kids == ["ed", "ed"], "within the leeway it is verified each time"
    clock.by = 630
    assert EXPLAINED[Refusal.EXPIRED] in await refused(tokens, good)


async def test_a_token_of_a_revoked_key_is_refused_at_once_though_it_is_known(
    tokens: Tokens, file: Path, clock: Still
) -> None:
    good = f"Bearer {token()}"
    await tokens.caller(good)
    write_jwks(file, "rsa")
    clock.by = 1
    assert EXPLAINED[Refusal.UNKNOWN_KEY] in await refused(tokens, good)


def write_nothing(file: Path) -> None:
    file.unlink()


async def test_known_tokens_are_taken_while_the_keys_are_away_and_refused_when_that_lasts(
    tokens: Tokens, keys: Asked, file: Path, clock: Still
) -> None:
    good = f"Bearer {token(exp=T + 86_400)}"
    await tokens.caller(good)
    write_nothing(file)
    clock.by = 3600
    assert (await tokens.caller(good)).subject == "portfolio"
    assert (await tokens.caller(f"Bearer {token(sub='new', exp=T + 86_400)}")).subject == "new"
    assert keys.kids == ["ed", "ed"]
    clock.by = 3602
    assert EXPLAINED[Refusal.NO_KEYS] in await refused(tokens, good)
    write_jwks(file)
    clock.by = 3603
    assert (await tokens.caller(good)).subject == "portfolio"


async def test_only_so_many_tokens_are_kept_and_the_one_used_last_stays(keys: Asked) -> None:
    tokens = Tokens(keys, RULES, cache_size=2)
    first, second, third = (f"Bearer {token(sub=name)}" for name in "abc")
    for one in (first, second, first, third, first):
        await tokens.caller(one)
    assert len(keys.kids) == 3
    await tokens.caller(second)
    assert len(keys.kids) == 4


async def test_a_refused_token_is_not_kept(tokens: Tokens, keys: Asked, clock: Still) -> None:
    early = f"Bearer {token(nbf=T + 60)}"
    await refused(tokens, early)
    clock.by = 60
    assert (await tokens.caller(early)).subject == "portfolio"
