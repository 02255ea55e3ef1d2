"""What an instance has that was made secure: TLS and logins on every link, with secrets of its own.

Its secrets lie in `<instance>/secrets`, as `closectl secrets make` makes them; Kafka's users and rights are made by
`closectl topics apply --acls`, before Connect is started, which is the first to need them.
"""

import http.client
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Final

from devstack.errors import StackError
from devstack.places import server_user

SECRETS: Final = "secrets"
_MAKE_WITHIN_SECONDS: Final = 300


def make_secrets(directory: Path) -> Path:
    """Complete the secrets of an instance; those that are there stay. Raises StackError."""
    secrets = directory / SECRETS
    command = (sys.executable, "-m", "closectl", "secrets", "make", "--directory", str(secrets))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_MAKE_WITHIN_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        late = f"the secrets of {directory} were not made within {_MAKE_WITHIN_SECONDS} s: try again"
        raise StackError(late) from None
    if done.returncode != 0:
        raise StackError(f"the secrets of {directory} are not complete: {done.stderr.strip()}")
    return secrets


def password_of(secrets: Path, name: str) -> str:
    """What the file says, without the line's end."""
    return (secrets / name).read_text().strip()


def dsn_options(secrets: Path | None) -> str:
    """What a DSN says of TLS, with its question mark; nothing where there is none."""
    return "" if secrets is None else f"?sslmode=verify-full&sslrootcert={secrets / 'ca.pem'}"


def postgres_settings(data: Path) -> dict[str, str]:
    """TLS with what `hand_to_postgres` puts into the data directory."""
    return {"ssl": "on", "ssl_cert_file": str(data / "tls.pem"), "ssl_key_file": str(data / "tls.key")}


def hand_to_postgres(secrets: Path, data: Path) -> None:
    """Copies of the certificate and its key that the server's user alone can read, as the server demands; made at each
    start, so that a new certificate counts from then on."""
    user = server_user()
    for name in ("tls.pem", "tls.key"):
        making = data / f"{name}.making"
        making.unlink(missing_ok=True)
        with open(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write((secrets / "postgres" / name).read_bytes())
        if user is not None:
            shutil.chown(making, user.pw_uid, user.pw_gid)
        making.replace(data / name)


def kafka_settings(secrets: Path, services: str, administrators: str, controller: str) -> dict[str, str]:
    """Three listeners: services log in with SCRAM; administrators and the broker itself show a certificate, to the
    controller too. Who has no right to something is refused it."""
    scram = "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config"
    return {
        "listeners": f"SASL_SSL://{services},SSL://{administrators},CONTROLLER://{controller}",
        "advertised.listeners": f"SASL_SSL://{services},SSL://{administrators}",
        "listener.security.protocol.map": "SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:SSL",
        "inter.broker.listener.name": "SSL",
        "listener.name.ssl.ssl.client.auth": "required",
        "listener.name.controller.ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(secrets / "kafka" / "keystore.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(secrets / "ca.pem"),
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        scram: "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": "User:CN=closectl;User:CN=kafka",
    }


def apply_access(secrets: Path, administrators: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """The command that makes Kafka's topics, users and rights, and its environment."""
    command = (sys.executable, "-m", "closectl", "topics", "apply", "--replication-factor", "1")
    environment = {
        "CLOSECTL_KAFKA_BOOTSTRAP_SERVERS": administrators,
        "CLOSECTL_KAFKA_SECURITY_PROTOCOL": "SSL",
        "CLOSECTL_KAFKA_CA_PATH": str(secrets / "ca.pem"),
        "CLOSECTL_KAFKA_CERTIFICATE_PATH": str(secrets / "closectl" / "tls.pem"),
        "CLOSECTL_KAFKA_KEY_PATH": str(secrets / "closectl" / "tls.key"),
    }
    return (*command, "--acls", "--secrets", str(secrets)), environment


def connect_settings(secrets: Path, address: str) -> dict[str, str]:
    """The worker and its connectors log in to Kafka as `connect`; its REST takes whoever shows a certificate. Secrets
    are references to a file, which the worker resolves."""
    file = f"${{file:{secrets / 'connect' / 'worker.properties'}:"
    kafka = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required "
        f'username="{file}username}}" password="{file}password}}";',
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(secrets / "ca.pem"),
    }
    rest = {
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(secrets / "connect" / "keystore.p12"),
        "ssl.keystore.password": f"{file}keystore.password}}",
        "ssl.key.password": f"{file}keystore.password}}",
        "ssl.truststore.type": "PKCS12",
        "ssl.truststore.location": str(secrets / "connect" / "truststore.p12"),
        "ssl.truststore.password": f"{file}keystore.password}}",
        "ssl.client.auth": "required",
    }
    everyone = {
        f"{who}{name}": value for who in ("", "producer.", "consumer.", "admin.") for name, value in kafka.items()
    }
    return {"listeners": f"https://{address}", **everyone, **{f"listeners.https.{k}": v for k, v in rest.items()}}


def connect_client(secrets: Path) -> ssl.SSLContext:
    """With the administrator's certificate."""
    context = ssl.create_default_context(cafile=secrets / "ca.pem")
    context.load_cert_chain(secrets / "closectl" / "tls.pem", secrets / "closectl" / "tls.key")
    return context


def connection_to(secrets: Path | None, port: int) -> http.client.HTTPConnection:
    """To Connect's REST interface, whichever way it has."""
    if secrets is None:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=connect_client(secrets))
