"""The standard health service (grpc.health.v1): what readiness says, for who asks, and as a stream for who watches."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from grpc_health.v1 import health, health_pb2

from close_api.doors import Doors
from close_api.errors import Code, Problem
from close_api.grpc.calls import AGED, STOPPING, Call, Refused, StreamLimits, ended
from close_api.grpc.methods import Handler, many_answers, one_answer
from closeflow.clock import timeout
from closeflow.tasks import race

WATCHERS: Final = 100
"""Nobody needs a token to watch: so many of the calls that are taken at once may be such, and leave room for closes."""
FULL: Final = f"There are {WATCHERS} watchers of health already; ask with Check."
Said = health_pb2.HealthCheckResponse


@dataclass(slots=True)
class Health:
    """The server as a whole and the `service` have one status. The library's own servicer writes to its watchers while
    it holds a lock that `tell` would need: one that reads nothing would keep the last status for all others."""

    service: str
    doors: Doors
    limits: StreamLimits
    _said: Said = field(default_factory=lambda: Said(status=Said.NOT_SERVING))
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _watchers: int = 0

    def tell(self, *, serves: bool) -> None:
        """From now on the status is this."""
        self._said = Said(status=Said.SERVING if serves else Said.NOT_SERVING)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def handlers(self) -> dict[str, Handler]:
        """By method, read as carefully as ours."""
        request, read_within_s = health_pb2.HealthCheckRequest, self.doors.deadline_s
        return {
            "Check": one_answer("Health/Check", request, self._check, read_within_s=read_within_s),
            "Watch": many_answers("Health/Watch", request, self._watch, read_within_s=read_within_s),
        }

    def _of(self, service: str) -> Said | None:
        return self._said if service in (health.OVERALL_HEALTH, self.service) else None

    async def _check(self, _call: Call, message: health_pb2.HealthCheckRequest) -> Said:
        said = self._of(message.service)
        if said is None:
            raise Refused(Problem(Code.NOT_FOUND), "There is no such service.")
        return said

    async def _watch(self, call: Call, message: health_pb2.HealthCheckRequest) -> None:
        """Ends as every stream does; who watches keeps no stop waiting."""
        if self._watchers >= WATCHERS:
            raise Refused(Problem(Code.OVERLOADED), FULL)
        self._watchers += 1
        try:
            await race(self._tell_watcher(call, message.service), self.doors.stopping)
        finally:
            self._watchers -= 1
        # Which says as much as NOT_SERVING, and cannot meet an answer that is being written.
        raise ended(STOPPING if self.doors.stopping.is_set() else AGED)

    async def _tell_watcher(self, call: Call, service: str) -> None:
        told: Said | None = None
        try:
            async with timeout(self.limits.age_s):
                while True:
                    changed = self._changed
                    said = self._of(service) or Said(status=Said.SERVICE_UNKNOWN)
                    if said != told:
                        await call.write(said, within_s=self.limits.idle_s)
                        told = said
                    await changed.wait()
        except TimeoutError:
            return
