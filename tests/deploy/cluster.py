"""kubectl and helm, as the test on a cluster needs them: KUBECONFIG says which one."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.helm.tools import helm

CHART: Final = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "closeflow"
Object = dict[str, Any]


class ClusterTrouble(Exception):
    """A command failed or did not end in time; the text is what it said."""


def run(*command: str, within_s: float = 120.0, given: str | None = None) -> str:
    """What a command prints. Raises ClusterTrouble."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=within_s, input=given, check=False)
    except subprocess.TimeoutExpired:
        raise ClusterTrouble(f"{' '.join(command[:6])}: no end after {within_s:.0f} s") from None
    if done.returncode != 0:
        raise ClusterTrouble(f"{' '.join(command[:6])}: {done.stderr[-2000:]}{done.stdout[-2000:]}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Release:
    """One release in a namespace of its own."""

    name: str
    namespace: str

    def kubectl(self, *words: str, within_s: float = 120.0, given: str | None = None) -> str:
        """In the namespace."""
        return run("kubectl", "-n", self.namespace, *words, within_s=within_s, given=given)

    def helm(self, *words: str, within_s: float = 900.0) -> str:
        """In the namespace."""
        return run(helm(), "-n", self.namespace, *words, within_s=within_s)

    def get(self, *words: str) -> list[Object]:
        """Objects, as Kubernetes has them."""
        found = json.loads(self.kubectl("get", *words, "-o", "json"))
        return list(found["items"]) if "items" in found else [found]

    def restrict(self) -> None:
        """Make the namespace, in which no pod runs that PodSecurity `restricted` refuses."""
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
        metadata = {"name": self.namespace, "labels": labels}
        run(
            "kubectl",
            "apply",
            "-f",
            "-",
            given=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}),
        )

    def secret(self, name: str) -> dict[str, bytes]:
        """The files of a Secret of the release."""
        (found,) = self.get("secret", f"{self.name}-{name}")
        return {key: base64.b64decode(content) for key, content in found["data"].items()}

    def pods(self) -> list[Object]:
        """Those that are to go on: no pods of Jobs or tests, none that is leaving."""
        found = self.get("pods", "-l", "app.kubernetes.io/part-of=closeflow")
        return [
            pod
            for pod in found
            if "deletionTimestamp" not in pod["metadata"]
            and pod["metadata"].get("ownerReferences", [{}])[0].get("kind") in ("ReplicaSet", "StatefulSet")
        ]

    def not_ready(self) -> list[str]:
        """Workloads that have fewer ready pods than they are to have."""
        lacking = []
        for one in self.get("deployments,statefulsets"):
            wanted, status = one["spec"]["replicas"], one["status"]
            same = status.get("observedGeneration") == one["metadata"]["generation"]
            if not same or status.get("readyReplicas", 0) != wanted or status.get("replicas", 0) != wanted:
                lacking.append(f"{one['metadata']['name']} {status.get('readyReplicas', 0)}/{wanted}")
        return lacking

    def await_ready(self, within_s: float = 300.0) -> float:
        """How long it took until every pod was ready again. Raises ClusterTrouble."""
        begun = time.monotonic()
        while lacking := self.not_ready():
            if time.monotonic() > begun + within_s:
                raise ClusterTrouble(f"not ready after {within_s:.0f} s: {', '.join(lacking)}")
            time.sleep(1.0)
        return time.monotonic() - begun

    def run_pod(self, manifest: Object, within_s: float = 600.0) -> tuple[str, str]:
        """The end (`Succeeded` or `Failed`) of a pod that runs once, and what it printed."""
        name = manifest["metadata"]["name"]
        self.kubectl("delete", "pod", name, "--ignore-not-found")
        self.kubectl("apply", "-f", "-", given=json.dumps(manifest))
        until = time.monotonic() + within_s
        while (phase := self.get("pod", name)[0]["status"]["phase"]) not in ("Succeeded", "Failed"):
            if time.monotonic() > until:
                raise ClusterTrouble(f"pod {name} is {phase} after {within_s:.0f} s")
            time.sleep(1.0)
        return phase, self.kubectl("logs", name)

    def images(self) -> dict[str, str]:
        """By workload: the image that its pods are to have."""
        return {
            one["metadata"]["name"]: one["spec"]["template"]["spec"]["containers"][0]["image"]
            for one in self.get("deployments,statefulsets")
        }


def values(options: dict[str, str]) -> Sequence[str]:
    """As helm's command line has them."""
    return [word for name, value in options.items() for word in ("--set", f"{name}={value}")]
