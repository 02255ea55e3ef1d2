"""Asks the service of this container whether it is well; the exit code is what a container's HEALTHCHECK wants.

It asks over the loopback address, where nobody else can answer, so a certificate is not verified. A server that wants
a client's certificate cannot be asked more than that: it is well if it says so. Only the standard library is imported,
because it runs every few seconds.
"""

import http.client
import os
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path

TIMEOUT_S = 3.0
SERVICE = Path(__file__).resolve().parents[1] / "service"


def place_of(service: str, environ: Mapping[str, str]) -> tuple[int, str, bool]:
    """Port, path and whether it is TLS, as the service's own settings have it."""
    prefix = service.upper().replace("-", "_")
    tls = bool(environ.get(f"{prefix}_TLS_CERTIFICATE_PATH"))
    match service:
        case "close-api":
            return int(environ.get(f"{prefix}_HTTP_PORT", "8080")), "/readyz", tls
        case "broker-simulator":
            return int(environ.get(f"{prefix}_PORT", "8090")), "/healthz", tls
        case _:
            return int(environ.get(f"{prefix}_HEALTH_PORT", "8081")), "/readyz", False


def ask(port: int, path: str, *, tls: bool) -> str | None:
    """What is wrong; None where it answers with 200, or wants a client's certificate first."""
    connection: http.client.HTTPConnection
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_S, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        said = answer.read(500).decode(errors="replace")
    except ssl.SSLError as error:
        return None if "CERTIFICATE_REQUIRED" in str(error.reason) else f"no answer: {error}"
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error}"
    finally:
        connection.close()
    return None if answer.status == http.client.OK else f"{answer.status} {said}"


def main() -> int:
    """0 is well, 1 is not: one line says why. An image that serves nothing is always well."""
    service = SERVICE.read_text().strip()
    if service == "closectl":
        return 0
    port, path, tls = place_of(service, os.environ)
    wrong = ask(port, path, tls=tls)
    if wrong is None:
        return 0
    sys.stdout.write(f"{wrong}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
