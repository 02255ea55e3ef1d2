"""What the charts tell the services is what the services take; what pods mount is there; what alerts ask exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from broker_gateway.settings import BrokerGatewaySettings
from broker_simulator.settings import Settings as SimulatorSettings
from close_api.settings import Settings as CloseApiSettings
from close_board.settings import CloseBoardSettings
from closectl.secrets_directory import SecretsDirectory
from closectl.settings import ClosectlSettings
from closeflow.settings import ServiceSettings, read
from deploy.helm.tests.rendering import (
    HELM,
    RELEASE,
    SERVICES,
    Object,
    Pods,
    named,
    of_kind,
    pods,
    pods_of,
    rendered,
    variant,
)
from fill_processor.settings import FillProcessorSettings
from order_submitter.settings import OrderSubmitterSettings
from reconciler.settings import ReconcilerSettings

SETTINGS: Final[dict[str, type[ServiceSettings]]] = {
    "close-api": CloseApiSettings,
    "order-submitter": OrderSubmitterSettings,
    "broker-gateway": BrokerGatewaySettings,
    "fill-processor": FillProcessorSettings,
    "reconciler": ReconcilerSettings,
    "close-board": CloseBoardSettings,
}
MADE: Final = HELM / "closeflow" / "files" / "make_secrets.py"
Secrets = Mapping[str, Mapping[str, bytes]]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Secrets:
    """By their names, as the Job of the trial makes them of `closectl secrets make`."""
    directory = tmp_path_factory.mktemp("secrets")
    subprocess.run(
        (sys.executable, "-m", "closectl", "secrets", "make", "--directory", str(directory)), check=True, timeout=60
    )
    script: dict[str, Any] = {"__name__": "make_secrets"}
    exec(compile(MADE.read_text(), str(MADE), "exec"), script)
    files = {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }
    return {f"{RELEASE}-{part}": content for part, (content, _) in script["secrets_of"](files).items()}


def test_an_upgrade_keeps_every_secret_of_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script twice, each time in an empty directory, beside the Secrets of a Kubernetes that only keeps them."""
    kept: dict[str, Any] = {}

    def call(method: str, path: str, body: Any = None) -> Any:
        if method == "GET":
            return kept.get(path)
        kept[path if method == "PUT" else f"{path}/{body['metadata']['name']}"] = body
        return body

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    found = []
    for run in ("install", "upgrade"):
        script: dict[str, Any] = {"__name__": "make_secrets"}
        exec(compile(MADE.read_text(), str(MADE), "exec"), script)
        script |= {"call": call, "DIRECTORY": tmp_path / run}
        found.append(script["secrets_of"](script["complete"](RELEASE, "trading")))
    assert found[0] == found[1]
    assert list(kept) == [f"namespaces/trading/secrets/{RELEASE}-trial"]


def mounted(one: Pods, objects: tuple[Object, ...], secrets: Secrets) -> dict[str, bytes]:
    """The files that a pod finds, by their paths; a KeyError names a Secret or a key that is not there."""
    maps = {each["metadata"]["name"]: each.get("data", {}) for each in of_kind(objects, "ConfigMap")}
    files: dict[str, bytes] = {}
    places = {mount["name"]: mount["mountPath"] for mount in one.container["volumeMounts"]}
    for volume in one.spec["volumes"]:
        sources = volume.get("projected", {}).get("sources", [volume])
        for source in sources:
            if secret := source.get("secret"):
                content: Mapping[str, bytes] = secrets[secret.get("secretName") or secret["name"]]
            elif config := source.get("configMap"):
                content = {key: text.encode() for key, text in maps[config["name"]].items()}
                secret = config
            else:
                continue
            items = secret.get("items") or [{"key": key, "path": key} for key in content]
            files |= {f"{places[volume['name']]}/{item['path']}": content[item["key"]] for item in items}
    return files


def test_everything_that_the_pods_of_a_trial_mount_is_made(secrets: Secrets) -> None:
    objects = variant("trial")
    for one in pods_of(objects):
        mounted(one, objects, secrets)
    allowed = named(objects, "Role", "secrets")["rules"][1]["resourceNames"]
    assert set(secrets) | {f"{RELEASE}-trial"} == set(allowed)


