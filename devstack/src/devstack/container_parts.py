"""What PostgreSQL, Kafka and Connect are as containers: image, settings, ports, and when each is ready.

The settings are those of the embedded servers (parts.py, connect/worker.properties), in the form that each image takes.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from devstack import properties
from devstack.instances import ADMIN, DATABASE, Instance
from devstack.parts import (
    QUICK_JVM,
    WORKER_PROPERTIES,
    broker_properties,
    connect_is_healthy,
    own_connect_settings,
    postgres_settings,
)

IMAGES: Final = {
    "postgres": "postgres:18",
    "kafka": "apache/kafka:4.3.1",
    "connect": "quay.io/debezium/connect:3.6.1.Final",
}
POSTGRES_PORT: Final = 5432
KAFKA_PORT: Final = 9092
KAFKA_INTERNAL_PORT: Final = 19092
CONTROLLER_PORT: Final = 9093
CONNECT_PORT: Final = 8083
KAFKA_DATA: Final = "/var/lib/kafka/data"
INITDB: Final = "--encoding=UTF8 --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8 --no-sync"
PLAIN_NAMES: Final = ("bootstrap.servers", "group.id", "key.converter", "value.converter")
PLAIN_NAMES_END: Final = (".storage.topic", ".flush.interval.ms", ".flush.timeout.ms")
"""Settings for which Connect's image has variables of its own, which it puts over CONNECT_*."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a part's container is made. `volumes` are host directories by where the container sees them.

    `port` is what it listens on inside, `host_port` where 127.0.0.1 reaches that. `is_ready` gets Docker's container.
    """

    image: str
    port: int
    host_port: int
    environment: Mapping[str, str]
    is_ready: Callable[[Any], bool]
    command: tuple[str, ...] = ()
    volumes: Mapping[str, Path] | None = None
    user: str | None = None


def recipes(instance: Instance, directory: Path) -> dict[str, Recipe]:
    """Of the three parts, by name, in the order in which they start."""
    return {
        "postgres": _postgres(instance),
        "kafka": _kafka(instance, directory),
        "connect": _connect(instance, directory),
    }


def _postgres(instance: Instance) -> Recipe:
    own = ("port", "listen_addresses", "unix_socket_directories", "log_line_prefix")  # the image's are right
    settings = {name: value for name, value in postgres_settings(instance).items() if name not in own}
    return Recipe(
        image=IMAGES["postgres"],
        port=POSTGRES_PORT,
        host_port=instance.postgres_port,
        environment={
            "POSTGRES_USER": ADMIN,
            "POSTGRES_PASSWORD": instance.admin_password,
            "POSTGRES_DB": DATABASE,
            "POSTGRES_INITDB_ARGS": INITDB,
        },
        command=("postgres", *(word for item in settings.items() for word in ("-c", "=".join(item)))),
        # By TCP: the server that the image starts for its own set-up listens on a socket only.
        is_ready=lambda container: container.exec_run(["pg_isready", "-q", "-h", "127.0.0.1"]).exit_code == 0,
    )


def _kafka(instance: Instance, directory: Path) -> Recipe:
    """One listener for the host's clients and one for Connect, because each client is sent to what is advertised."""
    voter = f"127.0.0.1:{CONTROLLER_PORT}"
    settings = broker_properties(Path(KAFKA_DATA)) | {
        "controller.quorum.voters": f"1@{voter}",
        "listeners": f"PLAINTEXT://:{KAFKA_PORT},INTERNAL://:{KAFKA_INTERNAL_PORT},CONTROLLER://{voter}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{instance.kafka_port},INTERNAL://kafka:{KAFKA_INTERNAL_PORT}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "INTERNAL",
    }
    return Recipe(
        image=IMAGES["kafka"],
        port=KAFKA_PORT,
        host_port=instance.kafka_port,
        environment={f"KAFKA_{_variable(name)}": value for name, value in settings.items()}
        | {
            "CLUSTER_ID": instance.cluster_id,
            "KAFKA_HEAP_OPTS": "-Xms128m -Xmx768m",
            "KAFKA_OPTS": " ".join(QUICK_JVM),
        },
        # Tests that damage what Kafka has on its disk do so from the host, as whoever runs them.
        volumes={KAFKA_DATA: directory / "kafka"},
        user=_same_user(),
        is_ready=lambda container: _said(container, "Kafka Server started"),
    )


def _connect(instance: Instance, directory: Path) -> Recipe:
    settings = {
        **properties.read(WORKER_PROPERTIES),
        **own_connect_settings(instance.name),
        "bootstrap.servers": f"kafka:{KAFKA_INTERNAL_PORT}",
    }
    return Recipe(
        image=IMAGES["connect"],
        port=CONNECT_PORT,
        host_port=instance.connect_port,
        environment=connect_environment(settings)
        | {"HEAP_OPTS": "-Xms128m -Xmx512m", "KAFKA_OPTS": " ".join(QUICK_JVM)},
        # Credentials are files of mode 0600 on the host; the connector names them by the same path.
        volumes={str(directory): directory},
        user=_same_user(),
        is_ready=lambda _container: connect_is_healthy(instance.connect_port),
    )


def connect_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """A worker's properties in the variables that Debezium's Connect image reads."""
    found = {}
    for name, value in settings.items():
        plain = name in PLAIN_NAMES or name.endswith(PLAIN_NAMES_END)
        found[name.replace(".", "_").upper() if plain else f"CONNECT_{name.replace('.', '_').upper()}"] = value
    return found


def _variable(name: str) -> str:
    """A property of Kafka's in the form of its image: dots become _, and an _ two."""
    return name.replace("_", "__").replace("-", "___").replace(".", "_").upper()


def _same_user() -> str:
    """Whoever runs the tests, in group 0, to which the images give their files."""
    return f"{os.getuid()}:0"


def _said(container: Any, words: str) -> bool:
    """Whether it has logged them since its last start."""
    container.reload()
    since = datetime.fromisoformat(container.attrs["State"]["StartedAt"]).timestamp()
    return words.encode() in container.logs(since=since)
