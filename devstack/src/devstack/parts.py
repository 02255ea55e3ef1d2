"""How each part is prepared, started, found ready and stopped: PostgreSQL, Kafka (one KRaft node) and Connect."""

import http.client
import json
import pwd
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devstack import properties, secured
from devstack.fetch import Binaries
from devstack.instances import ADMIN, DATABASE, Instance
from devstack.places import REPOSITORY

LOGGING: Final = Path(__file__).with_name("log4j2.properties")
WORKER_PROPERTIES: Final = REPOSITORY / "connect" / "worker.properties"
# Quick to start on few cores and small in memory; out of memory ends the process instead of leaving it half alive.
JVM: Final = ("-Xms128m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", f"-Dlog4j2.configurationFile={LOGGING}")
# Without the optimising compiler Kafka starts with half the CPU time (measured: 2.1 s instead of 3.7 s), and runs of
# minutes never earn the difference back. Instances that live longer, or that a benchmark uses, keep it.
QUICK_JVM: Final = ("-XX:TieredStopAtLevel=1",)
SHORT_LIVED: Final = frozenset({"demo", "devstack-test", "system", "system-2", "test"})


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run; `stdin` is what it reads."""

    argv: tuple[str, ...]
    stdin: str = ""
    environment: Mapping[str, str] | None = None
    user: pwd.struct_passwd | None = None


Step = Command | Callable[[], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """One start of a part: `steps` run one after the other, then `serve`, until `is_ready(pid)`.

    `stop_signals` are sent in turn, each a few seconds after the other. `signal_on_death` is what the part gets when
    its supervisor is killed. A serve that ends while its log holds `retry_on` is started again for a few seconds.
    """

    steps: tuple[Step, ...]
    serve: Command
    is_ready: Callable[[int], bool]
    stop_signals: tuple[signal.Signals, ...]
    signal_on_death: signal.Signals
    retry_on: str | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """All that a plan depends on."""

    instance: Instance
    directory: Path
    binaries: Binaries
    java: str
    server_user: pwd.struct_passwd | None

    @property
    def secrets(self) -> Path | None:
        """Of a secure instance, its secrets."""
        return self.directory / secured.SECRETS if self.instance.secure else None

    def java_command(self, heap: str) -> tuple[str, ...]:
        """Java up to the main class."""
        quick = QUICK_JVM if self.instance.name in SHORT_LIVED else ()
        return (self.java, f"-Xmx{heap}", *JVM, *quick, "-cp", self.binaries.jars)

    def log(self, part: str) -> Path:
        """Where the part's output goes; the log of the run before has `.previous` in its name."""
        return self.directory / "logs" / f"{part}.log"

    def log_holds(self, part: str, text: str) -> bool:
        """Whether the present run of the part has logged `text`."""
        log = self.log(part)
        return log.exists() and text in log.read_text(errors="replace")


def postgres_plan(site: Site) -> Plan:
    """Make the cluster if there is none, serve it; ready when the postmaster says so in its pid file."""
    data = site.directory / "postgres"
    secrets, given = site.secrets, postgres_settings(site.instance)
    if secrets is not None:
        given |= secured.postgres_settings(data)
    settings = [word for item in given.items() for word in ("-c", "=".join(item))]
    steps = (lambda: remove_stale_pid_file(data),) if data.exists() else postgres_steps(site, data)
    return Plan(
        steps=steps if secrets is None else (*steps, lambda: secured.hand_to_postgres(secrets, data)),
        serve=Command((site.binaries.postgres("postgres"), "-D", str(data), *settings), user=site.server_user),
        is_ready=lambda pid: postmaster_says_ready(data, pid),
        stop_signals=(signal.SIGINT, signal.SIGQUIT, signal.SIGKILL),  # fast, immediate, then by force
        signal_on_death=signal.SIGQUIT,  # immediate: its children go with it, and the next start recovers
        retry_on="pre-existing shared memory block",  # the children of a killed one are not all gone yet
    )


