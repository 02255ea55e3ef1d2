"""Keep in touch with the other instances: say that this one lives, watch unanswered sends, share the breaker."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from closeflow.clock import monotonic, timeout
from closeflow.storage.broker_breakers import load_breaker
from closeflow.storage.core.away import Patience, reason
from closeflow.storage.core.engine import CommitUnknown, Database, DatabaseError, Transaction, retrying
from closeflow.storage.order_sends import UnansweredSend, answer_unbegun, unanswered_sends
from closeflow.storage.senders import Sender, confirm_exit, register_sender, sender_exited, sender_seen
from order_submitter.due_orders import wait_for, wait_out
from order_submitter.look_up import Recovery, Watch
from order_submitter.sending.breaker import from_row
from order_submitter.sending.hand_overs import Line, path_of, read_hand_overs
from order_submitter.sending.pool import SenderPool

log = structlog.get_logger(__name__)

MOST_WATCHED: Final = 1000
SIGN_OFF_WITHIN_S: Final = 5.0
_EARLY_FIRST_S: Final = 0.5
_EARLY_CAP_S: Final = 15.0


@dataclass(slots=True, kw_only=True)
class InstanceHeartbeat:
    """What the other instances know of this one, and it of them."""

    database: Database
    broker_name: str
    account_id: str
    presence: Presence
    pool: SenderPool
    recovery: Recovery
    watch: Watch
    hand_overs: Path
    """The folder where the processes of this host say what they handed to the network."""
    says_it_closes: bool
    """Whether each of its orders says that it closes."""
    _read: dict[str, frozenset[Line] | None] = field(default_factory=dict)
    """By sender: what it had handed over."""
    early: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Early look-ups by client order id: when the next one is due (monotonic), and the pause after it."""

    async def register(self) -> None:
        """Write the row that sends refer to, before the first is claimed."""
        sender = self.presence.as_sender(says_it_closes=self.says_it_closes)
        await retrying(self.database, lambda tx: register_sender(tx, sender=sender))

    async def sign_off(self) -> None:
        """To be called once nothing of this instance can reach the wire any more. Where the database is away it is left
        to a person to confirm: it must not keep the process from ending."""
        try:
            async with timeout(SIGN_OFF_WITHIN_S):
                await retrying(self.database, lambda tx: sender_exited(tx, instance_id=self.presence.instance_id))
        except (DatabaseError, CommitUnknown, OSError) as error:
            log.warning("sender_not_signed_off", instance_id=self.presence.instance_id, reason=reason(error))

    async def keep_once(self) -> None:
        """Say that this instance lives, take over the shared breaker, and look at sends that nobody answered."""

        async def work(tx: Transaction) -> list[UnansweredSend]:
            await sender_seen(tx, instance_id=self.presence.instance_id)
            self.pool.share_breaker(
                from_row(await load_breaker(tx, broker=self.broker_name, account_id=self.account_id), now=monotonic())
            )
            return await unanswered_sends(tx, account_id=self.account_id, most=MOST_WATCHED)

        unanswered = await retrying(self.database, work)
        now = monotonic()
        self.watch.saw(unanswered, now=now)
        await self._confirm_exits({one.sender for one in unanswered if self.presence.has_exited(one)})
        orphans = [one for one in unanswered if self.presence.is_gone(one)]
        never_left = await self._never_left([one for one in orphans if one.begun])
        await self._take_over(to_take_over(unanswered, orphans), never_left)
        self._look_up_early([one for one in orphans if one.begun and one not in never_left], now)

    async def _never_left(self, begun: list[UnansweredSend]) -> list[UnansweredSend]:
        """Those whose sender ran on this host, is seen to have exited, and had not handed them to the network. The file
        of a process that has exited does not change any more, so it is read once."""
        of_the_dead = [one for one in begun if self.presence.is_dead(one)]
        read = {one.sender: self._read[one.sender] for one in of_the_dead if one.sender in self._read}
        for sender in {one.sender for one in of_the_dead} - read.keys():
            read[sender] = await asyncio.to_thread(read_hand_overs, path_of(self.hand_overs, sender))
        self._read = read
        known = ((one, read[one.sender]) for one in of_the_dead)
        return [one for one, said in known if said is not None and (one.client_order_id, one.n) not in said]

    async def _confirm_exits(self, gone: set[str]) -> None:
        """What `closectl senders exited` is for, where no person has to look."""
        for sender in sorted(gone):
            await retrying(self.database, partial(confirm_exit, instance_id=sender))
            log.info("sender_has_exited", sender=sender)

    async def _take_over(self, unbegun: list[UnansweredSend], never_left: list[UnansweredSend]) -> None:
        """Nothing of these can have left, and nothing will once they are answered: their sender is not even asked."""
        if unbegun or never_left:
            ids = await retrying(self.database, lambda tx: answer_unbegun(tx, sends=unbegun, though_begun=never_left))
            log.warning("unsent_sends_answered", client_order_ids=ids)

    def _look_up_early(self, orphans: list[UnansweredSend], now: float) -> None:
        """The sender of these is gone, so there is no answer to wait for. Finding the order is proof; not finding it is
        none before the lease is over."""
        self.early = {
            one.client_order_id: self.early.get(one.client_order_id, (now, _EARLY_FIRST_S)) for one in orphans
        }
        due = {client_order_id: pause for client_order_id, (at, pause) in self.early.items() if at <= now}
        self.recovery.ask(dict.fromkeys(due))
        self.early |= {one: (now + pause, min(_EARLY_CAP_S, pause * 2)) for one, pause in due.items()}


