"""Secrets of a trial, in Kubernetes: `python3 make_secrets.py RELEASE NAMESPACE`, in a pod that may write them.

`closectl secrets make` makes what is missing in a directory, which is kept as the Secret <release>-trial; the Secrets
that pods mount are written from it each time. So an upgrade keeps every key and password, and adds what is new.
"""

import base64
import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SERVERS = ("postgres", "kafka", "connect", "broker-simulator", "close-api", "close-board")
PASSWORDS = {
    "order-submitter": "closeflow_order_submitter",
    "broker-gateway": "closeflow_broker_gateway",
    "fill-processor": "closeflow_fill_processor",
    "reconciler": "closeflow_reconciler",
}
DIRECTORY = Path("/tmp/secrets")


def call(method: str, path: str, body: object = None) -> dict[str, Any] | None:
    """What the API of Kubernetes answers; None where there is nothing."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    request = urllib.request.Request(
        f"https://{f'[{host}]' if ':' in host else host}:{port}/api/v1/{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}", "Content-Type": "application/json"},
    )
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise SystemExit(f"{method} {path}: {error.code} {error.read().decode(errors='replace')[:300]}") from None


def put(namespace: str, name: str, files: dict[str, bytes], kind: str = "Opaque") -> None:
    """Write a Secret; its data is then exactly these files."""
    data = {key: base64.b64encode(content).decode() for key, content in files.items()}
    labels = {"app.kubernetes.io/part-of": "closeflow", "app.kubernetes.io/component": "secrets"}
    secret = {"kind": "Secret", "metadata": {"name": name, "labels": labels}, "type": kind, "data": data}
    path = f"namespaces/{namespace}/secrets"
    if call("GET", f"{path}/{name}") is None:
        call("POST", path, {"apiVersion": "v1", **secret})
    else:
        call("PUT", f"{path}/{name}", {"apiVersion": "v1", **secret})


def complete(release: str, namespace: str) -> dict[str, bytes]:
    """The files of the directory by their name in it, with what was missing."""
    kept = call("GET", f"namespaces/{namespace}/secrets/{release}-trial")
    known = {} if kept is None else json.loads(base64.b64decode(kept["data"]["files.json"]))
    for name, content in known.items():
        path = DIRECTORY / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_bytes(base64.b64decode(content))
    hosts = []
    for server in SERVERS:
        name = f"{release}-{server}"
        for host in (name, f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local"):
            hosts += ["--host", f"{server}={host}"]
    subprocess.run(["closectl", "secrets", "make", "--directory", str(DIRECTORY), *hosts], check=True)
    files = {
        path.relative_to(DIRECTORY).as_posix(): path.read_bytes() for path in DIRECTORY.rglob("*") if path.is_file()
    }
    encoded = {name: base64.b64encode(content).decode() for name, content in sorted(files.items())}
    put(namespace, f"{release}-trial", {"files.json": json.dumps(encoded).encode()})
    return files


def secrets_of(files: dict[str, bytes]) -> dict[str, tuple[dict[str, bytes], str]]:
    """By the part of the name after the release: the files and the type of a Secret."""

    def tls(server: str) -> dict[str, bytes]:
        return {"tls.crt": files[f"{server}/tls.pem"] + files["ca.pem"], "tls.key": files[f"{server}/tls.key"]}

    def text(name: str) -> bytes:
        return files[name].strip()

    broker = {"broker-key-id": text("broker/key-id"), "broker-secret-key": text("broker/secret-key")}
    jwks = {"jwks.json": files["token-key/jwks.json"]}
    platform = {
        name.replace("/", "."): content
        for name, content in files.items()
        if name.startswith(("postgres/closeflow_", "closectl/", "kafka/"))
    }
    made: dict[str, tuple[dict[str, bytes], str]] = {
        "ca": ({"ca.pem": files["ca.pem"]}, "Opaque"),
        "token-key": ({**jwks, "private_key.pem": files["token-key/private_key.pem"]}, "Opaque"),
        "closeflow-platform": (platform, "Opaque"),
        "close-api": (
            {
                **jwks,
                "postgres-password": text("postgres/closeflow_close_api"),
                "operator-password": text("postgres/closeflow_operator"),
            },
            "Opaque",
        ),
        "close-api-tls": (tls("close-api"), "kubernetes.io/tls"),
        "close-board": ({"kafka-password": text("kafka/close-board")}, "Opaque"),
        "close-board-tls": (tls("close-board"), "kubernetes.io/tls"),
        "broker-simulator": (broker, "Opaque"),
        "broker-simulator-tls": (tls("broker-simulator"), "kubernetes.io/tls"),
        "postgres": ({**tls("postgres"), "password": text("postgres/closeflow_admin")}, "Opaque"),
        "kafka": ({"keystore.pem": files["kafka/keystore.pem"], "ca.pem": files["ca.pem"]}, "Opaque"),
        "connect": (
            {
                "ca.pem": files["ca.pem"],
                **{name.removeprefix("connect/"): file for name, file in files.items() if name.startswith("connect/")},
            },
            "Opaque",
        ),
    }
    for service, role in PASSWORDS.items():
        mine = {"postgres-password": text(f"postgres/{role}"), "kafka-password": text(f"kafka/{service}")}
        if service != "fill-processor":
            mine |= broker
        if service == "reconciler":
            mine |= {"connect-certificate": files["reconciler/tls.pem"], "connect-key": files["reconciler/tls.key"]}
        made[service] = (mine, "Opaque")
    return made


def main() -> None:
    """Make what is missing and write every Secret."""
    release, namespace = sys.argv[1:]
    for part, (files, kind) in secrets_of(complete(release, namespace)).items():
        put(namespace, f"{release}-{part}", files, kind)
        sys.stdout.write(f"secret {release}-{part}: {', '.join(sorted(files))}\n")


if __name__ == "__main__":
    main()
