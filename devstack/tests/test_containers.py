"""The servers as containers, as far as that is known without a Docker engine. The rest is `make test-containers`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from devstack import properties
from devstack.container_parts import connect_environment
from devstack.parts import WORKER_PROPERTIES


def run(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_a_docker_engine_it_says_so_in_one_line() -> None:
    ended = run("-m", "tests.containers", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert ended.returncode == 2
    assert ended.stderr.startswith("test-containers: no Docker engine answers (")
    assert len(ended.stderr.splitlines()) == 1


def test_an_unknown_provider_is_one_line() -> None:
    ended = run("-c", "import devstack", DEVSTACK_PROVIDER="podman")
    assert (ended.returncode, ended.stderr) == (2, "DEVSTACK_PROVIDER is 'podman': it is one of embedded, containers\n")


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("key.converter", "KEY_CONVERTER"),
        ("config.storage.topic", "CONFIG_STORAGE_TOPIC"),
        ("offset.flush.interval.ms", "OFFSET_FLUSH_INTERVAL_MS"),
        ("config.storage.replication.factor", "CONNECT_CONFIG_STORAGE_REPLICATION_FACTOR"),
        ("config.providers.file.class", "CONNECT_CONFIG_PROVIDERS_FILE_CLASS"),
    ],
)
def test_a_setting_of_the_worker_is_given_as_the_image_reads_it(name: str, variable: str) -> None:
    settings = properties.read(WORKER_PROPERTIES)
    assert connect_environment(settings)[variable] == settings[name]
    assert len(connect_environment(settings)) == len(settings)
