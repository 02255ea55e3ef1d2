"""Renders charts with Helm, once for each set of values."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.helm.tools import helm

HELM: Final = Path(__file__).resolve().parents[1]
VALUES: Final = Path(__file__).parent / "values"
RELEASE: Final = "closeflow"
NAMESPACE: Final = "trading"
SERVICES: Final = ("close-api", "order-submitter", "broker-gateway", "fill-processor", "reconciler", "close-board")
VARIANTS: Final = {
    "umbrella": VALUES / "umbrella.yaml",
    "trial": HELM / "closeflow" / "values-trial.yaml",
    "everything": VALUES / "everything.yaml",
    "strimzi": VALUES / "strimzi.yaml",
}
Object = dict[str, Any]


class DoesNotRender(Exception):
    """Helm refused the chart or its values; the text is Helm's."""


@cache
def rendered(chart: str, *values: Path, sets: tuple[str, ...] = (), upgrade: bool = False) -> tuple[Object, ...]:
    """The objects of a chart, those of hooks and tests too. Raises DoesNotRender."""
    files = [part for path in values for part in ("-f", str(path))]
    options = [part for one in sets for part in ("--set", one)]
    command = [helm(), "template", RELEASE, str(HELM / chart), "-n", NAMESPACE, *files, *options]
    done = subprocess.run(
        [*command, *(["--is-upgrade"] if upgrade else [])], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode != 0:
        raise DoesNotRender(done.stderr)
    return tuple(one for one in yaml.safe_load_all(done.stdout) if one)


def variant(name: str, *sets: str) -> tuple[Object, ...]:
    """The umbrella with one of the files of values."""
    return rendered("closeflow", VARIANTS[name], sets=sets)


def of_kind(objects: tuple[Object, ...], *kinds: str) -> list[Object]:
    """Those of some kinds."""
    return [one for one in objects if one["kind"] in kinds]


def named(objects: tuple[Object, ...], kind: str, name: str) -> Object:
    """The object of a kind with the name, without that of the release."""
    (found,) = [one for one in of_kind(objects, kind) if one["metadata"]["name"] == f"{RELEASE}-{name}"]
    return found


@dataclass(frozen=True)
class Pods:
    """A workload's pods: whose they are, their metadata and their spec."""

    owner: str
    metadata: Object
    spec: Object

    @property
    def container(self) -> Object:
        """Each has one."""
        (found,) = self.spec["containers"]
        return dict(found)


def pods_of(objects: tuple[Object, ...]) -> Iterator[Pods]:
    """Of every workload."""
    for one in objects:
        owner = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield Pods(owner, one["metadata"], one["spec"])
        elif one["kind"] in ("Deployment", "StatefulSet", "Job"):
            template = one["spec"]["template"]
            yield Pods(owner, template["metadata"], template["spec"])


def pods(objects: tuple[Object, ...], service: str) -> Pods:
    """Of one service."""
    (found,) = [one for one in pods_of(objects) if one.owner.endswith(f"/{RELEASE}-{service}")]
    return found
