"""The rules that hold for the pods of every chart, whatever the values."""

from __future__ import annotations

from typing import Final

import pytest

from closeflow.run import STOP_DEADLINE_S
from deploy.helm.tests.rendering import (
    RELEASE,
    SERVICES,
    VARIANTS,
    DoesNotRender,
    Object,
    Pods,
    named,
    of_kind,
    pods,
    pods_of,
    rendered,
    variant,
)
from deploy.helm.tests.rendering import VALUES as FILES

WRITES_SECRETS: Final = f"Job/{RELEASE}-secrets"
EVERY: Final = [pytest.param(one, id=f"{name} {one.owner}") for name in VARIANTS for one in pods_of(variant(name))]


@pytest.mark.parametrize("one", EVERY)
def test_pods_pass_pod_security_restricted(one: Pods) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/ and a read-only root besides."""
    security, container = one.spec["securityContext"], one.container["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["allowPrivilegeEscalation"] is False
    assert container["privileged"] is False
    assert container["readOnlyRootFilesystem"] is True
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(one.spec)
    kinds = {kind for volume in one.spec["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"emptyDir", "secret", "configMap", "projected"}


@pytest.mark.parametrize("one", EVERY)
def test_pods_have_no_token_of_kubernetes(one: Pods) -> None:
    assert one.spec["automountServiceAccountToken"] is (one.owner == WRITES_SECRETS)
    assert one.spec["enableServiceLinks"] is False


@pytest.mark.parametrize("one", EVERY)
def test_pods_say_what_they_need(one: Pods) -> None:
    resources = one.container["resources"]
    assert {"cpu", "memory"} <= set(resources["requests"])
    assert set(resources["limits"]) == {"memory"}
    name, _, tag = one.container["image"].rpartition(":")
    assert name
    assert tag not in ("", "latest")


@pytest.mark.parametrize("one", EVERY)
def test_secrets_are_files(one: Pods) -> None:
    """Neither in the environment nor among the arguments; what is an id and no secret may be read from a Secret."""
    for variable in one.container.get("env", []):
        source = variable.get("valueFrom", {})
        assert "secretKeyRef" not in source or source["secretKeyRef"]["key"] == "broker-key-id"
    assert all("secretRef" not in one for one in one.container.get("envFrom", []))


def test_the_images_are_of_one_registry_and_tag() -> None:
    images = {one.container["image"] for one in pods_of(variant("everything"))}
    assert {image.rpartition(":")[2] for image in images} == {"1.2.3"}
    assert {image.partition("/")[0] for image in images} == {"registry.example"}
    digest = "sha256:" + "0" * 64
    pinned = pods(variant("umbrella", f"close-api.image.digest={digest}"), "close-api")
    assert pinned.container["image"] == f"closeflow/close-api@{digest}"


@pytest.fixture(params=[(name, service) for name in VARIANTS for service in SERVICES], ids=" ".join)
def service(request: pytest.FixtureRequest) -> tuple[tuple[Object, ...], str]:
    name, service = request.param
    return variant(name), service


def test_liveness_asks_no_other_system(service: tuple[tuple[Object, ...], str]) -> None:
    container = pods(*service).container
    asks = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}
    assert asks == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    startup, liveness = container["startupProbe"], container["livenessProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 60
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 60


def test_a_pod_may_end_in_its_own_time(service: tuple[tuple[Object, ...], str]) -> None:
    spec = pods(*service).spec
    sleep = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert sleep >= 1
    assert spec["terminationGracePeriodSeconds"] > sleep + STOP_DEADLINE_S


def test_pods_are_spread_and_one_at_a_time_is_taken(service: tuple[tuple[Object, ...], str]) -> None:
    objects, name = service
    spread = pods(objects, name).spec["topologySpreadConstraints"]
    labels = pods(objects, name).metadata["labels"]
    assert [one["topologyKey"] for one in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    budget = named(objects, "PodDisruptionBudget", name)["spec"]
    assert budget["maxUnavailable"] == 1
    for selector in (budget["selector"], *(one["labelSelector"] for one in spread)):
        assert selector["matchLabels"].items() <= labels.items()


def test_a_changed_setting_restarts_the_pods() -> None:
    def checksum(*sets: str) -> str:
        return str(pods(variant("umbrella", *sets), "fill-processor").metadata["annotations"]["checksum/config"])

    assert checksum() == checksum("close-api.replicas=5")
    assert checksum() != checksum("fill-processor.settings.BATCH_MAX_RECORDS=64")
    assert checksum() != checksum("global.postgres.host=elsewhere.example")


def test_a_rotated_secret_restarts_the_pods_when_told_to() -> None:
    before, after = (pods(variant("umbrella", *sets), "close-api") for sets in ((), ("close-api.secret.revision=2",)))
    assert before.metadata["annotations"] != after.metadata["annotations"]


# Network


@pytest.mark.parametrize("name", VARIANTS)
def test_no_pod_is_without_a_policy(name: str) -> None:
    objects = variant(name)
    policies = [one["spec"] for one in of_kind(objects, "NetworkPolicy")]
    assert all(set(one["policyTypes"]) == {"Ingress", "Egress"} for one in policies)
    for one in pods_of(objects):
        labels = one.metadata["labels"]
        mine = [rule for rule in policies if rule["podSelector"]["matchLabels"].items() <= labels.items()]
        assert mine, one.owner
        rules = [rule for policy in mine for rule in policy.get("egress", [])]
        assert rules, f"{one.owner} may go nowhere"
        assert all(rule.get("ports") for rule in rules), f"{one.owner} may go anywhere"


def test_a_service_reaches_what_it_uses_and_no_more() -> None:
    objects = variant("trial")
    wanted = {
        "close-api": {53, 5432},
        "order-submitter": {53, 5432, 9092, 8090},
        "broker-gateway": {53, 5432, 9092, 8090},
        "fill-processor": {53, 5432, 9092},
        "reconciler": {53, 5432, 9092, 8090, 8083},
        "close-board": {53, 9092, 8080},
        "closeflow-platform": {53, 5432, 9094, 8083},
        "kafka": {53},
        "postgres": {53},
        "connect": {53, 5432, 9092},
        "test": {53, 8080},
    }
    for name, ports in wanted.items():
        rules = named(objects, "NetworkPolicy", name)["spec"]["egress"]
        assert {port["port"] for rule in rules for port in rule["ports"]} == ports, name
        assert all(rule.get("to") for rule in rules), f"{name}: any place"


def test_callers_and_monitoring_come_in_where_they_may() -> None:
    policy = named(variant("everything"), "NetworkPolicy", "close-api")["spec"]["ingress"]
    by_ports = {tuple(sorted(port["port"] for port in rule["ports"])): rule["from"] for rule in policy}
    assert by_ports == {
        (8080, 9090): [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "portfolio"}}}],
        (8081,): [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
    }


# Scaling


def test_close_api_scales_by_cpu() -> None:
    objects = variant("everything")
    (scaler,) = of_kind(objects, "HorizontalPodAutoscaler")
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (3, 9)
    assert scaler["spec"]["scaleTargetRef"]["name"] == f"{RELEASE}-close-api"
    assert "replicas" not in named(objects, "Deployment", "close-api")["spec"]


def test_consumers_scale_by_their_lag_up_to_the_partitions() -> None:
    objects = variant("everything")
    scalers = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "ScaledObject")}
    assert {name: spec["maxReplicaCount"] for name, spec in scalers.items()} == {
        f"{RELEASE}-order-submitter": 4,
        f"{RELEASE}-fill-processor": 6,
    }
    for name, spec in scalers.items():
        (trigger,) = spec["triggers"]
        assert (trigger["metadata"]["allowIdleConsumers"], trigger["metadata"]["tls"]) == ("false", "enable")
        assert "replicas" not in named(objects, "Deployment", name.removeprefix(f"{RELEASE}-"))["spec"]


@pytest.mark.parametrize("service", ["order-submitter", "fill-processor"])
def test_more_consumers_than_partitions_are_refused(service: str) -> None:
    with pytest.raises(DoesNotRender, match="7 is more than the 6 partitions"):
        variant("everything", f"{service}.keda.maxReplicas=7")


def test_nothing_scales_what_has_one_writer() -> None:
    objects = variant("everything")
    scaled = {
        one["spec"]["scaleTargetRef"]["name"] for one in of_kind(objects, "ScaledObject", "HorizontalPodAutoscaler")
    }
    assert not scaled & {f"{RELEASE}-{name}" for name in ("broker-gateway", "reconciler", "broker-simulator")}
    for chart in ("broker-gateway", "reconciler"):
        with pytest.raises(DoesNotRender, match="keda"):
            rendered(chart, FILES / "service.yaml", sets=("keda.enabled=true",))


@pytest.mark.parametrize(
    ("sets", "rate"),
    [
        ((), 50),
        (("order-submitter.replicas=3", "order-submitter.ratePerSecond=120"), 40),
        (("order-submitter.keda.enabled=true", "order-submitter.keda.maxReplicas=5"), 20),
        (("order-submitter.replicas=0",), 100),
    ],
)
def test_the_rate_holds_for_all_replicas_together(sets: tuple[str, ...], rate: float) -> None:
    objects = variant("umbrella", *sets)
    settings = named(objects, "ConfigMap", "order-submitter")["data"]
    assert float(settings["ORDER_SUBMITTER_RATE_PER_S"]) == pytest.approx(rate)
    # While rolling there are no more of them.
    rolling = named(objects, "Deployment", "order-submitter")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 0, "maxUnavailable": 1}


def test_close_api_never_has_fewer_pods_while_rolling() -> None:
    rolling = named(variant("umbrella"), "Deployment", "close-api")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 1, "maxUnavailable": 0}


# Jobs


def hooks(objects: tuple[Object, ...]) -> dict[str, tuple[str, int]]:
    """By the name of a Job: when Helm runs it, and its place among the others."""
    notes = {one["metadata"]["name"]: one["metadata"].get("annotations", {}) for one in of_kind(objects, "Job")}
    return {
        name.removeprefix(f"{RELEASE}-"): (note.get("helm.sh/hook", ""), int(note.get("helm.sh/hook-weight", "0")))
        for name, note in notes.items()
    }


def test_the_jobs_run_before_the_services_one_after_the_other() -> None:
    before = "pre-install,pre-upgrade"
    assert hooks(variant("umbrella")) == {"migrate": (before, 10), "topics": (before, 20), "connector": (before, 30)}


def test_a_trial_runs_the_jobs_beside_what_they_need_and_before_an_upgrade() -> None:
    beside = {name: hook for name, (hook, _) in hooks(variant("trial")).items()}
    assert beside == {
        "secrets": "pre-install,pre-upgrade",
        "migrate": "",
        "topics": "",
        "connector": "",
        "positions": "",
    }
    later = {name: hook for name, (hook, _) in hooks(rendered("closeflow", VARIANTS["trial"], upgrade=True)).items()}
    assert later == {
        "secrets": "pre-install,pre-upgrade",
        "migrate": "pre-upgrade",
        "topics": "pre-upgrade",
        "connector": "pre-upgrade",
    }


def test_strimzi_takes_the_place_of_the_jobs() -> None:
    objects = variant("strimzi")
    assert set(hooks(objects)) == {"migrate"}
    (connector,) = of_kind(objects, "KafkaConnector")
    assert connector["spec"]["autoRestart"]["enabled"] is True
    assert connector["spec"]["config"]["slot.failover"] == "true"
    assert len(of_kind(objects, "KafkaTopic")) == 8
    users = {one["metadata"]["name"] for one in of_kind(objects, "KafkaUser")}
    assert users == {"order-submitter", "broker-gateway", "fill-processor", "reconciler", "close-board", "connect"}
