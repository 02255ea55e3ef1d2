"""Who may do what in Kafka follows from the topic files and the file of the principals."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from closectl.secrets_directory import KAFKA_PRINCIPALS
from closeflow.contracts.kafka_rights import PRINCIPALS_FILE, BadAccess, load_access
from tests.closectl.running import closectl
from tests.conftest import REPOSITORY

TOPICS = REPOSITORY / "schemas/topics"
PRINCIPALS = REPOSITORY / PRINCIPALS_FILE


def worded(principal: str) -> set[str]:
    found = load_access(TOPICS, PRINCIPALS)
    return {str(acl).removeprefix(f"{principal}: ") for acl in found.acls if acl.principal == principal}


def test_every_principal_has_a_password_made_for_it() -> None:
    assert load_access(TOPICS, PRINCIPALS).principals == KAFKA_PRINCIPALS


def test_a_service_may_do_what_the_topic_files_say_of_it() -> None:
    assert worded("broker-gateway") == {"WRITE topic broker-fill", "DESCRIBE_CONFIGS topic broker-fill"}
    assert worded("fill-processor") == {
        "READ topic broker-fill",
        "DESCRIBE_CONFIGS topic broker-fill",
        "WRITE topic broker-fill.dlq",
        "DESCRIBE_CONFIGS topic broker-fill.dlq",
        "READ group fill-processor",
    }
    assert worded("order-submitter") == {
        "READ topic submit-order",
        "DESCRIBE_CONFIGS topic submit-order",
        "WRITE topic submit-order.dlq",
        "DESCRIBE_CONFIGS topic submit-order.dlq",
        "WRITE topic broker-fill",
        "DESCRIBE_CONFIGS topic broker-fill",
        "READ group order-submitter",
    }
    assert {one for one in worded("close-board") if "DESCRIBE_CONFIGS" not in one} == {
        "READ topic submit-order",
        "READ topic broker-fill",
        "READ topic position-events",
        "READ topic execution-events",
        "READ group close-board-*",
    }
    assert {one for one in worded("reconciler") if "READ" in one or "WRITE" in one} == {
        "WRITE topic broker-fill",
        "READ topic submit-order",
        "READ topic position-events",
        "READ topic execution-events",
    }
    assert {one for one in worded("connect") if "closeflow-" not in one} == {
        "WRITE topic submit-order",
        "WRITE topic position-events",
        "WRITE topic execution-events",
    }


def planted(folder: Path, **changes: object) -> str:
    """What is said of files with these changes to a topic that has none of them."""
    topic = {"topic": "t", "producer": "one", "consumers": ["one", "desk"]} | changes
    (folder / "t.yaml").write_text(yaml.safe_dump({name: topic[name] for name in ("topic", "producer", "consumers")}))
    own = changes.get("own", {})
    principals = folder / "principals"
    principals.write_text(yaml.safe_dump({"outbox": "one", "others": ["desk"], "principals": {"one": own}}))
    with pytest.raises(BadAccess) as told:
        load_access(folder, principals)
    return str(told.value)


def test_a_name_that_nobody_has_and_words_that_nobody_reads_are_refused(tmp_path: Path) -> None:
    assert planted(tmp_path, producer="two") == (
        f"t.yaml: two is neither a principal nor one of others in {tmp_path / 'principals'}"
    )
    assert "somebody is neither" in planted(tmp_path, consumers=["somebody"])
    assert "is worded in another way" in planted(tmp_path, producer="One and all!")
    assert "one may not PROVE t: that is no operation" in planted(tmp_path, own={"topics": {"t": ["PROVE"]}})
    assert "one has topic, which is none of topics, " in planted(tmp_path, own={"topic": {"t": ["READ"]}})


def test_rights_without_passwords_are_refused(tmp_path: Path) -> None:
    kafka = {"kafka_bootstrap_servers": "127.0.0.1:1"}
    for given in (("--acls",), ("--secrets", str(tmp_path))):
        done = closectl("topics", "apply", *given, **kafka)
        assert (done.exit_code, "give --acls and --secrets together" in done.stderr) == (2, True), done
    done = closectl("topics", "apply", "--acls", "--secrets", str(tmp_path), **kafka)
    assert done.exit_code == 2
    assert "kafka/order-submitter cannot be read" in done.stderr
