"""`closectl token`: close-api takes what it signs, and nobody else gets at the key."""

from __future__ import annotations

import json
import re
import stat
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Final

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from close_api.auth.caller import Caller, Scope
from close_api.auth.claims import TokenRules
from close_api.auth.keys import Keys
from close_api.auth.tokens import Tokens
from close_api.settings import Settings
from closeflow.settings import read
from tests.closectl.running import Done, closectl

ISSUE: Final = ("token", "issue", "--subject", "portfolio", "--key")


def made(directory: Path, *options: str) -> Done:
    done = closectl("token", "key", str(directory), *options)
    assert (done.exit_code, done.stderr) == (0, "")
    return done


def issued(directory: Path, *options: str) -> str:
    done = closectl(*ISSUE, str(directory), *options)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    return done.stdout.strip()


def claims(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


@pytest.mark.parametrize("alg", ["EdDSA", "RS256", "ES256"])
async def test_close_api_takes_the_tokens_with_the_settings_that_are_printed(tmp_path: Path, alg: str) -> None:
    told = made(tmp_path / "dev", "--alg", alg).stdout
    environ = dict(re.findall(r"(CLOSE_API_\w+)=(\S+)", told)) | {"CLOSE_API_POSTGRES_DSN": "postgresql://localhost/x"}
    settings = read(Settings, environ)
    assert settings.jwks is not None
    assert settings.issuer is not None
    assert settings.audience is not None
    tokens = Tokens(Keys(settings.jwks), TokenRules(settings.issuer, settings.audience))
    token = issued(tmp_path / "dev", "--account", "main", "--account", "hedge")
    assert await tokens.caller(f"Bearer {token}") == Caller(
        "portfolio", frozenset({"main", "hedge"}), frozenset({Scope.WRITE, Scope.READ})
    )
    operator = issued(tmp_path / "dev", "--all-accounts", "--scope", "close:operate")
    assert await tokens.caller(f"Bearer {operator}") == Caller("portfolio", None, frozenset({Scope.OPERATE}))


def test_only_its_owner_can_read_the_key_and_it_is_not_printed(tmp_path: Path) -> None:
    directory = tmp_path / "dev"
    told = made(directory).stdout
    secret = directory / "private_key.pem"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    body = secret.read_text().splitlines()[1]
    assert body not in told
    public = json.loads((directory / "jwks.json").read_text())
    assert [{*key} for key in public["keys"]] == [{"kty", "crv", "x", "kid", "alg", "use"}]


@pytest.mark.parametrize("there", ["private_key.pem", "jwks.json"])
def test_nothing_is_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    done = closectl("token", "key", str(tmp_path))
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{there} is there already" in done.stderr
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(there, "mine")]


def test_two_keys_have_two_ids_and_one_key_always_the_same(tmp_path: Path) -> None:
    made(tmp_path / "one")
    made(tmp_path / "other")
    kids = [
        jwt.get_unverified_header(issued(tmp_path / name, "--all-accounts"))["kid"] for name in ("one", "other", "one")
    ]
    assert kids[0] == kids[2] != kids[1]


@pytest.mark.parametrize(
    ("given", "seconds"), [((), 3600), (("--ttl", "30s"), 30), (("--ttl", "15m"), 900), (("--ttl", "7d"), 604_800)]
)
def test_a_token_is_good_for_as_long_as_is_said(tmp_path: Path, given: Sequence[str], seconds: int) -> None:
    made(tmp_path / "dev")
    found = claims(issued(tmp_path / "dev", "--all-accounts", *given))
    assert found["exp"] - found["iat"] == seconds


def test_a_token_says_whose_it_is_and_for_whom(tmp_path: Path) -> None:
    made(tmp_path / "dev")
    found = claims(issued(tmp_path / "dev", "--account", "main", "--issuer", "https://me", "--audience", "close-api"))
    assert (found["iss"], found["aud"], found["sub"]) == ("https://me", "close-api", "portfolio")


