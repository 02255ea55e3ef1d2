"""`make test-cluster`: the trial on a real cluster, upgraded, rolled back, killed and scaled under load.

Needs KUBECONFIG, kubectl, and two tags of every image on the cluster's nodes: CLOSEFLOW_TAGS="0.1.0 0.1.1". It makes
the namespace closeflow-test, and removes it at the end when all was well; --keep leaves it. Prints a line for each
thing that was done, and at the end what must hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final

import httpx

from closectl.development_key import Grant, Scope, issue_token
from tests.deploy.cluster import CHART, ClusterTrouble, Release, run, values
from tests.deploy.load import Load

ACCOUNT: Final = "main"
FIRST: Final = 10_001
POSITIONS: Final = 12_000
PER_S: Final = 5.0
DELETES: Final = 20
QUIET_S: Final = 15.0
ENDED_WITHIN_S: Final = 300.0
SERVICES: Final = ("close-api", "order-submitter", "broker-gateway", "fill-processor", "reconciler")


def say(text: str) -> None:
    """A line, now."""
    sys.stdout.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")
    sys.stdout.flush()


def positions_file(directory: Path) -> Path:
    """The chart's own positions and many more, each closed once."""
    own = (CHART / "files" / "positions.csv").read_text()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    # An account has a symbol once.
    names = ("L" + "".join(three) for three in product(letters, repeat=3))
    rows = (f"{FIRST + n},{ACCOUNT},{name},stock,10,1,USD\n" for n, name in zip(range(POSITIONS), names, strict=False))
    path = directory / "positions.csv"
    path.write_text(own + "".join(rows))
    return path