def to_take_over(unanswered: Iterable[UnansweredSend], orphans: Collection[UnansweredSend]) -> list[UnansweredSend]:
    """The sends to answer for their sender, because it is gone or its lease is over: those that have not begun."""
    return [one for one in unanswered if not one.begun and (one.lease_over or one in orphans)]


async def beat_until_stopped(
    keeper: InstanceHeartbeat, stop: asyncio.Event, *, interval_s: float, patience: Patience
) -> None:
    """Beat every `interval_s`; a database that is away is waited for."""
    while not stop.is_set():
        try:
            await keeper.keep_once()
        except Exception as error:
            await wait_out(error, patience, stop, poll="keep")
            continue
        patience.rewarded()
        await wait_for(stop, interval_s)


_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_STARTED: Final = 22
"""Which field of /proc/<pid>/stat, counted from 1, is the start time (proc_pid_stat(5))."""


@dataclass(frozen=True, slots=True)
class Presence:
    """`instance_id` names one life of one process: a restarted process is another sender."""

    instance_id: str
    host: str
    pid: int
    runs_in: str | None = None
    """The boot and the namespaces in which its `pid` and its start time mean something; None where the kernel does not
    tell."""
    process_started: int | None = None

    def as_sender(self, *, says_it_closes: bool) -> Sender:
        """The row of `senders`."""
        return Sender(
            instance_id=self.instance_id,
            host=self.host,
            pid=self.pid,
            runs_in=self.runs_in,
            process_started=self.process_started,
            says_it_closes=says_it_closes,
        )

    def has_exited(self, send: UnansweredSend) -> bool:
        """Whether its sender is seen to be gone, and nobody has recorded that yet: it ran in this boot and these
        namespaces, and there is no process with its id, or one that began at another time. This is evidence (rule R6);
        of a sender that runs elsewhere nothing is inferred."""
        return send.exited_at is None and self.is_dead(send)

    def is_dead(self, send: UnansweredSend) -> bool:
        """The same whatever is recorded: what the kernel of this host shows now."""
        if send.sender == self.instance_id:
            return False
        if send.runs_in is None or send.runs_in != self.runs_in or send.pid is None or send.process_started is None:
            return False
        if not _runs(send.pid):
            return True
        began = _began(send.pid)
        return began is not None and began != send.process_started

    def is_gone(self, send: UnansweredSend) -> bool:
        """Whether its sender has said that it exited, or was a process of this host that is no more.

        Good enough to look an order up early, because finding it is proof whoever lives; never evidence of absence.
        """
        if send.sender == self.instance_id:
            return False
        if send.exited_at is not None:
            return True
        return send.host == self.host and send.pid is not None and (send.pid == self.pid or not _runs(send.pid))


def this_process() -> Presence:
    """With an id that no other process ever has."""
    host, pid = socket.gethostname(), os.getpid()
    return Presence(f"{host}-{pid}-{secrets.token_hex(4)}", host, pid, _runs_in(pid), _began(pid))


def _runs_in(pid: int) -> str | None:
    """None where /proc is that of other processes, or lacks what is needed."""
    try:
        if os.readlink("/proc/self") != str(pid):
            return None
        spaces = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "time")]
        return " ".join([_BOOT_ID.read_text().strip(), *spaces])
    except OSError:
        return None


def _began(pid: int) -> int | None:
    """When the process began, in the kernel's ticks since boot; None where that cannot be read."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[_STARTED - 3])  # What is in brackets may have any name.
    except (OSError, ValueError, IndexError):
        return None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
