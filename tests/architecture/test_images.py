"""What is in an image, and how compose.yaml runs it."""

from __future__ import annotations

import importlib.metadata
import json
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from packaging.requirements import Requirement

from deploy.docker.healthcheck import place_of
from deploy.docker.requirements_of import NotLocked, read_lock, required, with_shared
from deploy.docker.sbom import document, folders

from .repository import REPOSITORY

LOCK: Final = read_lock((REPOSITORY / "requirements.lock").read_text())
COMPOSE: Final = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
JOBS: Final = {"secrets", "migrate", "topics", "connector", "closectl"}
NOT_ASKED: Final = {"otel-collector", "jaeger"}
"""Images without a program that could ask whether they are well."""


def name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def installed_for(package: str) -> set[str]:
    """What this package needs by its own metadata and that of what it needs, extras and all."""
    found: set[tuple[str, frozenset[str]]] = set()
    left = [(name(package), frozenset[str]())]
    while left:
        wanted = left.pop()
        if wanted in found:
            continue
        found.add(wanted)
        for line in importlib.metadata.requires(wanted[0]) or []:
            needs = Requirement(line)
            if any(needs.marker is None or needs.marker.evaluate({"extra": extra}) for extra in (*wanted[1], "")):
                left.append((name(needs.name), frozenset(needs.extras)))
    return {one for one, _ in found}


@pytest.mark.parametrize("image", sorted(folders()))
def test_an_image_has_what_its_program_needs_and_nothing_else(image: str) -> None:
    """The lock's notes say the same as the packages' own metadata."""
    ours = with_shared(folders()[image])
    locked = {name(one.name) for one in required(LOCK, ours)}
    assert locked == installed_for(image) - {Path(one).name for one in ours} - {"closeflow"}


def test_what_the_lock_does_not_have_is_told() -> None:
    with pytest.raises(NotLocked, match="nothing for services/none"):
        required(LOCK, ["services/none"])


@pytest.mark.parametrize("image", sorted(folders()))
def test_the_bill_of_materials_names_every_package_once_and_resolves(image: str) -> None:
    made = document(image, folders()[image])
    refs = [one["bom-ref"] for one in made["components"]]
    assert len(refs) == len(set(refs))
    known = {*refs, made["metadata"]["component"]["bom-ref"]}
    assert {one["ref"] for one in made["dependencies"]} <= known
    assert {on for one in made["dependencies"] for on in one["dependsOn"]} <= known
    assert made == document(image, folders()[image])
    assert "://" not in json.dumps(made).replace("urn:uuid:", "")


def test_all_versions_are_one() -> None:
    version = tomllib.loads((REPOSITORY / "libs/closeflow/pyproject.toml").read_text())["project"]["version"]
    named = set(re.findall(r"CLOSEFLOW_VERSION:-([^}]+)\}", (REPOSITORY / "compose.yaml").read_text()))
    assert named == {version}
    for folder in folders().values():
        project = tomllib.loads((REPOSITORY / folder / "pyproject.toml").read_text())["project"]
        assert project["version"] == version


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_container_is_locked_down(service: str) -> None:
    one = SERVICES[service]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one.get("cap_add", []) == (["CHOWN"] if service == "secrets" else [])
    assert one["mem_limit"]
    assert one["cpus"]
    assert one["pids_limit"]
    assert one["restart"] == (
        "no" if service == "closectl" else "on-failure:5" if service in JOBS else "unless-stopped"
    )
    assert one["healthcheck"].get("disable", False) is (service in JOBS | NOT_ASKED)
    assert one.get("ports", []) == [] or service in {"close-api", "close-board", "grafana"}
    assert all(port.startswith("127.0.0.1:") for port in one.get("ports", []))
    assert "ALLOW_PLAINTEXT" not in json.dumps(one)


def test_no_secret_is_in_the_environment_of_a_container() -> None:
    secret = re.compile(r"(PASSWORD|SECRET_KEY|TOKEN)$")
    settings = {(one, key) for one in SERVICES for key in SERVICES[one].get("environment", {}) if secret.search(key)}
    assert settings == {("closectl", "CLOSECTL_API_TOKEN")}
    assert SERVICES["closectl"]["environment"]["CLOSECTL_API_TOKEN"] is None


def test_every_program_runs() -> None:
    assert set(folders()) - {"closectl"} <= set(SERVICES)


@pytest.mark.parametrize(
    ("service", "environ", "place"),
    [
        ("close-api", {}, (8080, "/readyz", False)),
        ("close-api", {"CLOSE_API_TLS_CERTIFICATE_PATH": "/x", "CLOSE_API_HTTP_PORT": "1"}, (1, "/readyz", True)),
        ("broker-simulator", {"BROKER_SIMULATOR_TLS_CERTIFICATE_PATH": "/x"}, (8090, "/healthz", True)),
        ("fill-processor", {"FILL_PROCESSOR_HEALTH_PORT": "9"}, (9, "/readyz", False)),
    ],
)
def test_health_is_asked_where_the_settings_say(
    service: str, environ: dict[str, str], place: tuple[int, str, bool]
) -> None:
    assert place_of(service, environ) == place
