"""A setting that cannot work stops the start with one line that names the variable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from closeflow.settings import (
    BadSetting,
    BrokerSettings,
    KafkaSettings,
    PostgresSettings,
    is_loopback,
    load,
    read,
)


class Settings(PostgresSettings, KafkaSettings, BrokerSettings):
    """Every group of settings that a service may have."""

    model_config = SettingsConfigDict(env_prefix="DEMO_SERVICE_")

    lease_s: Annotated[float, Field(gt=0)] = 30.0


GOOD = {
    "DEMO_SERVICE_POSTGRES_DSN": "postgresql://demo@127.0.0.1/closeflow",
    "DEMO_SERVICE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092,localhost:9093",
    "DEMO_SERVICE_BROKER_URL": "http://127.0.0.1:8100/",
    "DEMO_SERVICE_BROKER_KEY_ID": "key",
    "DEMO_SERVICE_BROKER_SECRET_KEY": "hunter2",
    "PATH": "/bin",
    "OTHER_SERVICE_LEASE_S": "0",
}


def _refused(**changes: str | None) -> str:
    environ = {**GOOD, **{f"DEMO_SERVICE_{name}": value for name, value in changes.items() if value is not None}}
    for name in (name for name, value in changes.items() if value is None):
        del environ[f"DEMO_SERVICE_{name}"]
    with pytest.raises(BadSetting) as refused:
        read(Settings, environ)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_settings_are_read_from_the_environment_and_frozen() -> None:
    settings = read(Settings, {**GOOD, "DEMO_SERVICE_LEASE_S": "12.5"})
    assert settings.lease_s == 12.5
    assert settings.broker_url == "http://127.0.0.1:8100"
    assert settings.kafka.bootstrap_servers == "127.0.0.1:9092,localhost:9093"
    assert "hunter2" not in repr(settings)
    with pytest.raises(ValidationError):
        settings.lease_s = 1.0  # type: ignore[misc]


def test_a_missing_setting_is_named_with_both_ways_to_give_it() -> None:
    assert _refused(POSTGRES_DSN=None) == (
        "DEMO_SERVICE_POSTGRES_DSN is not set; set it or DEMO_SERVICE_POSTGRES_DSN_FILE"
    )
    assert _refused(BROKER_URL=None) == "DEMO_SERVICE_BROKER_URL is not set; set it"


def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    told = _refused(LEASE_MS="5")
    assert told.startswith("DEMO_SERVICE_LEASE_MS is not a setting of this service; known are ")
    assert "DEMO_SERVICE_LEASE_S" in told


def test_an_impossible_value_is_refused() -> None:
    assert _refused(LEASE_S="0") == "DEMO_SERVICE_LEASE_S is wrong: input should be greater than 0"
    assert _refused(BROKER_URL="broker:8100").startswith("DEMO_SERVICE_BROKER_URL is wrong: must be a URL")
    assert _refused(KAFKA_BOOTSTRAP_SERVERS="kafka").startswith("DEMO_SERVICE_KAFKA_BOOTSTRAP_SERVERS is wrong")
    assert _refused(LOG_FORMAT="xml").startswith("DEMO_SERVICE_LOG_FORMAT is wrong")


def test_plaintext_leaves_this_machine_only_when_allowed() -> None:
    far = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092,kafka.example:9092"}
    assert _refused(**far).startswith("DEMO_SERVICE_KAFKA_BOOTSTRAP_SERVERS: kafka.example:9092 is not on this machine")
    told = _refused(BROKER_URL="http://broker.example")
    assert told.startswith("DEMO_SERVICE_BROKER_URL: http://broker.example is not encrypted and not on this machine")
    assert "DEMO_SERVICE_ALLOW_PLAINTEXT=true" in told
    environ = {**GOOD, "DEMO_SERVICE_KAFKA_BOOTSTRAP_SERVERS": "kafka.example:9092"}
    assert read(Settings, {**environ, "DEMO_SERVICE_ALLOW_PLAINTEXT": "true"}).kafka.security_protocol == "PLAINTEXT"
    secure = read(Settings, {**environ, "DEMO_SERVICE_KAFKA_SECURITY_PROTOCOL": "SSL"}).kafka
    assert secure.options()["ssl_context"] is not None


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_text("postgresql://127.0.0.1/from-file\n")
    environ = {name: value for name, value in GOOD.items() if name != "DEMO_SERVICE_POSTGRES_DSN"}
    settings = read(Settings, {**environ, "DEMO_SERVICE_POSTGRES_DSN_FILE": str(file)})
    assert settings.postgres_dsn.get_secret_value() == "postgresql://127.0.0.1/from-file"
    assert "are both set" in _refused(POSTGRES_DSN_FILE=str(file))
    assert "cannot be read" in _refused(POSTGRES_DSN=None, POSTGRES_DSN_FILE=str(tmp_path / "none"))
    assert "is not a setting" in _refused(BROKER_URL=None, BROKER_URL_FILE=str(file))


def test_load_prints_one_line_and_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load(Settings, {})
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("[::1]", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("db", False),
    ],
)
def test_loopback_is_recognised(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("POSTGRES_DSN", "", "must be a DSN such as postgresql://user:password@host:5432/database"),
        ("POSTGRES_DSN", "not a dsn", "must be a DSN such as postgresql://user:password@host:5432/database"),
        ("POSTGRES_DSN", "mysql://me@127.0.0.1/x", "must be a DSN such as"),
        ("POSTGRES_DSN", "postgresql://me:hunter2@127.0.0.1:port/x", "must have a port from 1 to 65535"),
        ("POSTGRES_DSN", "postgresql://me:hunter2@127.0.0.1:99999/x", "must have a port from 1 to 65535"),
        ("POSTGRES_DSN", f"postgresql://me:hunter2@{'x' * 80}/x", "must have the name or the address of a host"),
        ("POSTGRES_DSN", "postgresql://me:hunter\udcff@127.0.0.1/x", "it is not UTF-8"),
        ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:99999999", "127.0.0.1:99999999 must have a port from 1 to 65535"),
        ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1,127.0.0.1:0", "127.0.0.1:0 must have a port from 1 to 65535"),
        ("BROKER_URL", "http://127.0.0.1:99999", "must have a port from 1 to 65535"),
        ("BROKER_URL", "http://[::1", "must have the name or the address of a host"),
    ],
)
def test_an_address_that_cannot_be_is_refused_without_its_password(name: str, value: str, told: str) -> None:
    refused = _refused(**{name: value})
    assert refused.startswith(f"DEMO_SERVICE_{name} is wrong: {told}")
    assert "hunter" not in refused


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://localhost",
        "postgresql:///closeflow?host=/run/postgresql",
        "postgresql+psycopg://me:p%40s#s/w?rd@127.0.0.1:5432/closeflow",
        "postgresql://me@[::1]:5432/closeflow",
    ],
)
def test_a_dsn_may_be_written_as_the_driver_reads_it(dsn: str) -> None:
    assert read(Settings, {**GOOD, "DEMO_SERVICE_POSTGRES_DSN": dsn}).postgres_dsn.get_secret_value() == dsn
