"""The same servers as containers, made by testcontainers from the public images: devstack with
DEVSTACK_PROVIDER=containers. They are removed, with their data, when the process that started them ends or calls
`down`; other processes of the same clone find them by name meanwhile.
"""

import atexit
import contextlib
import hashlib
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.network import Network

from devstack.container_parts import IMAGES, POSTGRES_PORT, Recipe, recipes
from devstack.control import Status, instance_locked, silent
from devstack.errors import EnvironmentLacking, StackError
from devstack.fetch import Report
from devstack.instances import Instance, Stack, ensure_instance, read_instance, stack_of
from devstack.places import REPOSITORY, instance_directory, make_directory
from devstack.state import PART_NAMES, PartState, PartStatus

READY_WITHIN_SECONDS: Final = 120.0
STOP_WITHIN_SECONDS: Final = 30
POLL_SECONDS: Final = 0.1
ENDED_AS_ASKED: Final = (0, 143)  # Java says 143 when SIGTERM ended it
MEND: Final = "run what started it again"
_owned: Final[set[str]] = set()


def up(name: str = "dev", report: Report = silent, *, secure: bool | None = None) -> Stack:
    """Start the instance's containers, or find those that another process of this clone has started.

    Raises StackError for a secure instance, which only the embedded servers can be, and EnvironmentLacking where no
    Docker engine answers or an image cannot be had. What this call has started is removed again when it fails or is
    interrupted, and at the end of this process.
    """
    if secure:
        raise StackError("servers in containers are not secured: use the embedded ones")
    engine = check_engine()
    with instance_locked(kept_as(name), report):
        instance, directory = _remembered(name)
        if _lives(engine, name):
            return _stack(instance, directory)
        _remove(engine, name, directory)
        if not _owned:
            atexit.register(remove_owned)
        _owned.add(name)
        try:
            _start_all(engine, instance, directory, report)
        except (ImageNotFound, APIError) as error:
            _remove(engine, name, directory)
            raise EnvironmentLacking(f"Docker: {error.explanation or error}; try `docker pull` by hand") from error
        except BaseException:
            report("removing what was started")
            _remove(engine, name, directory)
            raise
        return _stack(instance, directory)


def down(name: str = "dev", report: Report = silent) -> None:
    """Remove the instance's containers, their data and their network. Nothing to do is no error. The last logs stay in
    the instance's directory."""
    _owned.discard(name)
    engine = check_engine()
    if read_instance(kept_as(name)) is None:
        return
    with instance_locked(kept_as(name), report):
        _remove(engine, name, instance_directory(kept_as(name)))
        report(f"instance {name} is removed")


def remove_owned() -> None:
    """Remove the instances that this process has started; at its end that happens by itself."""
    for name in tuple(_owned):
        with contextlib.suppress(StackError):
            down(name)


def images() -> list[str]:
    """What the containers are made from."""
    return list(IMAGES.values())


def reset(name: str = "dev", report: Report = silent) -> None:
    """The same as `down`: containers keep nothing."""
    down(name, report)


def find(name: str = "dev") -> Stack | None:
    """Where the instance can be reached if it is up; also when some part of it is down, see `status`."""
    if read_instance(kept_as(name)) is None or not _lives(check_engine(), name):
        return None
    return _stack(*_remembered(name))


def stop_part(name: str, part: str, report: Report = silent) -> None:
    """docker stop: orderly, and it stays down until start_part."""
    _part(name, part).stop(timeout=STOP_WITHIN_SECONDS)
    report(f"{part:<9} stopped")


def start_part(name: str, part: str, report: Report = silent) -> None:
    """Start a part that was stopped or killed, with its data, and wait until it is ready."""
    container, (instance, directory) = _part(name, part), _remembered(name)
    container.start()
    _await_ready(container, part, recipes(instance, directory)[part], report)


def kill_part(name: str, part: str) -> int:
    """docker kill -s KILL, for tests of a crash; the pid that it had. It stays down until start_part."""
    container = _part(name, part)
    pid = int(container.attrs["State"]["Pid"])
    if container.status != "running":
        raise StackError(f"{part} of instance {name} is not running: {MEND}")
    container.kill("KILL")
    container.wait()
    return pid


def freeze_part(name: str, part: str) -> None:
    """docker pause: it is there and answers nothing, until thaw_part."""
    _part(name, part).pause()


def thaw_part(name: str, part: str) -> None:
    """Let a frozen part go on."""
    _part(name, part).unpause()


def status(name: str = "dev") -> Status:
    """What is known about the instance now, without changing anything."""
    engine = check_engine()
    if read_instance(kept_as(name)) is None or not _lives(engine, name):
        return Status(name, "absent", (f"no containers of instance {name}: {MEND}",), None, None, {})
    instance, directory = _remembered(name)
    parts = {part: _status_of(part, _part(name, part)) for part in PART_NAMES}
    explanation = tuple(
        f"{part.name} {part.failure or 'was stopped'} at {part.since} ({part.log})"
        for part in parts.values()
        if part.state is not PartState.READY
    )
    word = "broken" if explanation else "running"
    return Status(name, word, explanation, None, _stack(instance, directory), parts)


