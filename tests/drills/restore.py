"""The database lost under a load of closes, and restored from a base backup and an archive that lacks the last seconds.

`python -m tests.drills.restore`. The slot is in no backup; the broker has orders of closes that are in no archive.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import devstack
from demo.services import free_port
from demo.system import System
from devstack.replicas import Server, restored
from tests.drills.harness import INSTANCE, Lines, main
from tests.drills.outages import Watcher
from tests.failover.load import SETTLED_WITHIN_S, Asking, Run, told
from tests.failover.pair import connect, fresh, primary_behind_an_address
from tests.system.desk import Desk

DATABASE: Final = "closeflow_restore"
CLOSES: Final = 180
EACH: Final = 20
"""So many closes are accepted before the backup, then until the last file of the archive, then until the end."""


def archive_to(server: Server, directory: Path) -> str:
    """Archive every WAL file of the server from now on; returns the command that fetches one."""
    fresh(directory).mkdir(parents=True)
    directory.chmod(0o777)
    server.configure({"archive_mode": "on", "archive_command": f"cp %p {directory}/%f"})
    server.stop()
    server.start()
    return f"cp {directory}/%f %p"


def more(watcher: Watcher, asking: Asking) -> None:
    wanted = len(asking.accepted) + EACH
    watcher.until(lambda: len(asking.accepted) >= wanted, within_s=120)


def drill(lines: Lines) -> None:
    was_up = devstack.find(INSTANCE) is not None
    stack = devstack.up(INSTANCE)
    place = stack.data_dir / "restore"
    with primary_behind_an_address(stack, place) as pair:
        command = archive_to(pair.primary, place / "archive")
        system = System(pair.stack, DATABASE, place / "services")
        system.directory.mkdir(parents=True, exist_ok=True)
        for log in system.directory.glob("*.log"):
            log.unlink()
        system.wipe()
        system.prepare()
        new = Server(stack, fresh(place / "restored"), free_port(), connect)
        try:
            system.start_all()
            with Desk(system) as desk:
                portfolio = desk.hold_all([(9, "stock")] * CLOSES)
            watcher, asking = Watcher(system), Asking(system, portfolio)
            asking.start()
            more(watcher, asking)
            pair.primary.back_up(place / "backup")
            more(watcher, asking)
            pair.primary.execute("SELECT pg_switch_wal()")
            more(watcher, asking)
            before, killed = len(asking.accepted), time.monotonic()
            pair.primary.kill()
            pair.address.leads_to(None)
            restored(place / "backup", new, restore_command=command)
            pair.address.leads_to(new.port)
            print(f"  restored {time.monotonic() - killed:.1f} s after the kill", flush=True)
            watcher.until(lambda: not asking.is_alive(), within_s=SETTLED_WITHIN_S)
            asking.ended.set()
            with Desk(system) as desk:
                told(Run("restored", False, asking, before, portfolio, killed), lines, desk, watcher)
        finally:
            system.close()
            if new.run.process is not None:
                system.wipe()
            new.kill()
            if not was_up:
                devstack.down(INSTANCE)


if __name__ == "__main__":
    main(drill)