@dataclass
class Trial:
    """The release, what is done to it, and what was found."""

    release: Release
    tags: tuple[str, str]
    directory: Path
    random: random.Random
    deletes: int
    trouble: list[str] = field(default_factory=list)

    def options(self, tag: str) -> list[str]:
        """Of install and upgrade."""
        more = {"global.image.tag": tag, "close-api.service.type": "NodePort"}
        files = [
            "-f",
            str(CHART / "values-trial.yaml"),
            "--set-file",
            f"trial.positions={self.directory / 'positions.csv'}",
        ]
        return [str(CHART), *files, *values(more), "--wait", "--timeout", "12m"]

    def timed(self, what: str, work: Callable[[], Any]) -> None:
        """Do it, and say how long it took; what goes wrong is kept, and the test goes on."""
        begun = time.monotonic()
        try:
            work()
        except ClusterTrouble as error:
            self.trouble.append(f"{what}: {error}")
            say(f"{what}: FAILED: {error}")
        else:
            say(f"{what}: {time.monotonic() - begun:.1f} s")

    def url(self) -> str:
        """close-api on this machine's own address, through the Service."""
        (service,) = self.release.get("service", f"{self.release.name}-close-api")
        port = next(one["nodePort"] for one in service["spec"]["ports"] if one["name"] == "http")
        return f"https://127.0.0.1:{port}"

    def token(self) -> str:
        """Good for an hour, signed by the trial's key."""
        key = self.directory / "token-key"
        if not key.exists():
            key.mkdir(mode=0o700)
            for name, content in self.release.secret("token-key").items():
                (key / name).write_bytes(content)
        grant = Grant(subject="load", accounts=[ACCOUNT], scopes=[Scope.WRITE, Scope.READ])
        return issue_token(key, grant, ttl=timedelta(hours=2), now=datetime.now(UTC))

    def tls(self) -> ssl.SSLContext:
        """Trusts the trial's authority alone."""
        return ssl.create_default_context(cadata=self.release.secret("ca")["ca.pem"].decode())

    # What is done to it

    def has_images(self, tag: str) -> None:
        """Raises ClusterTrouble unless every service is to have this tag."""
        images = self.release.images()
        wrong = [name for name in SERVICES if not images[f"{self.release.name}-{name}"].endswith(f":{tag}")]
        if wrong:
            raise ClusterTrouble(f"another image than {tag}: {', '.join(wrong)}")

    def upgrade(self) -> None:
        """To the other image of everything of ours."""
        self.release.helm("upgrade", self.release.name, *self.options(self.tags[1]))
        self.has_images(self.tags[1])
        self.release.await_ready()

    def roll_back(self) -> None:
        """To the first revision."""
        self.release.helm("rollback", self.release.name, "1", "--wait", "--timeout", "12m")
        self.has_images(self.tags[0])
        self.release.await_ready()

    def delete_one(self) -> None:
        """As a node takes a pod with it: a second later it is gone."""
        pod = self.random.choice(self.release.pods())["metadata"]["name"]
        self.release.kubectl("delete", "pod", pod, "--grace-period=1", "--wait=true")
        say(f"  {pod} deleted, all ready again after {self.release.await_ready():.0f} s")

    def scale(self, name: str, replicas: int) -> None:
        """One deployment."""
        self.release.kubectl("scale", f"deployment/{self.release.name}-{name}", f"--replicas={replicas}")
        self.release.await_ready()

    def storm(self, load: Load, pause: Callable[[], None]) -> None:
        """All of it, with quiet times between."""
        pause()
        for name, work in (("helm upgrade", self.upgrade), ("helm rollback", self.roll_back)):
            load.phase(name)
            self.timed(name, work)
            pause()
        load.phase(f"{self.deletes} deletes")
        for n in range(self.deletes):
            self.timed(f"delete {n + 1} of {self.deletes}", self.delete_one)
        load.phase("scaling")
        for name, replicas in (("close-api", 3), ("fill-processor", 3), ("fill-processor", 1), ("close-api", 1)):
            self.timed(f"{name} to {replicas}", partial(self.scale, name, replicas))
            pause()

    # What must hold

    async def ended(self, load: Load) -> Mapping[str, int]:
        """By status, the accepted closes once all have ended; ENDED_WITHIN_S is the most that is waited."""
        until = time.monotonic() + ENDED_WITHIN_S
        while True:
            found = await self._closes(load)
            states = {request: found.get(request, ("unknown", 0.0, 0.0)) for request in load.accepted.values()}
            counted: dict[str, int] = {}
            for status, filled, target in states.values():
                whole = status if status != "completed" or filled == target else "completed in part"
                counted[whole] = counted.get(whole, 0) + 1
            if set(counted) <= {"completed"} or time.monotonic() > until:
                return counted
            await asyncio.sleep(2.0)

    async def _closes(self, load: Load) -> dict[str, tuple[str, float, float]]:
        found: dict[str, tuple[str, float, float]] = {}
        async with httpx.AsyncClient(
            base_url=self.url(), verify=load.tls, timeout=30, headers={"Authorization": f"Bearer {load.token()}"}
        ) as http:
            token = ""
            while True:
                answer = await http.get("/v1/close-requests", params={"page_size": 500, "page_token": token})
                if answer.status_code != 200:
                    raise ClusterTrouble(f"the list of closes: {answer.status_code} {answer.text[:200]}")
                page = answer.json()
                for one in page["close_requests"]:
                    found[one["close_request_id"]] = (one["close_request_status"], one["filled_qty"], one["target_qty"])
                token = page["next_page_token"]
                if not token:
                    return found

    def verify(self) -> str:
        """What `closectl verify` says, in a pod with what it needs. Raises ClusterTrouble on a violation."""
        phase, said = self.release.run_pod(verify_pod(self.release, self.tags[0]))
        if phase != "Succeeded":
            raise ClusterTrouble(said[-4000:])
        return said