WRONG: Final[dict[str, tuple[Sequence[str], str]]] = {
    "no account": ((), "give either --account, as often as there are accounts, or --all-accounts"),
    "one and every account": (("--account", "main", "--all-accounts"), "give either --account"),
    "an account that is every account": (("--account", "*"), "'*' is no account; every account is --all-accounts"),
    "an account with a control character": (("--account", "a\x1b"), "has control characters"),
    "an empty account": (("--account", ""), "must not be empty"),
    "an unknown scope": (("--all-accounts", "--scope", "close:everything"), "'close:write'"),
    "no unit": (("--all-accounts", "--ttl", "60"), "'60' must be a number with a unit, such as 30s, 15m, 1h or 7d"),
    "no time": (("--all-accounts", "--ttl", "0s"), "'0s' must be a number with a unit"),
    "digits that are not ASCII": (("--all-accounts", "--ttl", "٣h"), "must be a number with a unit"),
    "a long time": (("--all-accounts", "--ttl", "367d"), "must not be longer than 366d"),
    "a very long time": (("--all-accounts", "--ttl", "999999999d"), "must not be longer than 366d"),
    "a long subject": (("--all-accounts", "--subject", "x" * 201), "must be 1 to 200 printable characters"),
    "an empty subject": (("--all-accounts", "--subject", ""), "must be 1 to 200 printable characters"),
    "a subject in two lines": (("--all-accounts", "--subject", "a\nb"), "must be 1 to 200 printable characters"),
    "an empty issuer": (("--all-accounts", "--issuer", ""), "must be 1 to 200 printable characters"),
    "many accounts": ([part for n in range(900) for part in ("--account", f"account{n}")], "name fewer accounts"),
}


@pytest.mark.parametrize(("given", "told"), WRONG.values(), ids=WRONG)
def test_a_token_that_would_be_refused_is_not_issued(tmp_path: Path, given: Sequence[str], told: str) -> None:
    made(tmp_path / "dev")
    done = closectl(*ISSUE, str(tmp_path / "dev"), *given)
    assert (done.exit_code, done.stdout) == (2, "")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def pem(curve: ec.EllipticCurve, secured_by: KeySerializationEncryption) -> bytes:
    return ec.generate_private_key(curve).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secured_by)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "there is no .*; `closectl token key .*` makes one"),
        (b"", "is no private key"),
        (b"\xff\xfe", "is no private key"),
        (pem(ec.SECP384R1(), NoEncryption()), "is no private key of Ed25519, RSA or P-256"),
        (pem(ec.SECP256R1(), BestAvailableEncryption(b"password")), "without a password"),
    ],
)
def test_what_is_no_key_signs_nothing(tmp_path: Path, text: bytes | None, told: str) -> None:
    if text is not None:
        (tmp_path / "private_key.pem").write_bytes(text)
    done = closectl(*ISSUE, str(tmp_path), "--all-accounts")
    assert (done.exit_code, done.stdout) == (2, "")
    assert re.search(told, done.stderr)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("directory", ["", " ", ".", "a\0b", "x" * 3000, "missing/dev"])
def test_a_directory_that_cannot_be_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = closectl("token", "key", directory)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert [*tmp_path.iterdir()] == []


class Refusing(BaseHTTPRequestHandler):
    """Answers every close with 401, and keeps what it was sent."""

    sent: ClassVar[list[str | None]] = []

    def do_POST(self) -> None:
        self.sent.append(self.headers["authorization"])
        body = json.dumps({"code": "unauthenticated", "detail": "Send a token."}).encode()
        self.send_response(401)
        self.send_header("content-type", "application/problem+json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nowhere."""


def test_a_close_is_sent_with_the_token_of_the_settings_and_nothing_repeats_it(tmp_path: Path) -> None:
    made(tmp_path / "dev")
    token = issued(tmp_path / "dev", "--all-accounts")
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = closectl("close", "104", api_url=f"http://127.0.0.1:{server.server_port}", api_token=token)
        server.shutdown()
    assert Refusing.sent == [f"Bearer {token}"]
    assert done.exit_code == 1
    assert token not in done.stdout + done.stderr
