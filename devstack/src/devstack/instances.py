"""One instance's remembered settings: its ports and its password; and `Stack`, how the outside sees a running one."""

import json
import os
import random
import secrets
import shutil
import socket
import time
import uuid
from base64 import urlsafe_b64encode
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final
from urllib.parse import quote

from devstack.errors import EnvironmentLacking, StackError
from devstack.places import (
    REPOSITORY,
    cache_directory,
    instance_directory,
    link_of,
    locked,
    make_instance_directory,
    write_atomically,
)
from devstack.secured import SECRETS, dsn_options, make_secrets, password_of

ADMIN: Final = "closeflow_admin"
DATABASE: Final = "closeflow"
# Below the ranges from which Linux (32768 on) and macOS (49152 on) take ports for outgoing connections.
PORTS: Final = range(20000, 32000)
PORT_FREE_WITHIN_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Instance:
    """What is remembered about an instance between starts, in its `instance.json`."""

    name: str
    repository: str
    postgres_port: int
    kafka_port: int
    controller_port: int
    connect_port: int
    admin_password: str
    cluster_id: str
    secure: bool = False
    """Whether every link is encrypted and asks who connects; decided when the instance is made."""
    administrators_port: int = 0
    """Kafka's listener for who shows a certificate; 0 where the instance is not secure."""

    @property
    def ports(self) -> dict[str, int]:
        """By what they are called, every TCP port that the instance takes."""
        ports = {
            "postgres": self.postgres_port,
            "kafka": self.kafka_port,
            "kafka controller": self.controller_port,
            "connect": self.connect_port,
        }
        return ports | ({"kafka administrators": self.administrators_port} if self.secure else {})


@dataclass(frozen=True, slots=True)
class Stack:
    """Where a running instance can be reached. Everything listens on 127.0.0.1 only.

    Of a secure instance `secrets` is the directory of `closectl secrets make`: then every link is TLS, DSNs say so, the
    services log in to Kafka at `kafka_bootstrap_servers` with passwords, and a certificate is asked for at
    `kafka_administrators` and `connect_url`. Of any other one `secrets` is None, and nothing is encrypted.
    """

    instance: str
    postgres_host: str
    postgres_port: int
    kafka_bootstrap_servers: str
    connect_url: str
    admin_dsn: str
    data_dir: Path
    """Connect's worker sees it under the same path."""
    logs_dir: Path
    connect_postgres_host: str
    connect_postgres_port: int
    """Where Connect's worker reaches PostgreSQL."""
    secrets: Path | None = None
    kafka_administrators: str = ""

    def postgres_dsn(self, user: str, password: str, database: str = DATABASE) -> str:
        """A libpq URL for another role of this server, without the name of any driver."""
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"postgresql://{login}@{self.postgres_host}:{self.postgres_port}/{database}{dsn_options(self.secrets)}"


def stack_of(instance: Instance, directory: Path) -> Stack:
    """What callers need to connect; every server is on 127.0.0.1."""
    secrets_directory = directory / SECRETS if instance.secure else None
    place = f"127.0.0.1:{instance.postgres_port}/{DATABASE}{dsn_options(secrets_directory)}"
    return Stack(
        instance=instance.name,
        postgres_host="127.0.0.1",
        postgres_port=instance.postgres_port,
        kafka_bootstrap_servers=f"127.0.0.1:{instance.kafka_port}",
        connect_url=f"http{'s' if instance.secure else ''}://127.0.0.1:{instance.connect_port}",
        admin_dsn=f"postgresql://{ADMIN}:{instance.admin_password}@{place}",
        data_dir=directory,
        logs_dir=directory / "logs",
        connect_postgres_host="127.0.0.1",
        connect_postgres_port=instance.postgres_port,
        secrets=secrets_directory,
        kafka_administrators=f"127.0.0.1:{instance.administrators_port}" if instance.secure else "",
    )


def read_instance(name: str) -> Instance | None:
    """The remembered settings, or None if this clone has no such instance."""
    return read_settings(instance_directory(name))


def read_settings(directory: Path) -> Instance | None:
    """The settings of an instance, or None where there is none. Raises StackError where it belongs to another user."""
    try:
        found = json.loads((directory / "instance.json").read_text())
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise StackError(f"{directory} belongs to another user: use the stack as that user") from error
    return Instance(**{field.name: found[field.name] for field in fields(Instance) if field.name in found})


