"""What every chart is: linted, rendered, valid for one version of Kubernetes, and told about as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from deploy.helm.generate import CHARTS
from deploy.helm.tests.custom_resources import schema_of
from deploy.helm.tests.rendering import HELM, VALUES, VARIANTS, DoesNotRender, Object, of_kind, rendered, variant
from deploy.helm.tools import helm, schemas


@cache
def registry() -> Registry[Any]:
    """The definitions that every schema of Kubernetes refers to."""
    definitions = Resource.from_contents(json.loads((schemas() / "_definitions.json").read_text()), DRAFT7)
    return Registry().with_resources([("_definitions.json", definitions), ("", definitions)])


@cache
def validator(api_version: str, kind: str) -> jsonschema.Draft7Validator:
    """Of one kind of resource: of Kubernetes, or one that custom_resources.py knows."""
    known = schema_of(api_version, kind)
    if known is not None:
        return jsonschema.Draft7Validator(known)
    group, _, version = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.partition(".")[0], version) if part)
    return jsonschema.Draft7Validator(json.loads((schemas() / f"{name}.json").read_text()), registry=registry())


def mistakes(objects: tuple[Object, ...]) -> list[str]:
    """Where objects are not what Kubernetes takes."""
    return [
        f"{one['kind']}/{one['metadata']['name']}: {error.json_path}: {error.message}"
        for one in objects
        for error in validator(one["apiVersion"], one["kind"]).iter_errors(one)
    ]


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_rendered_is_valid(name: str) -> None:
    objects = variant(name)
    assert len(objects) > 20
    assert mistakes(objects) == []
    assert len({(one["kind"], one["metadata"]["name"]) for one in objects}) == len(objects)


def test_a_field_that_kubernetes_does_not_know_is_seen() -> None:
    (first, *_) = of_kind(variant("umbrella"), "Deployment")
    spec = first["spec"] | {"replica": 3}
    assert mistakes(({**first, "spec": spec},)) != []


@pytest.mark.parametrize("chart", [one for one in CHARTS if one not in ("closeflow", "broker-simulator")])
def test_each_chart_is_one_of_its_own(chart: str) -> None:
    issuer = ("auth.issuer=https://issuer.example",) if chart == "close-api" else ()
    assert mistakes(rendered(chart, VALUES / "service.yaml", sets=issuer)) == []


@pytest.mark.parametrize("name", VARIANTS)
def test_the_umbrella_passes_the_linter(name: str) -> None:
    command = [helm(), "lint", "--strict", "--with-subcharts", str(HELM / "closeflow"), "-f", str(VARIANTS[name])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    # Alone, without values, a chart lacks what only the umbrella knows; that is a message of its own (see below).
    assert "[ERROR]" not in done.stdout.partition("==> Linting")[2].partition("==> Linting")[0], done.stdout


def test_what_is_written_twice_is_the_same() -> None:
    done = subprocess.run(
        [sys.executable, str(HELM / "generate.py"), "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("", 0), f"{done.stdout}{done.stderr}run `make charts`"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("order-submitter.replica=3", "replica"),
        ("order-submitter.ratePerSecond=0", "ratePerSecond"),
        ("broker-gateway.replicas=3", "replicas"),
        ("close-api.settings.batch_size=3", "batch_size"),
        ("close-api.drain.deadlineSeconds=30", "deadlineSeconds"),
        ("global.kafka.securityProtocol=SASL_PLAINTEXT", "securityProtocol"),
        ("trial.postgres.images=x", "images"),
        ("parts.board=true", "board"),
    ],
)
def test_values_that_make_no_sense_are_refused(wrong: str, said: str) -> None:
    with pytest.raises(DoesNotRender, match=said):
        variant("umbrella", wrong)


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("global.postgres.host=", "global.postgres.host: give the name"),
        ("global.kafka.bootstrapServers=", "global.kafka.bootstrapServers: give host:port"),
        ("global.broker.accountId=", "global.broker.accountId: give"),
        ("close-api.auth.issuer=", "auth.issuer: give"),
        ("global.connect.url=", "global.connect.url: give"),
    ],
)
def test_what_is_missing_is_named(missing: str, said: str) -> None:
    with pytest.raises(DoesNotRender, match=said):
        variant("umbrella", missing)


@pytest.mark.parametrize("chart", CHARTS)
def test_every_chart_has_notes_and_a_schema_without_gaps(chart: str) -> None:
    assert (HELM / chart / "templates" / "NOTES.txt").read_text().strip()
    schema = json.loads((HELM / chart / "values.schema.json").read_text())
    assert schema["additionalProperties"] is False
    values = yaml.safe_load((HELM / chart / "values.yaml").read_text())
    assert set(values) <= set(schema["properties"])


def test_versions_are_one() -> None:
    """Of the charts, of what they depend on, and of the application's packages."""
    facts = [yaml.safe_load(path.read_text()) for path in Path(HELM).glob("*/Chart.yaml")]
    wanted = {one["version"] for one in facts} | {one["appVersion"] for one in facts if "appVersion" in one}
    wanted |= {part["version"] for one in facts for part in one.get("dependencies", [])}
    package = (HELM.parents[1] / "libs/closeflow/pyproject.toml").read_text()
    assert [f'version = "{version}"' in package for version in wanted] == [True]


# Golden files: what one service with every flag on, and the list of a trial's objects, are to look like.

GOLDEN: Final = Path(__file__).parent / "golden"


def golden(name: str, found: str) -> None:
    """Compare with the file; CHARTS_GOLDEN=write takes what is found for what is wanted."""
    path = GOLDEN / name
    if os.environ.get("CHARTS_GOLDEN") == "write":
        path.write_text(found)
    assert found == path.read_text(), (
        f"{name} differs: look at the difference, then CHARTS_GOLDEN=write make check-charts"
    )


def test_a_service_with_everything_on_looks_as_before() -> None:
    mine = [
        one
        for one in variant("everything")
        if one["metadata"].get("labels", {}).get("app.kubernetes.io/name") == "order-submitter"
    ]
    ordered = sorted(mine, key=lambda one: (one["kind"], one["metadata"]["name"]))
    golden("order-submitter.yaml", yaml.safe_dump_all(ordered, sort_keys=True, width=120))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_objects_of_a_release_are_as_before(name: str) -> None:
    found = sorted(f"{one['kind']} {one['metadata']['name']}" for one in variant(name))
    golden(f"{name}-objects.txt", "\n".join(found) + "\n")
