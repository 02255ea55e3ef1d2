"""The AsyncAPI page has all in it: no reference leads out of it, and it loads only what lies beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from closeflow.contracts.topics import TOPIC_MODELS
from docs.site.asyncapi_page import FILES, NotRendered, unpack, whole_document, write_asyncapi


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """As if the component had been downloaded."""
    folder = tmp_path / "kept"
    folder.mkdir()
    for name in FILES.values():
        (folder / name).write_text("of the package")
    return folder


def test_every_reference_of_the_document_is_inside_it() -> None:
    document = whole_document()
    references = re.findall(r'"\$ref": "([^"]+)"', json.dumps(document))
    assert references
    for reference in references:
        node = document
        assert reference.startswith("#/")
        for step in reference[2:].split("/"):
            node = node[step]


def test_every_message_has_its_schema_and_examples_that_are_valid_by_it() -> None:
    messages = whole_document()["components"]["messages"]
    assert messages.keys() == {f"{model.SCHEMA}.v{model.VERSION}" for model in TOPIC_MODELS.values()}
    for model in TOPIC_MODELS.values():
        message = messages[f"{model.SCHEMA}.v{model.VERSION}"]
        assert list(message["payload"]["properties"]) == list(model.model_fields)
        assert message["examples"]
        for example in message["examples"]:
            Draft202012Validator(message["payload"]).validate(example["payload"])


def test_the_page_loads_only_what_lies_beside_it(tmp_path: Path, kept: Path) -> None:
    page = write_asyncapi(tmp_path / "site", kept=kept)
    text = page.read_text()
    loaded = re.findall(r'(?:src|href)="([^"]+)"', text.partition("AsyncApiStandalone")[0])
    assert sorted(loaded) == ["component.css", "component.js"]
    assert all((page.parent / name).is_file() for name in loaded)
    (given,) = re.findall(r"render\(\{schema: (.*), config: ", text)
    assert json.loads(given.replace("<\\/", "</")) == whole_document()


def test_without_npm_or_with_another_package_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotRendered, match=r"npm was not found; install Node\.js"):
        write_asyncapi(tmp_path / "site", kept=tmp_path / "nothing")
    (tmp_path / "other.tgz").write_bytes(b"something else")
    with pytest.raises(NotRendered, match="is not the package that was looked at"):
        unpack(tmp_path / "other.tgz", tmp_path / "nothing")