def ensure_instance(name: str, secure: bool | None = None) -> tuple[Instance, Path]:
    """The remembered instance, made if there is none. The caller holds the instance's lock.

    `secure` is what is asked for, None what it is, or plain for a new one. Raises StackError where it is another.
    """
    drop_link_of_a_copied_clone(name)
    directory = make_instance_directory(name)
    known = read_settings(directory)
    if known is not None and secure is not None and known.secure is not secure:
        is_now = "secure" if known.secure else "not secure"
        raise StackError(f"instance {name} was made {is_now}, and stays so; to change it: make reset INSTANCE={name}")
    if known is not None and known.repository == str(REPOSITORY):
        if known.secure:
            make_secrets(directory)
        return known, directory
    secure = known.secure if known else bool(secure)
    wished = tuple(known.ports.values()) if known else ()
    postgres, kafka, controller, connect, administrators = claim_ports(directory, wished)
    password = known.admin_password if known else secrets.token_hex(16)
    if secure:
        password = password_of(make_secrets(directory), f"postgres/{ADMIN}")
    instance = Instance(
        name=name,
        repository=str(REPOSITORY),
        postgres_port=postgres,
        kafka_port=kafka,
        controller_port=controller,
        connect_port=connect,
        admin_password=password,
        cluster_id=known.cluster_id if known else urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="),
        secure=secure,
        administrators_port=administrators if secure else 0,
    )
    write_atomically(directory / "instance.json", json.dumps(asdict(instance), indent=1) + "\n")
    return instance, directory


def drop_link_of_a_copied_clone(name: str) -> None:
    """A clone copied with its .devstack would share the first one's data: it gets an instance of its own."""
    link = link_of(name)
    if not link.is_symlink():
        return
    known = read_settings(link.readlink())
    if known is None or (known.repository != str(REPOSITORY) and Path(known.repository).is_dir()):
        link.unlink()


def forget_instance(name: str) -> None:
    """Wipe the instance's data, settings and ports."""
    directory, link = instance_directory(name), link_of(name)
    release_ports(directory)
    shutil.rmtree(directory, ignore_errors=True)
    if link.is_symlink():
        link.unlink()
        with suppress(OSError):  # The clone may have other instances there.
            directory.parent.rmdir()
    if directory.exists():
        raise StackError(
            f"{directory} could not be removed: it belongs to another user, reset the instance as that one"
        )


def claim_ports(directory: Path, wished: tuple[int, ...] = ()) -> tuple[int, int, int, int, int]:
    """Five free ports that no other instance of this user remembers, even one that is down now."""
    ledger = cache_directory() / "ports.json"
    with locked(ledger.with_suffix(".lock")):
        claims = {port: owner for port, owner in read_claims(ledger).items() if owner != str(directory)}
        candidates = [*wished, *random.sample(PORTS, k=len(PORTS))]
        chosen: list[int] = []
        for port in candidates:
            if port not in claims and port not in chosen and is_free(port):
                chosen.append(port)
            if len(chosen) == 5:
                break
        else:
            raise EnvironmentLacking(
                f"no five free ports in {PORTS.start}-{PORTS.stop - 1}: end programs that hold them"
            )
        write_atomically(ledger, json.dumps(claims | dict.fromkeys(chosen, str(directory)), indent=1))
    return chosen[0], chosen[1], chosen[2], chosen[3], chosen[4]


def release_ports(directory: Path) -> None:
    """Give the instance's ports back to the pool that all instances of this user share."""
    ledger = cache_directory() / "ports.json"
    with locked(ledger.with_suffix(".lock")):
        kept = {port: owner for port, owner in read_claims(ledger).items() if owner != str(directory)}
        write_atomically(ledger, json.dumps(kept, indent=1))


def read_claims(ledger: Path) -> dict[int, str]:
    """Port → directory of the instance that remembers it; claims of removed instances are left out."""
    if not ledger.exists():
        return {}
    claims = {int(port): str(owner) for port, owner in json.loads(ledger.read_text()).items()}
    return {port: owner for port, owner in claims.items() if os.path.isdir(owner)}


def is_free(port: int) -> bool:
    """Whether a server could listen on the port: bound as servers do it, so a recently closed one counts as free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def check_ports(instance: Instance) -> None:
    """Raise if another program has taken a port. A part that was just killed may hold its own for a moment longer."""
    deadline = time.monotonic() + PORT_FREE_WITHIN_SECONDS
    for part, port in instance.ports.items():
        while not is_free(port) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not is_free(port):
            raise EnvironmentLacking(
                f"port {port} ({part} of instance {instance.name}) is taken by another program: end that one "
                f"(`lsof -i :{port}` names it), or wipe the instance for new ports: make reset INSTANCE={instance.name}"
            )
