"""The secrets of a system are made once; what is there stays, and what does not fit is said."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography import x509

from closectl.certificates import hosts_of
from tests.closectl.running import closectl


def made(directory: Path, *more: str) -> str:
    done = closectl("secrets", "make", "--directory", str(directory), *more)
    assert done.exit_code == 0, done
    return done.stdout


def refused(directory: Path, *more: str) -> str:
    done = closectl("secrets", "make", "--directory", str(directory), *more)
    assert (done.exit_code, done.stdout) == (2, ""), done
    return done.stderr.replace("\n", " ")


def files(directory: Path) -> dict[str, bytes]:
    return {str(one.relative_to(directory)): one.read_bytes() for one in directory.rglob("*") if one.is_file()}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("system") / "secrets"
    made(folder, "--host", "postgres=db.internal", "--host", "kafka=10.0.0.7")
    return folder


def test_everything_is_made_once_and_stays(directory: Path) -> None:
    before = files(directory)
    again = made(directory, "--host", "postgres=db.internal", "--host", "kafka=10.0.0.7")
    assert again == f"nothing is missing in {directory}\n"
    assert files(directory) == before
    passwords = {name: text for name, text in before.items() if name.startswith(("postgres/cl", "kafka/"))}
    secrets = [text for name, text in passwords.items() if "tls" not in name and "keystore" not in name]
    assert len(secrets) == len(set(secrets)) == 14


def test_only_what_is_public_can_be_read_by_others(directory: Path) -> None:
    for path in directory.rglob("*"):
        public = path.is_file() and path.name in ("ca.pem", "tls.pem", "jwks.json")
        assert bool(path.stat().st_mode & 0o077) is public, path


def test_what_was_removed_is_made_anew_and_nothing_else(tmp_path: Path) -> None:
    made(tmp_path)
    before = files(tmp_path)
    for name in ("kafka/order-submitter", "close-api/tls.pem", "close-api/keystore.pem"):
        (tmp_path / name).unlink()
    assert made(tmp_path).splitlines() == [
        "made close-api/tls.pem",
        "made close-api/keystore.pem",
        "made kafka/order-submitter",
    ]
    after = files(tmp_path)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"kafka/order-submitter", "close-api/tls.pem", "close-api/keystore.pem"}


def test_certificates_name_their_hosts_and_openssl_takes_them(directory: Path) -> None:
    certificate = x509.load_pem_x509_certificate((directory / "postgres/tls.pem").read_bytes())
    assert hosts_of(certificate) == ["localhost", "postgres", "db.internal", "127.0.0.1"]
    assert certificate.subject.rfc4514_string() == "CN=postgres"
    every = sorted(map(str, directory.glob("*/tls.pem")))
    assert len(every) == 8
    command = ["openssl", "verify", "-x509_strict", "-CAfile", str(directory / "ca.pem"), *every]
    subprocess.run(command, check=True, capture_output=True)


def test_a_server_and_a_client_of_it_meet(directory: Path) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=directory / "ca.pem")
    server.load_cert_chain(directory / "kafka/keystore.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=directory / "ca.pem")
    client.load_cert_chain(directory / "closectl/tls.pem", directory / "closectl/tls.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seen: list[object] = []

        def serve() -> None:
            plain, _ = listener.accept()
            with server.wrap_socket(plain, server_side=True) as secured:
                seen.append(secured.getpeercert())
                secured.sendall(b"hello")

        running = threading.Thread(target=serve)
        running.start()
        with (
            socket.create_connection(listener.getsockname()) as plain,
            client.wrap_socket(plain, server_hostname="kafka") as secured,
        ):
            assert secured.recv(10) == b"hello"
        running.join()
    assert "('commonName', 'closectl')" in str(seen)


def test_what_does_not_fit_is_said_and_nothing_is_changed(tmp_path: Path) -> None:
    made(tmp_path)
    assert "kafka/tls.pem is not good for k2; remove" in refused(tmp_path, "--host", "kafka=k2")
    (tmp_path / "connect/tls.pem").unlink()
    assert "connect/keystore.pem is not of the certificate beside it; remove it" in refused(tmp_path)
    (tmp_path / "connect/keystore.pem").unlink()
    assert "connect/keystore.p12 is not of tls.pem beside it; remove it" in refused(tmp_path)
    (tmp_path / "connect/keystore.p12").unlink()
    (tmp_path / "kafka/connect").unlink()
    assert "connect/worker.properties does not say what the passwords beside it are" in refused(tmp_path)
    (tmp_path / "ca.key").unlink()
    assert "ca.key is missing, and without it nothing can be signed" in refused(tmp_path)


def test_another_authoritys_certificate_is_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    made(first)
    made(second)
    for name in ("ca.pem", "ca.key"):
        (first / name).unlink()
        (second / name).rename(first / name)
    assert "postgres/tls.pem is not signed by" in refused(first)


def test_a_certificate_that_ends_soon_is_told(tmp_path: Path) -> None:
    told = made(tmp_path, "--days", "10")
    assert told.count("and new ones are made") == 8
    assert "nothing is missing" in made(tmp_path)


def test_files_may_be_given_to_numeric_users(tmp_path: Path) -> None:
    assert os.geteuid() == 0 or "cannot" in refused(tmp_path, "--owner", "1:1")
    if os.geteuid() == 0:
        made(tmp_path, "--owner", "10001:10001", "--owner", "postgres=999:998")
        owners = {str(p.relative_to(tmp_path)): (p.stat().st_uid, p.stat().st_gid) for p in tmp_path.rglob("*")}
        assert owners["postgres/tls.key"] == owners["postgres"] == (999, 998)
        assert owners["kafka/tls.key"] == owners["ca.pem"] == (10001, 10001)
        assert owners["ca.key"] == (0, 0)


@pytest.mark.parametrize(
    ("option", "value"), [("--host", "redis=x"), ("--host", "postgres"), ("--host", "kafka=a b"), ("--owner", "root")]
)
def test_an_option_that_cannot_be_is_refused(tmp_path: Path, option: str, value: str) -> None:
    assert "must be" in refused(tmp_path, option, value)
