"""What the package needs and what it gives: nothing but httpx, unless an address asks for gRPC."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import closeflow_client

SOURCES: Final = Path(closeflow_client.__file__).parent
PROJECT: Final = tomllib.loads((SOURCES.parents[1] / "pyproject.toml").read_text())["project"]

WITHOUT_GRPC: Final = """
import sys
sys.modules["grpc"] = sys.modules["google"] = sys.modules["google.protobuf"] = None
from closeflow_client import AsyncClient, Client, GrpcMissing
Client("http://localhost").disconnect()
AsyncClient("https://localhost")
for made in (Client, AsyncClient):
    try:
        made("grpc://localhost:1")
    except GrpcMissing as error:
        print(error)
"""


def imported(file: Path) -> set[str]:
    """The packages that a module imports."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    whole = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    parts = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0}
    return {one.partition(".")[0] for one in whole | parts}


def test_only_httpx_is_needed_and_grpc_where_an_address_asks_for_it() -> None:
    ran = subprocess.run([sys.executable, "-c", WITHOUT_GRPC], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["for a grpc:// address install closeflow-client[grpc]"] * 2


def test_it_imports_what_it_declares_and_no_more() -> None:
    mine = {"closeflow_client", *sys.stdlib_module_names}
    rest = {
        name: sorted(imported(file) - mine)
        for file in SOURCES.rglob("*.py")
        if (name := file.relative_to(SOURCES).as_posix()) and imported(file) - mine
    }
    assert {name: found for name, found in rest.items() if not name.startswith(("grpc/", "generated/"))} == {
        "rest/transport.py": ["httpx"]
    }
    assert {one for name, found in rest.items() for one in found} == {"httpx", "grpc", "google"}
    assert [one.partition(">")[0] for one in PROJECT["dependencies"]] == ["httpx"]
    extra = [one.partition(">")[0] for one in PROJECT["optional-dependencies"]["grpc"]]
    assert extra == ["grpcio", "protobuf", "googleapis-common-protos"]


def test_it_is_typed_and_exports_what_it_lists() -> None:
    assert (SOURCES / "py.typed").exists()
    assert all(hasattr(closeflow_client, name) for name in closeflow_client.__all__)