def postgres_steps(site: Site, data: Path) -> tuple[Step, ...]:
    """Make a cluster next to its final place and rename it when it is whole."""
    making = data.with_suffix(".making")

    def make_empty() -> None:
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        if site.server_user is not None:
            shutil.chown(making, site.server_user.pw_uid, site.server_user.pw_gid)

    def finish() -> None:
        kind = "host" if site.secrets is None else "hostssl"
        rules = [f"{kind} {what} all 127.0.0.1/32 scram-sha-256" for what in ("all", "replication")]
        (making / "pg_hba.conf").write_text("\n".join(rules) + "\n")
        making.rename(data)

    initdb = [site.binaries.postgres("initdb"), "-D", str(making), "-U", ADMIN, "--encoding=UTF8", "--locale=C"]
    initdb += [
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--auth-local=peer",
        "--auth-host=scram-sha-256",
    ]
    initdb += ["--no-sync"]
    # The server's single-user mode needs no client and no password file.
    single = (site.binaries.postgres("postgres"), "--single", "-c", "exit_on_error=on", "-D", str(making), "postgres")
    sql = f"ALTER ROLE {ADMIN} PASSWORD '{site.instance.admin_password}'\nCREATE DATABASE {DATABASE}\n"
    return (
        make_empty,
        Command(tuple(initdb), user=site.server_user),
        Command(single, stdin=sql, user=site.server_user),
        finish,
    )


def postgres_settings(instance: Instance) -> dict[str, str]:
    """What differs from PostgreSQL's defaults: logical decoding, UTC, the loopback address; no fsync for `test`,
    statements counted for `bench`."""
    settings = {
        "port": str(instance.postgres_port),
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",  # nothing uses one, and a deep clone would exceed the length of its path
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] %q%u@%d ",
        "wal_level": "logical",
        "max_replication_slots": "20",
        "max_wal_senders": "20",
        "max_connections": "200",
        "shared_buffers": "256MB",
        "jit": "off",
    }
    if instance.name == "test":
        # Lost by a power cut, but not by a kill -9 of any process.
        settings |= {"fsync": "off", "full_page_writes": "off"}
    if instance.name == "bench":
        # Counts statements and knows when each transaction was committed, which the benches print.
        settings |= {"shared_preload_libraries": "pg_stat_statements", "track_commit_timestamp": "on"}
    return settings


def remove_stale_pid_file(data: Path) -> None:
    """Remove a pid file whose pid is by now another program's, which would make PostgreSQL refuse to start.

    One of a pid that does not exist is left for PostgreSQL, which then also makes sure that no child of it lives.
    """
    path = data / "postmaster.pid"
    lines = path.read_text().splitlines() if path.exists() else []
    if not lines or not lines[0].isdigit():
        path.unlink(missing_ok=True)
        return
    command = Path(f"/proc/{lines[0]}/cmdline")
    if command.exists() and str(data).encode() not in command.read_bytes():
        path.unlink()