def verify_pod(release: Release, tag: str) -> dict[str, Any]:
    """closectl with the platform's Secret, as the Jobs have it."""
    name = release.name
    (job,) = release.get("networkpolicy", f"{name}-closeflow-platform")
    labels = job["spec"]["podSelector"]["matchLabels"]
    database = f"postgresql://closeflow_admin@{name}-postgres:5432/closeflow"
    platform, ca = "/etc/closeflow/platform", "/etc/closeflow/ca/ca.pem"
    plain = {
        "CLOSECTL_POSTGRES_DSN": f"{database}?sslmode=verify-full&sslrootcert={ca}",
        "CLOSECTL_POSTGRES_PASSWORD_FILE": f"{platform}/postgres.closeflow_admin",
        "CLOSECTL_KAFKA_BOOTSTRAP_SERVERS": f"{name}-kafka:9094",
        "CLOSECTL_KAFKA_SECURITY_PROTOCOL": "SSL",
        "CLOSECTL_KAFKA_CA_PATH": ca,
        "CLOSECTL_KAFKA_CERTIFICATE_PATH": f"{platform}/closectl.tls.pem",
        "CLOSECTL_KAFKA_KEY_PATH": f"{platform}/closectl.tls.key",
        "CLOSECTL_BROKER_URL": f"https://{name}-broker-simulator:8090",
        "CLOSECTL_BROKER_CA_PATH": ca,
        "CLOSECTL_BROKER_KEY_ID_FILE": "/etc/closeflow/broker/broker-key-id",
        "CLOSECTL_BROKER_SECRET_KEY_FILE": "/etc/closeflow/broker/broker-secret-key",
        "CLOSECTL_BROKER_ACCOUNT_ID": ACCOUNT,
    }
    mounts = {"platform": f"{name}-closeflow-platform", "broker": f"{name}-broker-simulator", "ca": f"{name}-ca"}
    container = {
        "name": "closectl",
        "image": f"closeflow/closectl:{tag}",
        "args": ["verify", "--wait", "120"],
        "env": [{"name": variable, "value": value} for variable, value in plain.items()],
        "volumeMounts": [{"name": one, "mountPath": f"/etc/closeflow/{one}"} for one in mounts]
        + [{"name": "tmp", "mountPath": "/tmp"}],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": one, "secret": {"secretName": secret, "defaultMode": 0o440}} for one, secret in mounts.items()
        ]
        + [{"name": "tmp", "emptyDir": {}}],
    }
    metadata = {"name": f"{name}-verify", "labels": {**labels, "app.kubernetes.io/part-of": "closeflow"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


async def under_load(trial: Trial) -> Load:
    """The storm, and the load beside it until it is over."""
    made = trial.token()
    positions: Iterator[int] = iter(range(FIRST, FIRST + POSITIONS))
    load = Load(trial.url(), lambda: made, trial.tls(), positions, PER_S)
    stop = asyncio.Event()
    running = asyncio.create_task(load.run(stop))
    try:
        await asyncio.to_thread(trial.storm, load, lambda: time.sleep(QUIET_S))
    finally:
        stop.set()
        await running
    return load


def report(trial: Trial, load: Load, states: Mapping[str, int]) -> bool:
    """Say what was found; whether all holds."""
    for phase in load.phases:
        say(phase.line())
    restarts = {
        pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in trial.release.pods()
    }
    say(f"restarts of containers: {json.dumps({name: count for name, count in restarts.items() if count})}")
    say(f"accepted: {len(load.accepted)}; {json.dumps(states)}")
    for line in (*load.bad[:20], *trial.trouble):
        say(f"BAD {line}")
    return not load.bad and not trial.trouble and set(states) == {"completed"}


def main() -> int:
    """Install, test, storm, verify."""
    parser = argparse.ArgumentParser(description="Test the charts on a cluster.")
    parser.add_argument("--keep", action="store_true", help="leave the namespace as it is at the end")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of which pods are deleted")
    parser.add_argument("--deletes", type=int, default=DELETES, help="how many pods are deleted, one after the other")
    parser.add_argument("--installed", action="store_true", help="go on with a release that a run before left there")
    parser.add_argument("--namespace", default="closeflow-test", help="which is made, and removed at the end")
    given = parser.parse_args()
    tags = tuple(os.environ.get("CLOSEFLOW_TAGS", "").split())
    if len(tags) != 2 or not os.environ.get("KUBECONFIG"):
        sys.stderr.write("give KUBECONFIG, and CLOSEFLOW_TAGS with two tags that the cluster has all images of\n")
        return 2
    release = Release("closeflow", given.namespace)
    with tempfile.TemporaryDirectory() as directory:
        trial = Trial(release, (tags[0], tags[1]), Path(directory), random.Random(given.seed), given.deletes)
        say(f"seed {given.seed}")
        positions_file(trial.directory)
        if not given.installed:
            release.restrict()
            trial.timed("helm install --wait", lambda: release.helm("install", release.name, *trial.options(tags[0])))
        trial.timed("helm test", lambda: say(release.helm("test", release.name, "--logs")))
        if trial.trouble:
            return 1
        load = asyncio.run(under_load(trial))
        states = asyncio.run(trial.ended(load))
        trial.timed("closectl verify", lambda: say(trial.verify()))
        trial.timed("helm test", lambda: release.helm("test", release.name))
        good = report(trial, load, states)
    if good and not given.keep:
        run("kubectl", "delete", "namespace", release.namespace, within_s=300)
    say("all holds" if good else "something does not hold; the namespace is left as it is")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
