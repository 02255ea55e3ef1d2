"""The simulator over TLS: what it serves, what it refuses to start with, and that it stops beside a closing stream."""

import base64
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from broker_simulator.process import SimulatorProcess
from broker_simulator.settings import PREFIX
from closectl.secrets_directory import SecretsDirectory


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    SecretsDirectory(directory, datetime.now(UTC)).complete()
    return directory


@pytest.fixture
def simulator(tmp_path: Path, secrets: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Its process, and its port once it answers over https."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    folder = secrets / "broker-simulator"
    settings = {"PORT": str(port), "STATE_PATH": str(tmp_path / "state")}
    settings |= {"TLS_CERTIFICATE_PATH": str(folder / "tls.pem"), "TLS_KEY_PATH": str(folder / "tls.key")}
    environment = os.environ | {f"{PREFIX}{name}": value for name, value in settings.items()}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "broker_simulator"], env=environment, stdout=log, stderr=log)
    made = SimulatorProcess(tmp_path, port=port)
    try:
        while process.poll() is None and not is_up(port, secrets):
            pass
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield process, made.port
    finally:
        process.kill()
        process.wait()


def is_up(port: int, secrets: Path) -> bool:
    try:
        return httpx.get(f"https://127.0.0.1:{port}/healthz", verify=context(secrets)).is_success
    except httpx.TransportError:
        return False


def context(secrets: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=secrets / "ca.pem")


def test_rest_and_stream_are_served_over_tls_and_not_without(
    simulator: tuple[subprocess.Popen[bytes], int], secrets: Path
) -> None:
    _, port = simulator
    with connect(f"wss://127.0.0.1:{port}/stream", ssl=context(secrets)) as stream:
        stream.send('{"action":"auth","key":"simulator","secret":"simulator-secret"}')
        assert b"authorized" in bytes(stream.recv(decode=False))
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/healthz")


def test_it_stops_in_order_beside_a_stream_whose_end_its_client_does_not_wait_for(
    simulator: tuple[subprocess.Popen[bytes], int], secrets: Path
) -> None:
    process, port = simulator
    key = base64.b64encode(os.urandom(16)).decode()
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context(secrets).wrap_socket(plain, server_hostname="127.0.0.1") as stream,
    ):
        stream.sendall(
            f"GET /stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert b"101" in stream.recv(4096)
        stream.sendall(bytes([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8]))  # Close 1000, with a mask of zeros.
        assert stream.recv(4096)[0] == 0x88
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"TLS_KEY_PATH": "/none"}, "go together: set both, or none"),
        ({"TLS_CERTIFICATE_PATH": "/none", "TLS_KEY_PATH": "/none"}, "/none, /none: "),
    ],
)
def test_files_that_cannot_serve_stop_the_start_with_one_line(tmp_path: Path, given: dict[str, str], told: str) -> None:
    environment = os.environ | {f"{PREFIX}{name}": value for name, value in given.items()}
    command = [sys.executable, "-m", "broker_simulator", "--port", "0", "--state-path", str(tmp_path / "state")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, told in done.stderr.splitlines()[-1]) == (2, True), done.stderr
