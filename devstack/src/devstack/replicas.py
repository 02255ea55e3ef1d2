"""PostgreSQL servers of their own beside an instance's: a primary, standbys of it, and what an archive restores.

    primary = Server(stack, directory / "primary", port, connect)
    primary.start()
    standby = standby_of(primary, directory / "standby", other_port, database=DATABASE, synced_slots=True)
    primary.kill()
    standby.promote()

They run the binaries and the settings of the instance's own PostgreSQL, and end with the thread that started them. A
base backup is taken as pg_basebackup takes one, by the steps that PostgreSQL documents for it (the embedded binaries
have no pg_basebackup).
"""

import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from devstack.errors import StackError
from devstack.fetch import fetched
from devstack.instances import ADMIN, DATABASE, Stack, read_instance
from devstack.parts import Site, postgres_plan
from devstack.places import make_directory, server_user
from devstack.runs import Run
from devstack.state import PartState

WITHIN_S: Final = 60.0
# What pg_basebackup leaves out, too: of the running server, or made anew at the start.
LEFT_OUT: Final = ("postmaster.pid", "postmaster.opts", "pg_internal.init", "pgsql_tmp*", "*.making")
EMPTIED: Final = ("pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp")
Connect = Callable[[str], Any]
"""Opens a connection of the DB-API in autocommit mode (psycopg's); devstack itself has no driver."""


class Server:
    """One server on 127.0.0.1, at `port`, with its data below `directory`. `run` is its process."""

    def __init__(self, stack: Stack, directory: Path, port: int, connect: Connect) -> None:
        instance, binaries = read_instance(stack.instance), fetched()
        if instance is None or binaries is None:
            raise StackError(f"instance {stack.instance} is not there: start it first (devstack.up)")
        make_directory(directory / "logs")
        self.stack = stack
        self.directory = directory
        self.port = port
        self.connect = connect
        self.password = instance.admin_password
        self.site = Site(replace(instance, postgres_port=port), directory, binaries, "", server_user())
        self.run = Run("postgres", self.site)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "postgres"

    def dsn(self, database: str = DATABASE) -> str:
        """The owner's login."""
        return f"postgresql://{ADMIN}:{self.password}@127.0.0.1:{self.port}/{database}"

    def configure(self, settings: Mapping[str, str]) -> None:
        """Add settings, which count from the next start or reload on; what `postgres_settings` has is not changed."""
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def execute(self, *statements: str, database: str = DATABASE) -> list[tuple[Any, ...]]:
        """Run statements as the owner; the rows of the last, where it has any."""
        with self.connect(self.dsn(database)) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def start(self) -> None:
        """Start it and wait until it takes connections, a standby until it can be read from."""
        self.run = Run("postgres", self.site)
        self.run.start(postgres_plan(self.site))
        deadline = time.monotonic() + WITHIN_S
        while self.run.state is not PartState.READY:
            self.run.observe()
            if self.run.state is PartState.FAILED or time.monotonic() > deadline:
                raise StackError(f"PostgreSQL did not start: {self.run.failure}; see {self.site.log('postgres')}")
            time.sleep(0.02)

    def stop(self) -> None:
        """In an orderly way: what is committed has reached the standbys that stream."""
        if self.run.process is not None and self.run.process.poll() is None:
            self.run.process.send_signal(signal.SIGINT)
            self.run.process.wait(WITHIN_S)

    def kill(self) -> None:
        """kill -9 of it and of its children at once, as a machine dies: nothing more is sent, to nobody."""
        process = self.run.process
        if process is None or process.poll() is not None:
            return
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        for child in children:
            try:
                os.kill(int(child), signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.wait()

    def promote(self) -> None:
        """Make a standby a primary; returns when it takes writes."""
        ((promoted,),) = self.execute(f"SELECT pg_promote(true, {WITHIN_S:.0f})")
        if not promoted:
            raise StackError(f"the standby at port {self.port} was not promoted; see {self.site.log('postgres')}")

    def back_up(self, target: Path) -> None:
        """A base backup into `target`, which is usable with the WAL from its beginning to its end."""
        if target.exists():
            shutil.rmtree(target)
        with self.connect(self.dsn()) as connection:
            connection.execute("SELECT pg_backup_start('base backup', true)")
            copy_files(self.data, target)
            label = connection.execute("SELECT labelfile FROM pg_backup_stop(false)").fetchone()[0]
        (target / "backup_label").write_text(label)
        own(target)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def standby_of(
    primary: Server, directory: Path, port: int, *, database: str, synced_slots: bool, name: str = "standby"
) -> Server:
    """A running standby of `primary`: a base backup of it, streaming through the physical slot `name`.

    `database` is the one whose failover slots are synchronised, with `synced_slots`.
    """
    made = Server(primary.stack, directory, port, primary.connect)
    primary.execute(f"SELECT pg_create_physical_replication_slot('{name}', true)")
    primary.back_up(made.data)
    login = f"host=127.0.0.1 port={primary.port} user={ADMIN} password={primary.password} dbname={database}"
    made.configure(
        {
            "primary_conninfo": f"{login} application_name={name}",
            "primary_slot_name": name,
            "hot_standby_feedback": "on",
            "sync_replication_slots": "on" if synced_slots else "off",
            # It is the old primary's to wait for its standbys; this one has none when it is promoted.
            "synchronized_standby_slots": "",
            "synchronous_standby_names": "",
        }
    )
    signal_file(made, "standby.signal")
    made.start()
    return made


def restored(backup: Path, server: Server, *, restore_command: str, target: Mapping[str, str] | None = None) -> Server:
    """Start `server` from a base backup and an archive. It ends recovery on a timeline of its own.

    `target` are the recovery target's settings; without one it recovers to the end of the archive.
    """
    if server.data.exists():
        shutil.rmtree(server.data)
    shutil.copytree(backup, server.data)
    own(server.data)
    server.configure({"restore_command": restore_command, "recovery_target_action": "promote", **(target or {})})
    signal_file(server, "recovery.signal")
    server.start()
    deadline = time.monotonic() + WITHIN_S
    while server.execute("SELECT pg_is_in_recovery()") != [(False,)]:
        if time.monotonic() > deadline:
            raise StackError(f"recovery did not end; see {server.site.log('postgres')}")
        time.sleep(0.05)
    return server


def signal_file(server: Server, name: str) -> None:
    """What tells a start that it recovers."""
    (server.data / name).touch()
    own(server.data / name)


def copy_files(source: Path, target: Path) -> None:
    """The files of a running server. One that vanishes meanwhile is replayed from the WAL."""
    target.mkdir(mode=0o700)
    left_out = shutil.ignore_patterns(*LEFT_OUT)
    for path in source.rglob("*"):
        inside = path.relative_to(source)
        names = inside.parts
        if (names[0] in EMPTIED and len(names) > 1) or any(left_out("", [one]) for one in names):
            continue
        try:
            if path.is_dir():
                (target / inside).mkdir(mode=0o700, exist_ok=True)
            else:
                shutil.copyfile(path, target / inside)
        except FileNotFoundError:
            continue
    (target / "pg_wal" / "archive_status").mkdir(mode=0o700, exist_ok=True)


def own(path: Path) -> None:
    """Give a data directory to PostgreSQL's user, with the modes that it demands."""
    user = server_user()
    for one in (path, *path.rglob("*")):
        one.chmod(0o700 if one.is_dir() else 0o600)
        if user is not None:
            os.chown(one, user.pw_uid, user.pw_gid)
