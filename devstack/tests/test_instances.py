"""Where instances live and which ports they remember, for clones that are moved, copied or hidden from other users."""

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from devstack.instances import claim_ports, is_free, release_ports

from .conftest import Clone, make_clone

ENSURE = (
    "import json; from devstack.instances import *; i, d = ensure_instance('one'); print(json.dumps([i.ports, str(d)]))"
)
FORGET = "from devstack.instances import forget_instance; forget_instance('one')"


def ensure(clone: Clone) -> tuple[dict[str, int], Path]:
    """The clone's instance `one`, made if missing."""
    done = clone.python("-c", ENSURE)
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found[0], Path(found[1])


def test_an_instance_remembers_its_ports(clone: Clone) -> None:
    ports, directory = ensure(clone)
    assert len(set(ports.values())) == 4
    assert directory == clone.root / ".devstack" / "one"
    assert ensure(clone) == (ports, directory)
    clone.python("-c", FORGET)
    assert not directory.exists()


def test_an_instance_stays_as_secure_as_it_was_made(clone: Clone) -> None:
    ask = "from devstack.instances import *; print(ensure_instance('two', {})[0])"
    made = clone.python("-c", ask.format(True))
    assert made.returncode == 0, made.stderr
    assert "secure=True" in made.stdout
    secrets = clone.root / ".devstack" / "two" / "secrets"
    assert (secrets / "postgres" / "closeflow_admin").read_text().strip() in made.stdout
    again = clone.python("-c", ask.format(None))
    assert again.stdout == made.stdout
    refused = clone.python("-c", ask.format(False))
    assert "instance two was made secure, and stays so; to change it: make reset INSTANCE=two" in refused.stderr
    assert "made not secure" in plain_then_secure(clone)
    clone.python("-c", FORGET.replace("one", "two"))
    clone.python("-c", FORGET)


def plain_then_secure(clone: Clone) -> str:
    ensure(clone)
    return clone.python("-c", ENSURE.replace("'one'", "'one', True")).stderr


def test_the_ports_of_an_instance_that_is_down_are_not_given_to_another(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    first = claim_ports(one)
    assert not set(claim_ports(two, wished=first)) & set(first)
    release_ports(one)
    assert claim_ports(two, wished=first) == first
    release_ports(two)


def test_a_removed_clone_gives_its_ports_back(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    first = claim_ports(one)
    one.rmdir()
    assert claim_ports(two, wished=first) == first
    release_ports(two)


def test_a_port_with_a_listener_is_not_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert not is_free(server.getsockname()[1])


def test_a_moved_clone_keeps_its_instance(clone: Clone) -> None:
    ports, _ = ensure(clone)
    moved = Clone(clone.root.rename(clone.root.with_name("moved")))
    assert ensure(moved) == (ports, moved.root / ".devstack" / "one")
    moved.python("-c", FORGET)


def test_a_copied_clone_gets_ports_of_its_own(clone: Clone) -> None:
    ports, _ = ensure(clone)
    copied = Clone(Path(shutil.copytree(clone.root, clone.root.with_name("copied"), symlinks=True)))
    others, _ = ensure(copied)
    assert not set(ports.values()) & set(others.values())
    assert ensure(clone)[0] == ports
    copied.python("-c", FORGET)
    clone.python("-c", FORGET)


@pytest.fixture
def hidden(place: Path) -> Clone:
    """A clone that only its owner may enter, as below /root."""
    place.chmod(0o700)
    return make_clone(place / "clone")


def test_a_hidden_clone_of_root_keeps_its_data_outside(hidden: Clone) -> None:
    _, directory = ensure(hidden)
    link = hidden.root / ".devstack" / "one"
    if os.geteuid() == 0:
        assert link.readlink() == directory
        assert directory.parts[:4] == ("/", "var", "lib", "closeflow")
    else:
        assert directory == link
    hidden.python("-c", FORGET)
    assert not directory.exists()
    assert not link.is_symlink()


def test_a_copy_of_a_hidden_clone_shares_nothing_with_it(hidden: Clone) -> None:
    ports, directory = ensure(hidden)
    copied = Clone(Path(shutil.copytree(hidden.root, hidden.root.with_name("copied"), symlinks=True)))
    others, elsewhere = ensure(copied)
    assert elsewhere != directory
    assert not set(ports.values()) & set(others.values())
    assert ensure(hidden) == (ports, directory)
    copied.python("-c", FORGET)
    assert directory.exists()
    hidden.python("-c", FORGET)