def check_engine() -> Any:
    """A client of the Docker engine. Raises EnvironmentLacking where none answers."""
    try:
        engine = DockerClient().client
        engine.ping()
    except (DockerException, OSError) as error:
        why = str(error).splitlines()[0].removesuffix(".")
        raise EnvironmentLacking(
            f"no Docker engine answers ({why}): start one, or say where it is with DOCKER_HOST; `make test` needs none"
        ) from error
    return engine


def kept_as(name: str) -> str:
    """The instance under which ports, password and directory of the containers are remembered."""
    return f"containers-{name}"


def container_name(name: str, part: str) -> str:
    """Of a part's container; every clone has names of its own."""
    clone = hashlib.sha256(os.fsencode(REPOSITORY)).hexdigest()[:8]
    return f"closeflow-{clone}-{name}-{part}"


def _remembered(name: str) -> tuple[Instance, Path]:
    instance, directory = ensure_instance(kept_as(name))
    return replace(instance, name=name), directory


def _stack(instance: Instance, directory: Path) -> Stack:
    """Connect reaches PostgreSQL by the containers' network, everybody else by 127.0.0.1."""
    return replace(stack_of(instance, directory), connect_postgres_host="postgres", connect_postgres_port=POSTGRES_PORT)


def _lives(engine: Any, name: str) -> bool:
    """Whether all containers are there, running or not."""
    there = {one.name for one in engine.containers.list(all=True)}
    return all(container_name(name, part) in there for part in PART_NAMES)


def _part(name: str, part: str) -> Any:
    if part not in PART_NAMES:
        raise StackError(f"'{part}' is no part of the stack: it is one of {', '.join(PART_NAMES)}")
    try:
        return check_engine().containers.get(container_name(name, part))
    except NotFound as error:
        raise StackError(f"{part} of instance {name} is not there: {MEND}") from error


def _start_all(engine: Any, instance: Instance, directory: Path, report: Report) -> None:
    network = Network()
    network.name = container_name(instance.name, "network")
    network.create()
    made = recipes(instance, directory)
    started: dict[str, Any] = {}
    for part, recipe in made.items():
        if part == "connect":
            _await_ready(started["kafka"], "kafka", made["kafka"], report)
        started[part] = _start(instance.name, part, recipe, network)
    for part in ("postgres", "connect"):
        _await_ready(started[part], part, made[part], report)


def _start(name: str, part: str, recipe: Recipe, network: Network) -> Any:
    container = DockerContainer(recipe.image).with_name(container_name(name, part)).with_envs(**recipe.environment)
    # On 127.0.0.1 alone, and on the same port after each start of the part.
    container.ports[str(recipe.port)] = ("127.0.0.1", recipe.host_port)  # type: ignore[assignment]
    container.with_network(network).with_network_aliases(part)
    if recipe.command:
        container.with_command(list(recipe.command))
    for inside, directory in (recipe.volumes or {}).items():
        make_directory(directory)
        container.with_volume_mapping(directory, inside, "rw")
    if recipe.user is not None:
        container.with_kwargs(user=recipe.user)
    return container.start().get_wrapped_container()


def _await_ready(container: Any, part: str, recipe: Recipe, report: Report) -> None:
    began = time.monotonic()
    while True:
        container.reload()
        if container.status == "running" and recipe.is_ready(container):
            report(f"{part:<9} ready after {time.monotonic() - began:.1f} s")
            return
        late = time.monotonic() - began > READY_WITHIN_SECONDS
        if late or container.status == "exited":
            last = container.logs(tail=8).decode(errors="replace")
            what = f"was not ready after {READY_WITHIN_SECONDS:.0f} s" if late else "ended by itself"
            raise StackError(f"{part} {what}:\n{last}")
        time.sleep(POLL_SECONDS)


def _status_of(part: str, container: Any) -> PartStatus:
    found = container.attrs["State"]
    failure = None
    if container.status in ("running", "paused"):
        state, since = PartState.READY, found["StartedAt"]
    else:
        as_asked = found["ExitCode"] in ENDED_AS_ASKED
        state, since = (PartState.STOPPED if as_asked else PartState.FAILED), found["FinishedAt"]
        failure = None if as_asked else f"ended with exit code {found['ExitCode']}"
    log = f"docker logs {container.name}"
    return PartStatus(part, state, log, since, pid=found["Pid"] or None, failure=failure)


def _remove(engine: Any, name: str, directory: Path) -> None:
    """Containers with their volumes, network and data; the logs of what there was are kept as files."""
    logs = directory / "logs"
    make_directory(logs)
    for part in reversed(PART_NAMES):
        with contextlib.suppress(NotFound):
            container = engine.containers.get(container_name(name, part))
            (logs / f"{part}.log").write_bytes(container.logs())
            container.remove(force=True, v=True)
    with contextlib.suppress(NotFound):
        engine.networks.get(container_name(name, "network")).remove()
    shutil.rmtree(directory / "kafka", ignore_errors=True)
