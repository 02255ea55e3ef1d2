"""`make compose-demo`: the system from its images, the demo's portfolio closed over both doors, verified, removed.

Exit codes: 0 good, 1 a position that is not closed or an invariant that does not hold, 2 this machine lacks something.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from closeflow_client import AsyncClient, CloseRequest
from deploy.compose.project import REPOSITORY, Failed, NoDocker, Project, always, require_docker

POSITIONS: Final = REPOSITORY / "demo" / "positions.csv"
CLOSED_WITHIN_S: Final = 60.0
GOOD, VIOLATION, ENVIRONMENT = 0, 1, 2
STARTED: Final = time.monotonic()


def tell(line: str) -> None:
    """A line of progress."""
    sys.stdout.write(f"{time.monotonic() - STARTED:6.1f}s  {line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run it; whatever happens, nothing of it is left."""
    project = Project("closeflow-demo")
    try:
        require_docker()
        try:
            return show(project)
        finally:
            tell("removing containers, networks and volumes")
            always(lambda: project.down(and_volumes=True), tell=tell)
    except NoDocker as error:
        sys.stderr.write(f"{error}\n")
        return ENVIRONMENT
    except (Failed, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"{error}\n")
        return ENVIRONMENT
    except KeyboardInterrupt:
        return ENVIRONMENT


def show(project: Project) -> int:
    """Up, import, close, verify."""
    project.down(and_volumes=True)
    tell("docker compose up --wait (builds the images that are not there)")
    project.up()
    tell(f"healthy: {', '.join(sorted(name for name, state in project.running().items() if state == 'healthy'))}")
    tell(project.closectl("positions", "import", "/given", mounted=POSITIONS).stdout.strip())
    positions = project.closectl_json("positions", "list")
    rest, grpc = project.doors()
    with tempfile.TemporaryDirectory() as directory:
        authority = project.authority(Path(directory))
        ended = asyncio.run(close_all((rest, grpc), project.token(), positions, authority))
    for position, request, door in ended:
        filled = f"{request.filled_qty} of {request.target_qty}"
        tell(f"{position['symbol']:20} {request.close_request_status:10} {filled:14} over {door.partition(':')[0]}")
    not_closed = [position["symbol"] for position, request, _ in ended if request.close_request_status != "completed"]
    verified = project.closectl("verify", "--wait", "30", good=False)
    sys.stdout.write(verified.stdout)
    if not_closed or verified.returncode:
        sys.stderr.write(f"not closed: {', '.join(not_closed) or 'none'}; verify: {verified.returncode}\n")
        return VIOLATION
    tell(f"{len(ended)} positions closed, half over REST and half over gRPC; every invariant holds")
    return GOOD


async def close_all(
    doors: tuple[str, str], token: str, positions: list[dict[str, Any]], authority: Path
) -> list[tuple[dict[str, Any], CloseRequest, str]]:
    """Close every position at once, half over each door, and wait for the ends."""
    async with (
        AsyncClient(doors[0], token, ca_file=authority) as rest,
        AsyncClient(doors[1], token, ca_file=authority) as grpc,
    ):
        clients = ((doors[0], rest), (doors[1], grpc))

        async def close(
            row: dict[str, Any], door: str, client: AsyncClient
        ) -> tuple[dict[str, Any], CloseRequest, str]:
            request = await client.close(row["id"], key=f"compose-demo-{row['id']}")
            return row, await client.wait(request.close_request_id, timeout=CLOSED_WITHIN_S), door

        return list(await asyncio.gather(*(close(row, *clients[n % 2]) for n, row in enumerate(positions))))


if __name__ == "__main__":
    sys.exit(main())
