"""The keys that may verify tokens now. They are read again while the service runs, and kept for a while without source.

A key that its set has no more is gone with the next read: at once for a file, after `refresh_s` at most for an address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from close_api.auth.jwks import BadKeySet, KeySet, VerifyingKey, read_key_set
from close_api.auth.key_source import KeyAddress, KeyFile, SourceAway, is_address
from closeflow.clock import monotonic, timeout
from closeflow.tasks import end_tasks
from closeflow.telemetry.metrics import gauge

FILE_CHECKED_EVERY_S: Final = 1.0
FETCHED_AT_MOST_EVERY_S: Final = 10.0
"""For a key id that is not known, and after a failure."""
PATIENCE_S: Final = 2.0
"""How long a token whose key is not known waits for the set."""

VERIFYING_KEYS: Final = gauge("close_api_verifying_keys")

log = structlog.get_logger(__name__)


class NoKeys(Exception):
    """There is no usable key set to begin with; the text says why, and where it was looked for."""


class Keys:
    """The key set of a file (a path) or of an address (http:// or https://).

    While its source gives no usable set, the keys of the last one stay until it is `max_age_s` old; then there are
    none, and every token is refused. Each change of that is logged once. Belongs to one event loop.
    """

    def __init__(self, jwks: str, *, refresh_s: float = 300.0, max_age_s: float = 3600.0) -> None:
        self._source = KeyAddress(jwks) if is_address(jwks) else KeyFile(Path(jwks))
        self._refresh_s = refresh_s
        self._max_age_s = max_age_s
        self._set = KeySet({})
        self._generation = 0
        self._good_at: float | None = None  # When the source last had these keys.
        self._failing: str | None = None
        self._tried_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Read the set before the first token. Raises NoKeys for a file without one: that is a slip in a setting. An
        address that gives none may be starting too, and is asked again."""
        if isinstance(self._source, KeyFile):
            self._look(self._source, monotonic())
            if self._failing is not None:
                raise NoKeys(f"no keys to check tokens with: {self._source.name}: {self._failing}")
        else:
            await self._fetch(self._source)

    async def run(self, stop: asyncio.Event) -> None:
        """Read the set again and again until `stop`; an address at least each `refresh_s`."""
        try:
            while not stop.is_set():
                if isinstance(self._source, KeyAddress):
                    await self._fetched(self._source)
                self.generation()
                pause_s = self._refresh_s
                if isinstance(self._source, KeyFile) or self._failing is not None:
                    pause_s = min(FETCHED_AT_MOST_EVERY_S, pause_s)
                with suppress(TimeoutError):
                    async with timeout(pause_s):
                        await stop.wait()
        finally:
            await end_tasks([self._fetching] if self._fetching is not None else [])

    def generation(self) -> int:
        """A number that changes with the keys: what an earlier one verified has to be verified again."""
        now = monotonic()
        if isinstance(self._source, KeyFile) and self._due(now, FILE_CHECKED_EVERY_S):
            self._look(self._source, now)
        if self._good_at is not None and now - self._good_at > self._max_age_s:
            log.error("key_set_given_up", source=self._source.name, reason=self._failing, max_age_s=self._max_age_s)
            self._good_at = None
            self._use(KeySet({}))
        return self._generation

    async def find(self, kid: str) -> tuple[int, VerifyingKey | None]:
        """The generation, and of its keys the one of exactly this id. One that an address did not have is asked for, at
        most each FETCHED_AT_MOST_EVERY_S, and waited for PATIENCE_S."""
        generation = self.generation()
        if kid not in self._set.keys and isinstance(self._source, KeyAddress):
            fetching = self._fetching
            if fetching is None and self._due(monotonic(), FETCHED_AT_MOST_EVERY_S):
                fetching = self._begin(self._source)
            if fetching is not None:
                with suppress(TimeoutError):
                    async with timeout(PATIENCE_S):
                        await asyncio.wait([fetching])  # It goes on, whoever stops waiting.
            generation = self.generation()
        return generation, self._set.keys.get(kid)

    @property
    def known(self) -> bool:
        """Whether there is any key; without one, every token is refused."""
        return bool(self._set.keys)

    def _due(self, now: float, every_s: float) -> bool:
        return self._tried_at is None or now - self._tried_at >= every_s

    def _look(self, file: KeyFile, now: float) -> None:
        self._tried_at = now
        try:
            body = file.read()
            if body is not None:
                self._use(read_key_set(body))
        except (SourceAway, BadKeySet) as error:
            file.forget()
            self._failed(error)
        else:
            self._succeeded(now)

    def _begin(self, address: KeyAddress) -> asyncio.Task[None]:
        def ended(_: object) -> None:
            self._fetching = None

        self._fetching = asyncio.create_task(self._fetch(address), name="key set")
        self._fetching.add_done_callback(ended)
        return self._fetching

    async def _fetched(self, address: KeyAddress) -> None:
        await asyncio.shield(self._fetching or self._begin(address))

    async def _fetch(self, address: KeyAddress) -> None:
        self._tried_at = monotonic()
        try:
            self._use(read_key_set(await address.read()))
        except (SourceAway, BadKeySet) as error:
            self._failed(error)
        else:
            self._succeeded(monotonic())

    def _failed(self, error: Exception) -> None:
        if self._failing is None:
            kept_s = 0.0 if self._good_at is None else self._max_age_s - (monotonic() - self._good_at)
            log.warning(
                "key_set_not_read", source=self._source.name, reason=str(error), keys_kept_s=round(max(0.0, kept_s))
            )
        self._failing = str(error)

    def _succeeded(self, now: float) -> None:
        if self._failing is not None:
            log.info("key_set_readable_again", source=self._source.name, was=self._failing)
        self._failing = None
        self._good_at = now

    def _use(self, found: KeySet) -> None:
        """Take the set; what is told of its keys is told when it differs from the one before."""
        if found == self._set and self._good_at is not None:
            return
        if found.keys != self._set.keys:
            self._generation += 1
        removed = sorted(self._set.keys.keys() - found.keys.keys())
        self._set = found
        VERIFYING_KEYS.set(len(found.keys))
        log.info("verifying_keys_changed", source=self._source.name, kids=_algorithms(found.keys), removed=removed)
        for one in found.skipped:
            say = log.error if one.secret else log.warning
            say("key_not_used", source=self._source.name, kid=one.kid, reason=one.reason)


def _algorithms(keys: Mapping[str, VerifyingKey]) -> dict[str, list[str]]:
    return {kid: sorted(key.algorithms) for kid, key in keys.items()}
