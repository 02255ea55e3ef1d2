"""Settings of secured links that do not fit each other stop the start with one line that says how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydantic_settings import SettingsConfigDict

from closeflow.settings import BadSetting, BrokerSettings, KafkaSettings, PostgresSettings, read


class Settings(PostgresSettings, KafkaSettings, BrokerSettings):
    """Every group of settings that a service may have."""

    model_config = SettingsConfigDict(env_prefix="DEMO_")


GOOD: Final = {
    "POSTGRES_DSN": "postgresql://demo@127.0.0.1/closeflow",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
    "BROKER_URL": "https://127.0.0.1:8100",
    "BROKER_KEY_ID": "key",
    "BROKER_SECRET_KEY": "hunter2",
}


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files of one authority, which is its own only client, and what is none."""

    ca: str
    key: str
    locked_key: str
    other_key: str
    nonsense: str


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder, key = tmp_path_factory.mktemp("pem"), ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "one")]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    pkcs8 = PrivateFormat.PKCS8
    other = ec.generate_private_key(ec.SECP256R1())
    texts = {
        "ca": made.public_bytes(Encoding.PEM),
        "key": key.private_bytes(Encoding.PEM, pkcs8, NoEncryption()),
        "locked_key": key.private_bytes(Encoding.PEM, pkcs8, BestAvailableEncryption(b"hunter2")),
        "other_key": other.private_bytes(Encoding.PEM, pkcs8, NoEncryption()),
        "nonsense": b"hunter2\n",
    }
    for each, text in texts.items():
        (folder / each).write_bytes(text)
    return Files(**{each: str(folder / each) for each in texts})


def settings(**changes: str) -> Settings:
    given = {name: value for name, value in {**GOOD, **changes}.items() if value}
    return read(Settings, {f"DEMO_{name}": value for name, value in given.items()})


def refused(**changes: str) -> str:
    with pytest.raises(BadSetting) as told:
        settings(**changes)
    assert "\n" not in str(told.value)
    assert "hunter2" not in str(told.value)
    return str(told.value)


SCRAM: Final = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_USERNAME": "demo", "KAFKA_PASSWORD": "hunter2"}


def test_a_password_is_put_into_a_dsn_that_has_none(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p@ss/w?rd\n")
    found = settings(POSTGRES_PASSWORD_FILE=str(file))
    assert found.dsn == "postgresql://demo:p%40ss%2Fw%3Frd@127.0.0.1/closeflow"
    assert "p@ss" not in repr(found)
    assert settings().dsn == GOOD["POSTGRES_DSN"]


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("postgresql://demo:other@127.0.0.1/x", "has a password in it, and one is given beside it"),
        ("postgresql://demo@127.0.0.1/x?password=other", "has a password in it"),
        ("postgresql://127.0.0.1/x", "must name the role whose password is given"),
    ],
)
def test_a_password_that_does_not_fit_its_dsn_is_refused(dsn: str, words: str) -> None:
    assert refused(POSTGRES_DSN=dsn, POSTGRES_PASSWORD="hunter2").startswith(f"DEMO_POSTGRES_DSN: {words}")
    assert refused(POSTGRES_PASSWORD_FILE="/none").startswith("DEMO_POSTGRES_PASSWORD_FILE: /none cannot be read")


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://demo@db.example/x",
        "postgresql://demo@db.example/x?sslmode=require",
        "postgresql://demo@127.0.0.1/x?host=db.example",
        "postgresql://demo@127.0.0.1/x?host=127.0.0.1,db.example",
        "postgresql://demo@localhost/x?hostaddr=10.0.0.1",
        "postgresql:///x?service=far",
        "postgresql://demo@db.example/x?application_name=@127.0.0.1",
    ],
)
def test_a_database_elsewhere_must_be_verified(dsn: str) -> None:
    told = refused(POSTGRES_DSN=dsn)
    assert "is not on this machine, and without sslmode=verify-full nobody would know who answers there" in told
    assert "DEMO_ALLOW_PLAINTEXT=true" in told
    assert settings(POSTGRES_DSN=dsn, ALLOW_PLAINTEXT="true").dsn == dsn


