"""Each import contract fails on a violation planted in a copy of the sources, and only then."""

from __future__ import annotations

import os
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from .repository import REPOSITORY, TOOLS, Finished, run

SOURCE_ROOTS: Final = tuple(
    sorted(
        path.relative_to(REPOSITORY)
        for pattern in ("libs/*/src", "services/*/src", "closectl/src", "devstack/src", "demo/src", "clients/*/src")
        for path in REPOSITORY.glob(pattern)
    )
)
DOMAIN: Final = "libs/closeflow/src/closeflow/domain"
CLOSEFLOW: Final = "libs/closeflow/src/closeflow"
CONTRACTS: Final[dict[str, dict[str, Any]]] = {
    one["id"]: one
    for one in tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}


@dataclass(frozen=True)
class Plant:
    """A file that breaks `contract`; `blamed` must be named in the complaint."""

    contract: str
    file: str
    text: str
    blamed: str


PLANTS: Final = (
    Plant(
        "services",
        "services/fill-processor/src/fill_processor/planted.py",
        "import order_submitter.plan_orders",
        "fill_processor.planted -> order_submitter.plan_orders",
    ),
    Plant("services", f"{CLOSEFLOW}/storage/planted.py", "import devstack", "closeflow.storage.planted -> devstack"),
    Plant("services", "devstack/src/devstack/planted.py", "import demo.system", "devstack.planted -> demo.system"),
    Plant(
        "closeflow-layers",
        f"{CLOSEFLOW}/contracts/planted.py",
        "import closeflow.kafka",
        "closeflow.contracts.planted -> closeflow.kafka",
    ),
    Plant(
        "closeflow-layers",
        f"{CLOSEFLOW}/storage/planted.py",
        "import closeflow.kafka",
        "closeflow.storage.planted -> closeflow.kafka",
    ),
    Plant(
        "closeflow-layers",
        f"{CLOSEFLOW}/telemetry/planted.py",
        "import closeflow.domain.ids",
        "closeflow.telemetry.planted -> closeflow.domain.ids",
    ),
    Plant(
        "closeflow-layers",
        f"{CLOSEFLOW}/kafka/planted.py",
        "import closeflow.operating.closes",
        "closeflow.kafka.planted -> closeflow.operating.closes",
    ),
    Plant("closeflow-layers", f"{CLOSEFLOW}/utils/__init__.py", "", "closeflow.utils"),
    Plant(
        "domain-layers",
        f"{DOMAIN}/orders/planted.py",
        "import closeflow.domain.position.freeze",
        "closeflow.domain.orders.planted -> closeflow.domain.position.freeze",
    ),
    Plant(
        "domain-layers",
        f"{DOMAIN}/sending/planted.py",
        "import closeflow.domain.close.plan_order",
        "closeflow.domain.sending.planted -> closeflow.domain.close.plan_order",
    ),
    Plant("domain-layers", f"{DOMAIN}/helpers/__init__.py", "", "closeflow.domain.helpers"),
    Plant(
        "storage-decides-nothing",
        f"{CLOSEFLOW}/storage/planted.py",
        "import closeflow.domain.close.outcome",
        "closeflow.storage.planted -> closeflow.domain.close.outcome",
    ),
    Plant(
        "one-writer-of-books",
        "services/reconciler/src/reconciler/planted.py",
        "import closeflow.storage.book.save",
        "reconciler.planted -> closeflow.storage.book.save",
    ),
    Plant("domain-pure", f"{DOMAIN}/planted.py", "import asyncio", "closeflow.domain.planted -> asyncio"),
    Plant("domain-pure", f"{DOMAIN}/planted.py", "import time", "closeflow.domain.planted -> time"),
    Plant("domain-pure", f"{DOMAIN}/planted.py", "import pydantic", "closeflow.domain.planted -> pydantic"),
    Plant(
        "sql-in-storage",
        "services/reconciler/src/reconciler/planted.py",
        "from sqlalchemy import text",
        "reconciler.planted -> sqlalchemy",
    ),
    Plant(
        "sql-in-storage", f"{CLOSEFLOW}/kafka/planted.py", "import psycopg.sql", "closeflow.kafka.planted -> psycopg"
    ),
    Plant(
        "kafka-client",
        "services/fill-processor/src/fill_processor/planted.py",
        "from aiokafka.errors import KafkaError",
        "fill_processor.planted -> aiokafka",
    ),
    Plant(
        "opentelemetry",
        "services/fill-processor/src/fill_processor/planted.py",
        "from opentelemetry.trace import SpanContext",
        "fill_processor.planted -> opentelemetry",
    ),
    Plant(
        "opentelemetry",
        f"{CLOSEFLOW}/telemetry/planted.py",
        "import opentelemetry.sdk.trace",
        "closeflow.telemetry.planted -> opentelemetry",
    ),
    Plant(
        "kafka-administrator",
        "closectl/src/closectl/planted.py",
        "from confluent_kafka.admin import AdminClient",
        "closectl.planted -> confluent_kafka",
    ),
    Plant(
        "faust-in-close-board",
        "services/fill-processor/src/fill_processor/planted.py",
        "import faust",
        "fill_processor.planted -> faust",
    ),
    Plant(
        "client",
        "clients/python/src/closeflow_client/planted.py",
        "from closeflow.domain.enums import OrderType",
        "closeflow_client.planted -> closeflow.domain.enums",
    ),
    Plant(
        "client",
        "clients/python/src/closeflow_client/planted.py",
        "from close_api.errors import Code",
        "closeflow_client.planted -> close_api.errors",
    ),
    Plant(
        "servers",
        "services/order-submitter/src/order_submitter/planted.py",
        "from fastapi import FastAPI",
        "order_submitter.planted -> fastapi",
    ),
    Plant(
        "metrics",
        "services/reconciler/src/reconciler/planted.py",
        "from prometheus_client import Gauge",
        "reconciler.planted -> prometheus_client",
    ),
    Plant(
        "grpc", "services/reconciler/src/reconciler/planted.py", "from grpc import aio", "reconciler.planted -> grpc"
    ),
    Plant(
        "broker",
        "services/close-api/src/close_api/planted.py",
        "from closeflow.broker.alpaca import AlpacaBroker",
        "close_api.planted -> closeflow.broker.alpaca",
    ),
    Plant(
        "broker",
        f"{CLOSEFLOW}/operating/planted.py",
        "from closeflow.broker.protocol import Broker",
        "closeflow.operating.planted -> closeflow.broker.protocol",
    ),
    Plant(
        "adapters",
        "services/broker-gateway/src/broker_gateway/planted.py",
        "from closeflow.broker.alpaca.stream import trade_updates",
        "broker_gateway.planted -> closeflow.broker.alpaca.stream",
    ),
    Plant(
        "settings",
        "services/close-api/src/close_api/planted.py",
        "from close_api.settings import Settings",
        "close_api.planted -> close_api.settings",
    ),
    Plant(
        "settings",
        "services/close-api/src/close_api/planted.py",
        "from closeflow.settings import load",
        "close_api.planted -> closeflow.settings",
    ),
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The sources and the contracts, without what git ignores."""
    copied = tmp_path_factory.mktemp("copy")
    for root in SOURCE_ROOTS:
        shutil.copytree(REPOSITORY / root, copied / root, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", copied)
    yield copied
    shutil.rmtree(copied)


def lint_imports(root: Path, *words: str) -> Finished:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(root / source) for source in SOURCE_ROOTS)}
    return run(TOOLS / "lint-imports", "--no-cache", "--no-logo", *words, cwd=root, env=env)


def test_every_contract_has_a_plant() -> None:
    assert CONTRACTS.keys() == {plant.contract for plant in PLANTS}


def test_every_adapter_of_a_broker_is_protected() -> None:
    adapters = {f"closeflow.broker.{one.parent.name}" for one in (REPOSITORY / CLOSEFLOW).glob("broker/*/__init__.py")}
    assert adapters == set(CONTRACTS["adapters"]["protected_modules"])


def test_the_sources_keep_every_contract(copy: Path) -> None:
    linted = lint_imports(copy)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: f"{plant.contract}: {plant.blamed}")
def test_a_planted_violation_breaks_its_contract(copy: Path, plant: Plant) -> None:
    planted = copy / plant.file
    made = not planted.parent.exists()
    planted.parent.mkdir(exist_ok=True)
    planted.write_text(f"{plant.text}\n")
    try:
        linted = lint_imports(copy, "--contract", plant.contract)
    finally:
        shutil.rmtree(planted.parent) if made else planted.unlink()
    assert linted.returncode == 1
    assert "0 kept, 1 broken" in linted.stdout
    assert plant.blamed in linted.stdout
