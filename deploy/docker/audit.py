"""`make audit-images`: what each image is and has, beside the rules for it; exit code 1 where one is broken.

Read from the image itself, by a container of it without a network; how long a service takes from its start until it is
ready is measured in a compose project of its own, where the images run on read-only root file systems.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Final

from deploy.compose.project import Failed, NoDocker, Project, always, require_docker
from deploy.docker.sbom import folders, packages_of, version_of

USER: Final = "10001:10001"
BASES: Final = {"connect": "quay.io/debezium/connect:3.6.1.Final"}
PYTHON: Final = "python:3.11-slim"
LABELS: Final = ("title", "version", "revision", "source", "licenses")
COMPILERS: Final = "gcc g++ cc c++ clang ld as make cmake go rustc cargo javac pip pip3 uv"
READY_WITHIN_S: Final = 120.0
# Directories that everybody may write to, with the sticky bit, are no files of the image.
LOOK: Final = f"""
find / -xdev ! -type l -writable ! '(' -type d -perm -1000 ')' 2>/dev/null | sed 's/^/writable /'
find / -xdev -type f -perm /6000 2>/dev/null | sed 's/^/setuid /'
for one in {COMPILERS}; do command -v $one >/dev/null && echo "compiler $one"; done
[ -x /opt/closeflow/bin/python ] && /opt/closeflow/bin/python -c '
import importlib.metadata as m
for one in m.distributions(): print("package", one.name.lower().replace("_", "-").replace(".", "-"), one.version)'
true
"""


@dataclass(slots=True)
class Image:
    """What was found of one image; `broken` are the rules that it breaks."""

    name: str
    facts: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def docker(*words: str, good: bool = True) -> str:
    """What `docker …` prints. Raises Failed."""
    done = subprocess.run(("docker", *words), capture_output=True, text=True, timeout=300, check=False)
    if good and done.returncode:
        raise Failed(f"docker {' '.join(words[:3])}: {done.stderr.strip()[-500:]}; build the images first: make images")
    return done.stdout


def megabytes(count: int) -> str:
    """As people compare sizes."""
    return f"{count / 1e6:.0f} MB"


def look_at(name: str, version: str) -> Image:
    """Everything that needs no other container."""
    image, tag = Image(name), f"closeflow/{name}:{version}"
    described: dict[str, Any] = json.loads(docker("image", "inspect", tag))[0]
    base = json.loads(docker("image", "inspect", BASES.get(name, PYTHON)))[0]
    config = described["Config"]
    found: dict[str, list[str]] = {"writable": [], "setuid": [], "compiler": [], "package": []}
    for line in docker("run", "--rm", "--network=none", "--entrypoint=sh", tag, "-c", LOOK).splitlines():
        what, _, which = line.partition(" ")
        found[what].append(which)
    own = [one for one in found["writable"] if not one.startswith("/var/lib/closeflow")]
    image.facts = {
        "size": f"{megabytes(described['Size'])}, {megabytes(described['Size'] - base['Size'])} over its base",
        "user": config["User"],
        "writable": ", ".join(found["writable"]) or "nothing",
        "setuid": str(len(found["setuid"])),
        "compilers": ", ".join(found["compiler"]) or "none",
        "packages": str(len(found["package"])),
    }
    labels = config["Labels"] or {}
    rules = {
        f"runs as {config['User'] or 'root'}, not as {USER}": config["User"] != USER,
        f"can write {', '.join(own[:5])}": bool(own),
        f"has setuid files: {', '.join(found['setuid'][:5])}": bool(found["setuid"]),
        f"has {', '.join(found['compiler'])}": bool(found["compiler"]),
        f"stops at {config.get('StopSignal')}, not at SIGTERM": config.get("StopSignal") != "SIGTERM",
        "has no ENTRYPOINT in exec form": (config["Entrypoint"] or ["/bin/sh"])[0].endswith("/sh"),
        "has no HEALTHCHECK": not config.get("Healthcheck"),
        "lacks labels": any(not labels.get(f"org.opencontainers.image.{one}") for one in LABELS),
    }
    image.broken = [rule for rule, holds in rules.items() if holds]
    if name in folders():
        image.broken += _other_packages(name, found["package"])
    return image


def _other_packages(name: str, installed: list[str]) -> list[str]:
    """What is installed and not locked for this program, and the other way round."""
    ours, locked = packages_of(folders()[name])
    wanted = {f"{one} {version}" for one, version in ours.items()}
    wanted |= {f"{one.name.replace('.', '-')} {version_of(one)}" for one in locked}
    extra, missing = sorted(set(installed) - wanted), sorted(wanted - set(installed))
    told = [f"has packages that are not its own: {', '.join(extra)}"] if extra else []
    return told + ([f"lacks packages of the lock: {', '.join(missing)}"] if missing else [])


def start_times(names: list[str]) -> dict[str, str]:
    """From the start of the container until its health check is good, with everything else running."""
    project = Project("closeflow-audit")
    times = {}
    try:
        began = time.monotonic()
        project.up()
        times["all of it, `docker compose up --wait`"] = f"{time.monotonic() - began:.1f} s"
        for name in names:
            container = project.compose("ps", "--quiet", name).stdout.strip()
            test = json.loads(docker("inspect", container))[0]["Config"]["Healthcheck"]["Test"][1:]
            docker("stop", container)
            began = time.monotonic()
            docker("start", container)
            while subprocess.run(("docker", "exec", container, *test), capture_output=True, check=False).returncode:
                if time.monotonic() - began > READY_WITHIN_S:
                    raise Failed(
                        f"{name} is not ready after {READY_WITHIN_S:.0f} s:\n{docker('logs', '-n', '20', container)}"
                    )
                time.sleep(0.05)
            times[name] = f"{time.monotonic() - began:.1f} s"
    finally:
        always(lambda: project.down(and_volumes=True), tell=lambda line: print(line, file=sys.stderr))
    return times


def main() -> int:
    """Print it all; 1 where a rule is broken, 2 where Docker or an image is not there."""
    parser = argparse.ArgumentParser(prog="audit-images", description=__doc__)
    parser.add_argument("--version", required=True, help="the images' tag")
    parser.add_argument("--no-start", action="store_true", help="leave out how long a start takes")
    given = parser.parse_args()
    try:
        require_docker()
        images = [look_at(name, given.version) for name in (*folders(), "connect")]
        times = {} if given.no_start else start_times([one.name for one in images if one.name != "closectl"])
    except (NoDocker, Failed, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return 2
    for image in images:
        ready = times.pop(image.name, None)
        facts = image.facts | ({} if ready is None else {"start to ready": ready})
        print(image.name)
        for what, fact in facts.items():
            print(f"  {what:15} {fact}")
        for rule in image.broken:
            print(f"  BROKEN          {rule}")
    for what, took in times.items():
        print(f"{what}: {took}")
    return 1 if any(image.broken for image in images) else 0


if __name__ == "__main__":
    sys.exit(main())