def test_the_authority_of_a_database_is_a_file_that_can_be_read(files: Files) -> None:
    secure = "postgresql://demo@db.example/x?sslmode=verify-full"
    assert settings(POSTGRES_DSN=f"{secure}&sslrootcert={files.ca}")
    assert settings(POSTGRES_DSN=f"{secure}&sslrootcert=system")
    assert "without sslrootcert" in refused(POSTGRES_DSN=secure)
    assert "sslrootcert=/none cannot be read" in refused(POSTGRES_DSN=f"{secure}&sslrootcert=/none")


def test_a_user_and_a_password_go_with_scram(files: Files) -> None:
    kafka = settings(**SCRAM, KAFKA_CA_PATH=files.ca).kafka
    options = kafka.options()
    assert (options["sasl_mechanism"], options["sasl_plain_username"], options["sasl_plain_password"]) == (
        "SCRAM-SHA-512",
        "demo",
        "hunter2",
    )
    assert options["ssl_context"] is not None
    assert "hunter2" not in repr(kafka)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (SCRAM | {"KAFKA_USERNAME": ""}, "DEMO_KAFKA_USERNAME: give it, because DEMO_KAFKA_SECURITY_PROTOCOL is SASL"),
        (SCRAM | {"KAFKA_PASSWORD": ""}, "DEMO_KAFKA_PASSWORD: give it, because DEMO_KAFKA_SECURITY_PROTOCOL is SASL"),
        (SCRAM | {"KAFKA_SECURITY_PROTOCOL": "SSL"}, "DEMO_KAFKA_USERNAME: it belongs to"),
        (SCRAM | {"KAFKA_SECURITY_PROTOCOL": ""}, "DEMO_KAFKA_USERNAME: it belongs to"),
        (SCRAM | {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}, "DEMO_KAFKA_SECURITY_PROTOCOL is wrong"),
        (SCRAM | {"KAFKA_CERTIFICATE_PATH": "ca", "KAFKA_KEY_PATH": "key"}, "DEMO_KAFKA_CERTIFICATE_PATH: it belongs"),
        ({"KAFKA_CA_PATH": "ca"}, "DEMO_KAFKA_CA_PATH: it belongs to DEMO_KAFKA_SECURITY_PROTOCOL=SSL or SASL_SSL"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_CERTIFICATE_PATH": "ca"}, "DEMO_KAFKA_KEY_PATH: give it too"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_KEY_PATH": "key"}, "DEMO_KAFKA_CERTIFICATE_PATH: give it too"),
        (
            {"BROKER_URL": "http://127.0.0.1:1", "BROKER_CA_PATH": "ca"},
            "DEMO_BROKER_CA_PATH: http://127.0.0.1:1 has",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(files: Files, changes: dict[str, str], told: str) -> None:
    assert refused(**{name: getattr(files, value, value) for name, value in changes.items()}).startswith(told)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"KAFKA_CA_PATH": "/none"}, "DEMO_KAFKA_CA_PATH: /none is no readable PEM file"),
        ({"KAFKA_CA_PATH": "nonsense"}, "DEMO_KAFKA_CA_PATH: "),
        ({"KAFKA_CERTIFICATE_PATH": "/none", "KAFKA_KEY_PATH": "key"}, "DEMO_KAFKA_CERTIFICATE_PATH: /none cannot be"),
        ({"KAFKA_CERTIFICATE_PATH": "ca", "KAFKA_KEY_PATH": "other_key"}, "DEMO_KAFKA_CERTIFICATE_PATH: "),
        ({"KAFKA_CERTIFICATE_PATH": "ca", "KAFKA_KEY_PATH": "locked_key"}, "DEMO_KAFKA_CERTIFICATE_PATH: "),
        ({"BROKER_CA_PATH": "/none"}, "DEMO_BROKER_CA_PATH: /none is no readable PEM file"),
        ({"BROKER_CA_PATH": "key"}, "DEMO_BROKER_CA_PATH: "),
    ],
)
def test_files_that_cannot_be_used_are_refused(files: Files, changes: dict[str, str], told: str) -> None:
    given = {name: getattr(files, value, value) for name, value in changes.items()}
    assert refused(KAFKA_SECURITY_PROTOCOL="SSL", **given).startswith(told)


def test_a_certificate_of_our_own_is_shown(files: Files) -> None:
    found = settings(KAFKA_SECURITY_PROTOCOL="SSL", KAFKA_CERTIFICATE_PATH=files.ca, KAFKA_KEY_PATH=files.key)
    assert found.kafka.options()["ssl_context"] is not None
