"""The keys of tokens follow their source while the service runs, and outlive it for a while."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm
from structlog.testing import capture_logs

from close_api.auth.jwks import MAX_BYTES
from close_api.auth.keys import Keys, NoKeys
from closeflow.clock import HostClock, driven_by

Logs = list[MutableMapping[str, Any]]

DEADLINE_S: Final = 10.0


class Ahead(HostClock):
    """The host's clock, put forward by hand; what it bounds ends `hurry` times as soon."""

    def __init__(self) -> None:
        self.by = 0.0
        self.hurry = 1.0

    def monotonic(self) -> float:
        return super().monotonic() + self.by

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        return super().timeout(None if seconds is None else seconds / self.hurry)


@pytest.fixture
def clock() -> Iterator[Ahead]:
    ahead = Ahead()
    with driven_by(ahead):
        yield ahead


@pytest.fixture
def logs() -> Iterator[Logs]:
    with capture_logs() as captured:
        yield captured


def jwk(kid: str) -> dict[str, Any]:
    return OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate().public_key(), as_dict=True) | {"kid": kid}


A: Final = jwk("a")
B: Final = jwk("b")


def body(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


async def has(keys: Keys, kid: str) -> bool:
    return (await keys.find(kid))[1] is not None


def events(logs: Logs, level: str | None = None) -> list[str]:
    return [one["event"] for one in logs if level is None or one["log_level"] == level]


async def until(seen: Callable[[], bool]) -> None:
    while not seen():  # noqa: ASYNC110 (nothing tells)
        await asyncio.sleep(0.001)


# A file


async def test_a_replaced_file_is_read_within_a_second_and_what_it_lacks_is_revoked(
    tmp_path: Path, clock: Ahead
) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(body(A, B))
    keys = Keys(str(file))
    before = keys.generation()
    assert await has(keys, "a")
    new = tmp_path / "new.json"
    new.write_bytes(body(B))
    new.replace(file)
    clock.by += 1
    assert keys.generation() != before
    assert not await has(keys, "a")
    assert await has(keys, "b")


async def test_a_file_that_says_the_same_revokes_nothing(tmp_path: Path, clock: Ahead) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(body(A, B))
    keys = Keys(str(file))
    before = keys.generation()
    file.write_bytes(body(B, A))
    clock.by += 1
    assert keys.generation() == before


async def test_a_file_is_looked_at_once_a_second(tmp_path: Path, clock: Ahead) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(body(A))
    keys = Keys(str(file))
    assert await has(keys, "a")
    file.write_bytes(body(B))
    assert await has(keys, "a")
    clock.by += 1
    assert not await has(keys, "a")


async def test_another_key_under_the_same_kid_is_another_set(tmp_path: Path, clock: Ahead) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(body(A))
    keys = Keys(str(file))
    before, old = await keys.find("a")
    file.write_bytes(body(jwk("a")))
    clock.by += 1
    after, new = await keys.find("a")
    assert (after, new) != (before, old)
    assert after != before


def instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(file: Path) -> None:
        file.unlink()
        make(file)

    return change


BROKEN: Final[dict[str, Callable[[Path], object]]] = {
    "away": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "half written": lambda file: file.write_bytes(body(A)[:40]),
    "huge": lambda file: file.write_bytes(b" " * MAX_BYTES + body(A)),
    "a directory": instead(Path.mkdir),
    "a pipe": instead(os.mkfifo),
    "a loop": instead(lambda file: file.symlink_to(file)),
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
async def test_without_a_readable_file_the_last_keys_stay_for_a_time_and_then_there_are_none(
    tmp_path: Path, clock: Ahead, logs: Logs, change: Callable[[Path], object]
) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(body(A))
    keys = Keys(str(file), max_age_s=600)
    before = keys.generation()
    change(file)
    for _ in range(3):
        clock.by += 190
        assert await has(keys, "a")
    assert keys.generation() == before
    assert events(logs, "warning") == ["key_set_not_read"]
    for _ in range(3):
        clock.by += 31
        assert not await has(keys, "a")
        assert not keys.known
    assert keys.generation() != before
    assert events(logs, "error") == ["key_set_given_up"]
    new = tmp_path / "new.json"
    new.write_bytes(body(A))
    if file.is_dir() and not file.is_symlink():
        file.rmdir()
    new.replace(file)
    clock.by += 1
    assert await has(keys, "a")
    assert events(logs, "info")[-1] == "key_set_readable_again"
    assert len(events(logs, "warning") + events(logs, "error")) == 2


async def test_an_unchanged_file_never_grows_old(tmp_path: Path, clock: Ahead) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(body(A))
    keys = Keys(str(file), max_age_s=60)
    for _ in range(3):
        clock.by += 1000
        assert await has(keys, "a")


@pytest.mark.parametrize("path", ["missing.json", "a\0b", "x" * 5000])
async def test_a_service_does_not_begin_with_a_file_that_is_none(tmp_path: Path, path: str) -> None:
    with pytest.raises(NoKeys, match="no keys to check tokens with"):
        await Keys(str(tmp_path / path)).load()


async def test_each_key_that_is_not_used_is_named_once(tmp_path: Path, clock: Ahead, logs: Logs) -> None:
    file = tmp_path / "jwks.json"
    secret = {"kty": "oct", "kid": "s", "k": "c2VjcmV0LXNlY3JldA"}
    file.write_bytes(body(A, secret, B | {"use": "enc"}))
    keys = Keys(str(file))
    for _ in range(3):
        keys.generation()
        clock.by += 1
    assert [(one["kid"], one["log_level"]) for one in logs if one["event"] == "key_not_used"] == [
        ("s", "error"),
        ("b", "warning"),
    ]
    assert "c2VjcmV0" not in str(logs)


@pytest.mark.parametrize("kid", ["../a", "/etc/passwd", "http://127.0.0.1/a", "a\0", "A", "a ", ""])
async def test_a_kid_is_found_by_its_exact_text_alone(tmp_path: Path, kid: str) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(body(A))
    assert not await has(Keys(str(file)), kid)


# An address


@dataclass
class Issuer:
    """Answers each request with what it is told, and keeps which paths were asked for."""

    answer: Callable[[web.BaseRequest], Any]
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks?client=closeflow"

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        answer = self.answer(request)
        found: web.StreamResponse = await answer if asyncio.iscoroutine(answer) else answer
        return found

    def says(self, *keys: object) -> None:
        self.answer = lambda _: web.Response(body=body(*keys))


@asynccontextmanager
async def serving(answer: Callable[[web.BaseRequest], Any]) -> AsyncIterator[Issuer]:
    issuer = Issuer(answer)
    runner = web.ServerRunner(web.Server(issuer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    issuer.port = runner.addresses[0][1]
    try:
        yield issuer
    finally:
        await runner.cleanup()


def of(*keys: object) -> Callable[[web.BaseRequest], web.Response]:
    return lambda _: web.Response(body=body(*keys))


async def test_a_new_key_is_found_when_a_token_names_it_but_not_for_every_token(clock: Ahead) -> None:
    async with serving(of(A)) as issuer:
        keys = Keys(issuer.url)
        await keys.load()
        issuer.says(A, B)
        assert not await has(keys, "b")
        assert len(issuer.asked) == 1
        clock.by += 10
        found = await asyncio.gather(*(has(keys, f"unknown {n}") for n in range(50)), has(keys, "b"))
        assert found[-1]
        assert not any(found[:-1])
        assert len(issuer.asked) == 2
        assert not await has(keys, "another")
        assert len(issuer.asked) == 2


async def test_a_key_that_is_known_asks_nobody(clock: Ahead) -> None:
    async with serving(of(A)) as issuer:
        keys = Keys(issuer.url)
        await keys.load()
        clock.by += 100
        assert await has(keys, "a")
        assert len(issuer.asked) == 1


async def test_the_set_is_fetched_again_and_again(clock: Ahead, logs: Logs) -> None:
    async with serving(of(A)) as issuer:
        keys = Keys(issuer.url, refresh_s=0.01)
        stop = asyncio.Event()
        running = asyncio.create_task(keys.run(stop))
        async with asyncio.timeout(DEADLINE_S):
            await until(lambda: keys.known)
            issuer.says(B)
            await until(lambda: keys.generation() == 2)
        stop.set()
        async with asyncio.timeout(DEADLINE_S):
            await running
        assert not await has(keys, "a")
        assert await has(keys, "b")
        assert events(logs) == ["verifying_keys_changed"] * 2


async def test_an_issuer_that_does_not_answer_holds_a_token_up_for_a_bounded_time(clock: Ahead) -> None:
    async def never(_: web.BaseRequest) -> web.Response:
        await asyncio.sleep(3600)
        return web.Response()

    async with serving(never) as issuer:
        clock.hurry = 4
        keys = Keys(issuer.url)
        assert not await has(keys, "a")
        clock.by += 10
        assert not await has(keys, "a")
        assert len(issuer.asked) == 1, "the first call had waited to the end"
        await keys.load()
        assert not keys.known


def redirect(location: str) -> web.Response:
    return web.Response(status=302, headers={"location": location})


def elsewhere(asked: web.BaseRequest) -> str:
    return f"http://localhost:{asked.url.port}/jwks"


async def never_ending(request: web.BaseRequest) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b" " * 65_536)


AWAY: Final[dict[str, Callable[[web.BaseRequest], Any]]] = {
    "an error": lambda _: web.Response(status=500, body=body(B)),
    "no such page": lambda _: web.Response(status=404),
    "no content": lambda _: web.Response(status=204),
    "not JSON": lambda _: web.Response(text="<html>please log in</html>"),
    "too many keys": lambda _: web.Response(body=body(*[B] * 101)),
    "a body without an end": never_ending,
    "a compressed body": lambda _: web.Response(body=body(B), headers={"content-encoding": "gzip"}),
    "another origin": lambda asked: of(B)(asked) if asked.url.host == "localhost" else redirect(elsewhere(asked)),
    "another scheme": lambda request: redirect(f"https://127.0.0.1:{request.url.port}/jwks"),
    "a file": lambda _: redirect("file:///etc/passwd"),
    "no address": lambda _: redirect("http://[/"),
    "itself": lambda _: redirect("/jwks"),
}


@pytest.mark.parametrize("answer", AWAY.values(), ids=AWAY)
async def test_without_a_usable_answer_the_last_keys_stay_for_a_time_and_then_there_are_none(
    clock: Ahead, logs: Logs, answer: Callable[[web.BaseRequest], Any]
) -> None:
    async with serving(of(A)) as issuer:
        keys = Keys(issuer.url, max_age_s=600)
        await keys.load()
        issuer.answer = answer
        for _ in range(3):
            clock.by += 190
            assert not await has(keys, "b")
            assert await has(keys, "a")
        assert 4 <= len(issuer.asked) <= 13
        clock.by += 31
        assert not await has(keys, "a")
        assert not keys.known
        assert events(logs, "warning") == ["key_set_not_read"]
        assert events(logs, "error") == ["key_set_given_up"]
        issuer.says(A)
        clock.by += 10
        assert await has(keys, "a")
        assert "closeflow" not in str([one.get("source") for one in logs])


async def test_an_address_may_lead_on_within_its_origin() -> None:
    async with serving(lambda asked: of(A)(asked) if asked.path == "/new" else redirect("/new")) as issuer:
        keys = Keys(issuer.url)
        await keys.load()
        assert await has(keys, "a")
        assert issuer.asked == ["/jwks", "/new"]


async def test_an_issuer_that_starts_later_is_asked_again(clock: Ahead, logs: Logs) -> None:
    async with serving(of(A)) as issuer:
        url = issuer.url
    keys = Keys(url)
    await keys.load()
    assert not await has(keys, "a")
    assert events(logs) == ["key_set_not_read"]
    assert logs[0]["reason"].startswith("ClientConnectorError")
