"""Where binaries, data and state of the stack live, and which user PostgreSQL runs as.

A clone keeps its instances in `.devstack/<instance>`. PostgreSQL refuses to run as root, so root needs a second,
unprivileged user for it; where that user cannot enter the clone (below /root, say), the instance lies in
/var/lib/closeflow and `.devstack/<instance>` is a symbolic link to it, which also is how the place is remembered.
"""

import fcntl
import hashlib
import os
import pwd
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from devstack.errors import EnvironmentLacking, StackError

REPOSITORY: Final = Path(__file__).resolve().parents[3]
OUTSIDE: Final = Path("/var/lib/closeflow")
SERVER_USERS: Final = ("postgres", "nobody")
INSTANCE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


def server_user() -> pwd.struct_passwd | None:
    """The user PostgreSQL runs as, or None for the current one (anybody but root)."""
    if os.geteuid() != 0:
        return None
    for name in SERVER_USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise EnvironmentLacking(
        "PostgreSQL does not run as root, and neither user 'postgres' nor 'nobody' exists: useradd --system postgres"
    )


def enterable(path: Path, user: pwd.struct_passwd) -> bool:
    """Whether `user` may pass through every directory on the way to `path` (those that exist already)."""
    for directory in (path, *path.parents):
        if not directory.exists():
            continue
        found = directory.stat()
        bit = 0o100 if found.st_uid == user.pw_uid else 0o010 if found.st_gid == user.pw_gid else 0o001
        if not found.st_mode & bit:
            return False
    return True


def cache_directory() -> Path:
    """Where downloads are kept, shared by all clones and instances of a user; made if missing."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(home).absolute() / "closeflow"
    user = server_user()
    if user is not None and not enterable(cache, user):
        cache = OUTSIDE / "cache"
    make_directory(cache)
    return cache


def link_of(name: str) -> Path:
    """The instance's name inside the clone: its directory, or a link to it."""
    if not INSTANCE_NAME.fullmatch(name):
        raise StackError(
            f"'{name}' is no instance name: use lower-case letters, digits and '-', at most 31, like dev or test"
        )
    return REPOSITORY / ".devstack" / name


def instance_directory(name: str) -> Path:
    """Where the instance lives, or would live. Nothing is made."""
    link = link_of(name)
    if link.is_symlink():
        return link.readlink()
    user = server_user()
    if link.is_dir() or user is None or enterable(link, user):
        return link
    clone = hashlib.sha256(os.fsencode(REPOSITORY)).hexdigest()[:12]
    return OUTSIDE / "instances" / clone / name


def make_instance_directory(name: str) -> Path:
    """The directory of the instance's data, and a link to it in the clone where it lies elsewhere."""
    directory = instance_directory(name)
    link = link_of(name)
    make_directory(link.parent)
    make_directory(directory)
    if directory != link and not link.is_symlink():
        link.symlink_to(directory)
    return directory


def make_directory(path: Path) -> None:
    """Make `path` and what is missing above it, passable for PostgreSQL's user whatever the umask."""
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Readers see the old text or the new one, never half of it. One writer at a time."""
    making = path.with_name(f"{path.name}.making")
    descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    making.replace(path)


def try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock until it is closed or the process ends, or None if another process holds it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock. A shared lock asks, so that askers do not see each other."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def locked(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock file `path`; `on_wait` is called once if another process has it."""
    descriptor = try_lock(path)
    if descriptor is None:
        on_wait()
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)