def postmaster_says_ready(data: Path, pid: int) -> bool:
    """Line 8 of postmaster.pid, by which pg_ctl --wait goes too; line 1 says whose it is."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def kafka_plan(site: Site) -> Plan:
    """Format the log directory if there is none, serve one KRaft node that is broker and controller."""
    data = site.directory / "kafka"
    config = site.directory / "kafka.properties"
    properties.write(config, kafka_properties(site, data))
    java = site.java_command("768m")
    return Plan(
        steps=() if data.exists() else kafka_steps(site, data, java),
        serve=Command((*java, "kafka.Kafka", str(config))),
        is_ready=lambda _pid: site.log_holds("kafka", "Kafka Server started"),  # said when it serves clients
        stop_signals=(signal.SIGTERM, signal.SIGKILL),
        signal_on_death=signal.SIGKILL,
    )


def kafka_steps(site: Site, data: Path, java: tuple[str, ...]) -> tuple[Step, ...]:
    """Format the log directory next to its final place and rename it when it is whole."""
    making = data.with_suffix(".making")
    config = site.directory / "kafka.making.properties"

    def make_empty() -> None:
        shutil.rmtree(making, ignore_errors=True)
        properties.write(config, kafka_properties(site, making))

    def finish() -> None:
        config.unlink()
        making.rename(data)

    # With "=", because one id in 64 begins with a dash and would be read as an option.
    identity = f"--cluster-id={site.instance.cluster_id}"
    arguments = ("kafka.tools.StorageTool", "format", identity, "--config", str(config))
    return (make_empty, Command((*java, *arguments)), finish)


def kafka_properties(site: Site, data: Path) -> dict[str, str]:
    """The voters are given here and not kept in the data, so that a copied clone can change its ports."""
    instance = site.instance
    broker, controller = f"127.0.0.1:{instance.kafka_port}", f"127.0.0.1:{instance.controller_port}"
    administrators = f"127.0.0.1:{instance.administrators_port}"
    links = {
        "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{broker}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    }
    if site.secrets is not None:
        links = secured.kafka_settings(site.secrets, broker, administrators, controller)
    return links | {"controller.quorum.voters": f"1@{controller}"} | broker_properties(data)


def broker_properties(data: Path) -> dict[str, str]:
    """One node that is broker and controller, whatever runs it and however it is reached."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "4",
        "log.cleaner.dedupe.buffer.size": str(16 * 1024**2),
        # After a kill -9 the new process is let in when the session of the old one is over: by default 9 s.
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "1000",
        "group.min.session.timeout.ms": "3000",  # lets Connect's be 5 s, below the default of 6 s
    }


def connect_plan(site: Site) -> Plan:
    """Serve a distributed worker; ready when its REST interface answers."""
    config = site.directory / "connect.properties"
    properties.write(config, properties.read(WORKER_PROPERTIES) | own_connect_properties(site))
    java = site.java_command("512m")
    steps: tuple[Step, ...] = ()
    if site.secrets is not None:
        argv, environment = secured.apply_access(site.secrets, f"127.0.0.1:{site.instance.administrators_port}")
        steps = (Command(argv, environment=environment),)
    return Plan(
        steps=steps,
        serve=Command((*java, "org.apache.kafka.connect.cli.ConnectDistributed", str(config))),
        is_ready=lambda _pid: connect_is_healthy(site.instance.connect_port, site.secrets),
        stop_signals=(signal.SIGTERM, signal.SIGKILL),
        signal_on_death=signal.SIGKILL,
    )


def own_connect_properties(site: Site) -> dict[str, str]:
    """What only this instance can know; the rest is in connect/worker.properties, whatever runs the worker."""
    address = f"127.0.0.1:{site.instance.connect_port}"
    links = {"listeners": f"http://{address}"}
    if site.secrets is not None:
        links = secured.connect_settings(site.secrets, address)
    return {
        **own_connect_settings(site.instance.name),
        **links,
        "bootstrap.servers": f"127.0.0.1:{site.instance.kafka_port}",
        "rest.advertised.host.name": "127.0.0.1",
        "plugin.path": str(site.binaries.plugins),
    }


def own_connect_settings(name: str) -> dict[str, str]:
    """The worker's settings that follow from the instance's name, and those of a stack that faults are made in."""
    return {
        "group.id": f"closeflow-connect-{name}",
        # After a kill -9 the group waits for the old worker as long as this; the defaults are 10 s and 3 s.
        "session.timeout.ms": "5000",
        "heartbeat.interval.ms": "1500",
    }


def connect_is_healthy(port: int, secrets: Path | None = None) -> bool:
    """`/health` and not `/`, which answers before the worker has joined its group."""
    connection = secured.connection_to(secrets, port)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        return answer.status == 200 and json.loads(answer.read())["status"] == "healthy"
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return False
    finally:
        connection.close()


PLANS: Final[dict[str, Callable[[Site], Plan]]] = {
    "postgres": postgres_plan,
    "kafka": kafka_plan,
    "connect": connect_plan,
}
AFTER: Final = {"postgres": (), "kafka": (), "connect": ("kafka",)}
