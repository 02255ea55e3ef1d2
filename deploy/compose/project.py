"""One compose project of this repository, as the demo and the tests of the deployment drive it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
UP_WITHIN_S: Final = 900
HEALTH_TIMEOUT: Final = "60s"
"""What is measured here is not how fast a machine is that does other things too."""
BUILD_WITHIN_S: Final = 3600
IN_THE_SIMULATOR: Final = """
import json, ssl, sys
from decimal import Decimal
from broker_simulator.control import *
control = Control("https://localhost:8090", verify=ssl.create_default_context(cafile="/run/closeflow/ca.pem"))
"""
Done = subprocess.CompletedProcess[str]


class NoDocker(Exception):
    """This machine has no Docker engine, or no compose; the text says what to do."""


class Failed(Exception):
    """A command of compose failed; the text is what it said at its end."""


def require_docker() -> None:
    """Raises NoDocker."""
    for what, command in (
        ("no Docker engine answers: install or start Docker", ("docker", "version")),
        ("docker has no compose plugin: install it", ("docker", "compose", "version")),
    ):
        if shutil.which("docker") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            raise NoDocker(f"{what} (`{' '.join(command)}` says more)")


@dataclass(frozen=True, slots=True)
class Project:
    """`name` is compose's, so that several go on beside each other; close-api is published on ports that were free when
    this object was made, and stay the same over restarts."""

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    """More variables of compose.yaml, such as POSITIONS_CSV."""
    rest_port: int = field(default_factory=lambda: _free_port())
    grpc_port: int = field(default_factory=lambda: _free_port())

    def compose(self, *words: str, text: str | None = None, within_s: float = UP_WITHIN_S, good: bool = True) -> Done:
        """Run `docker compose …`; `text` is its input. Raises Failed where it fails and ought not to."""
        ports = {"REST_PORT": str(self.rest_port), "GRPC_PORT": str(self.grpc_port)}
        environment = {**os.environ, "COMPOSE_PROJECT_NAME": self.name, "HEALTH_TIMEOUT": HEALTH_TIMEOUT, **ports}
        command = ("docker", "compose", "--progress", "quiet", *words)
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env={**environment, **self.settings},
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
        if good and done.returncode:
            said = (done.stderr.strip() or done.stdout.strip())[-2000:]
            raise Failed(f"docker compose {' '.join(words)}: exit code {done.returncode}\n{said}")
        return done

    def up(self, *services: str) -> None:
        """Start what does not run, and wait until all of it is healthy. Images that are not there are built."""
        self.compose("up", "--wait", "--wait-timeout", str(UP_WITHIN_S), *services, within_s=BUILD_WITHIN_S)

    def down(self, *, and_volumes: bool) -> None:
        """Remove the containers and networks; with the volumes, nothing of the project is left."""
        self.compose("down", "--remove-orphans", *(["--volumes"] if and_volumes else []))

    def kill(self, service: str) -> None:
        """kill -9."""
        self.compose("kill", "-s", "KILL", service)

    def start(self, service: str) -> None:
        """Start a container that was killed, and it alone: `compose start` would do again what is done once."""
        self.compose("up", "--detach", "--no-deps", "--no-recreate", service)

    def running(self) -> dict[str, str]:
        """What docker says of each container that is there: by service, its state with its health."""
        lines = self.compose("ps", "--all", "--format", "json").stdout.splitlines()
        found = [json.loads(line) for line in lines]
        return {one["Service"]: one["Health"] or f"{one['State']} {one['ExitCode']}" for one in found}

    def closectl(self, *arguments: str, mounted: Path | None = None, good: bool = True) -> Done:
        """Run the command line as an operator; `mounted` is a file that it finds as /given."""
        mount = [] if mounted is None else ["--volume", f"{mounted}:/given:ro"]
        return self.compose("run", "--rm", "--no-deps", "-T", *mount, "closectl", *arguments, good=good)

    def closectl_json(self, *arguments: str) -> Any:
        """What a command prints with --json."""
        return json.loads(self.closectl(*arguments, "--json").stdout)

    def token(self) -> str:
        """Of a caller who may close and read in every account, for an hour."""
        key = ("--key", "/run/closeflow", "--subject", "demo", "--all-accounts")
        return self.closectl("token", "issue", *key).stdout.strip()

    def doors(self) -> tuple[str, str]:
        """The addresses of close-api over REST and over gRPC, as they are published on this machine."""
        return f"https://127.0.0.1:{self.rest_port}", f"grpcs://127.0.0.1:{self.grpc_port}"

    def authority(self, directory: Path) -> Path:
        """The certificate that this project's servers are trusted by, as a file in the directory."""
        kept = directory / "ca.pem"
        kept.write_text(self.compose("exec", "-T", "close-api", "cat", "/run/closeflow/ca.pem").stdout)
        return kept

    def at_broker(self, code: str) -> Any:
        """What a line of Python says in the simulator's container, where `control` is its control endpoint."""
        text = f"{IN_THE_SIMULATOR}\nprint(json.dumps({code}, default=str))\n"
        return json.loads(self.compose("exec", "-T", "broker-simulator", "python", "-", text=text).stdout)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def always(cleanup: Callable[[], None], *, tell: Callable[[str], None]) -> None:
    """Clean up, and tell what cannot be cleaned up instead of raising: an error before it is the one that counts."""
    try:
        cleanup()
    except (Failed, subprocess.TimeoutExpired) as error:
        tell(f"not cleaned up: {error}")
