"""close.proto keeps the style guide, breaks no caller, and is what the generated code was made of; all offline."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import pytest

import close_api.grpc.generated.close_pb2 as of_the_service
import closeflow_client.generated.close_pb2 as of_the_client

from .repository import REPOSITORY, TOOLS, Finished, run

PROTO: Final = "closeflow/close/v1/close.proto"
SOURCE: Final = REPOSITORY / "schemas" / "proto"
RELEASED: Final = REPOSITORY / "schemas" / "released" / "proto"
GENERATED: Final = (
    Path("services/close-api/src/close_api/grpc/generated"),
    Path("clients/python/src/closeflow_client/generated"),
)


def generate(*words: str | Path) -> None:
    made = run(sys.executable, SOURCE / "generate.py", *words)
    assert made.returncode == 0, made.stderr


def image(of: Path, at: Path) -> Path:
    """What buf reads: the proto in the directory `of` with all that it imports."""
    generate("--image", at, "--of", of)
    return at


def buf(scratch: Path, *words: str | Path) -> Finished:
    """With a cache of its own and no way out, so that what it does not find here it does not find."""
    nowhere = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    env = {**os.environ, **nowhere, "BUF_CACHE_DIR": str(scratch / "cache")}
    return run(TOOLS / "buf", *words, "--config", SOURCE / "buf.yaml", "--path", "closeflow", env=env)


def changed(at: Path, old: str, new: str) -> Path:
    """A directory with the released proto in which `old` became `new`."""
    proto = (RELEASED / PROTO).read_text()
    assert proto.count(old) == 1
    (at / PROTO).parent.mkdir(parents=True)
    (at / PROTO).write_text(proto.replace(old, new))
    return at


def test_the_generated_code_and_the_errors_are_current(tmp_path: Path) -> None:
    generate("--into", tmp_path)
    assert (SOURCE / PROTO).read_text() == (tmp_path / "schemas" / "proto" / PROTO).read_text(), "run: make proto"
    for package in GENERATED:
        kept, made = (
            {one.name: one.read_text() for one in (root / package).iterdir() if one.is_file()}
            for root in (REPOSITORY, tmp_path)
        )
        assert kept == made, "run: make proto"


def test_service_and_client_load_in_one_process_with_the_same_messages() -> None:
    assert of_the_service is not of_the_client
    assert of_the_service.Close.DESCRIPTOR is of_the_client.Close.DESCRIPTOR
    assert of_the_client.Close.FromString(of_the_service.Close(position_id=7).SerializeToString()).position_id == 7


def test_the_proto_keeps_the_style_guide(tmp_path: Path) -> None:
    found = buf(tmp_path, "lint", image(SOURCE, tmp_path / "image.binpb"))
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_a_planted_style_error_is_found(tmp_path: Path) -> None:
    planted = changed(tmp_path / "planted", "SIDE_BUY = 1;", "BUY = 1;")
    found = buf(tmp_path, "lint", image(planted, tmp_path / "image.binpb"))
    assert found.returncode != 0
    assert "BUY" in found.stdout


def test_the_proto_breaks_nothing_that_was_released(tmp_path: Path) -> None:
    released = image(RELEASED, tmp_path / "released.binpb")
    found = buf(tmp_path, "breaking", image(SOURCE, tmp_path / "image.binpb"), "--against", released)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("old", "new", "blamed"),
    [
        ("  string idempotency_key = 2;", "", "idempotency_key"),
        ("  string idempotency_key = 2;", "  bytes idempotency_key = 2;", "idempotency_key"),
        ("  string idempotency_key = 2;", "  string idempotency_key = 20;", "idempotency_key"),
        ("  SIDE_SELL = 2;", "", 'enum "Side"'),
        ("  rpc GetPosition(", "  rpc ReadPosition(", "GetPosition"),
        ("rpc ClosePositions(stream ClosePositionsRequest)", "rpc ClosePositions(ClosePositionsRequest)", "streaming"),
    ],
)
def test_a_planted_breaking_change_is_found(tmp_path: Path, old: str, new: str, blamed: str) -> None:
    released = image(RELEASED, tmp_path / "released.binpb")
    planted = image(changed(tmp_path / "planted", old, new), tmp_path / "planted.binpb")
    found = buf(tmp_path, "breaking", planted, "--against", released)
    assert found.returncode != 0
    assert blamed in found.stdout