def environment(one: Pods, objects: tuple[Object, ...], found: Mapping[str, bytes], place: Path) -> dict[str, str]:
    """Of a container, with its files at another place."""
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(objects, "ConfigMap")}
    told = {variable["name"]: variable["value"] for variable in one.container.get("env", []) if "value" in variable}
    for source in one.container.get("envFrom", []):
        told |= maps[source["configMapRef"]["name"]]
    for path, content in found.items():
        file = place / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return {name: value.replace("/etc/closeflow", f"{place}/etc/closeflow") for name, value in told.items()}


@pytest.mark.parametrize("service", SERVICES)
def test_the_service_takes_its_settings(service: str, secrets: Secrets, tmp_path: Path) -> None:
    objects = variant("trial")
    one = pods(objects, service)
    told = environment(one, objects, mounted(one, objects, secrets), tmp_path)
    settings = read(SETTINGS[service], told)
    assert settings.health_port == 8081
    assert not settings.allow_plaintext


@pytest.mark.parametrize("service", SERVICES)
def test_the_service_takes_its_settings_with_everything_on(service: str, secrets: Secrets, tmp_path: Path) -> None:
    objects = variant(
        "everything", "global.ca.kind=Secret", "global.ca.name=closeflow-ca", "close-api.tls.clientCaKey="
    )
    own = {"submitter": secrets[f"{RELEASE}-order-submitter"], "order-submitter": {"password": b"secret"}}
    one = pods(objects, service)
    told = environment(one, objects, mounted(one, objects, {**secrets, **own}), tmp_path)
    settings = read(SETTINGS[service], told)
    assert (settings.otlp_endpoint, settings.otlp_sample_ratio) == ("https://collector.example:4318", 0.25)


def test_the_simulator_takes_its_settings(monkeypatch: pytest.MonkeyPatch, secrets: Secrets, tmp_path: Path) -> None:
    objects = variant("trial")
    one = pods(objects, "broker-simulator")
    for name, value in environment(one, objects, mounted(one, objects, secrets), tmp_path).items():
        monkeypatch.setenv(name, value)
    settings = SimulatorSettings()  # type: ignore[call-arg,unused-ignore]
    assert settings.tls() is not None
    assert settings.secret()


@pytest.mark.parametrize("job", ["migrate", "topics", "connector", "positions", "test"])
def test_closectl_takes_its_settings(job: str, secrets: Secrets, tmp_path: Path) -> None:
    objects = variant("trial")
    one = pods(objects, job)
    told = environment(one, objects, mounted(one, objects, secrets), tmp_path)
    assert read(ClosectlSettings, told)


def test_keys_of_an_external_secret_are_those_that_are_mounted() -> None:
    objects = variant("everything")
    for service in ("close-api", "fill-processor"):
        (external,) = [
            one for one in of_kind(objects, "ExternalSecret") if one["metadata"]["name"] == f"{RELEASE}-{service}"
        ]
        volume = next(one for one in pods(objects, service).spec["volumes"] if one["name"] == "secrets")
        wanted = [item["key"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]]
        assert [one["secretKey"] for one in external["spec"]["data"]] == wanted


def test_alerts_ask_for_metrics_that_exist() -> None:
    known = set(re.findall(r"\[`(\w+)`\]", (HELM.parents[1] / "docs/metrics.md").read_text()))
    rules = [
        rule
        for one in of_kind(variant("everything"), "PrometheusRule")
        for group in one["spec"]["groups"]
        for rule in group["rules"]
    ]
    assert len(rules) > 10
    asked = {name for rule in rules for name in re.findall(r"clos\w+_\w+", rule["expr"])}
    assert {name for name in asked if name not in known and not name.startswith(f"{RELEASE}-")} == set()


def test_the_platform_gives_every_role_and_principal_its_password(tmp_path: Path) -> None:
    SecretsDirectory(tmp_path, datetime.now(UTC)).complete()
    objects = rendered("closeflow", HELM / "closeflow" / "values-trial.yaml")
    for job, folder in (("migrate", "postgres"), ("topics", "kafka")):
        volume = next(one for one in pods(objects, job).spec["volumes"] if one["name"] == "secrets")
        found = {item["path"] for item in volume["secret"]["items"] if item["path"].startswith(f"{folder}/")}
        made = {
            f"{folder}/{path.name}" for path in (tmp_path / folder).iterdir() if path.suffix not in (".pem", ".key")
        }
        assert found == made
