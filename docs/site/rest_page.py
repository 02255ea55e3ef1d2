"""The page of the REST routes, from the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from docs.site.markup import Section, example, inline, page, prose, table
from docs.site.schemas import described, fields_of, type_of

Document = Mapping[str, Any]

_CODE: Final = re.compile(r"^- `(\w+)`: (.*)$", re.MULTILINE)


def rest_page(document: Document) -> str:
    """The whole page."""
    by_tag: dict[str, list[tuple[str, str, Document]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            by_tag[operation["tags"][0]].append((method, path, operation))
    for operations in by_tag.values():
        operations.sort(key=lambda one: one[0])
    schemas = document["components"]["schemas"]
    contents = [
        Section(
            _anchor(tag),
            tag,
            [Section(operation["operationId"], _address(method, path)) for method, path, operation in operations],
        )
        for tag, operations in by_tag.items()
    ]
    contents.append(Section("headers", "Headers of answers"))
    contents.append(Section("schemas", "Schemas", [Section(name, name) for name in schemas]))
    body = [prose(document["info"]["description"])]
    body.append(
        "<p>For programs: <code>schemas/openapi.json</code>, as the service answers it at "
        "<code>/openapi.json</code>. Every answer has the header <code>Trace-Id</code>.</p>"
    )
    for tag in document["tags"]:
        body.append(f'<h2 id="{_anchor(tag["name"])}">{tag["name"]}</h2>\n{prose(tag["description"])}')
        body += [_operation(document, *one) for one in by_tag[tag["name"]]]
    body.append(f'<h2 id="headers">Headers of answers</h2>\n{_headers(document)}')
    body.append('<h2 id="schemas">Schemas</h2>')
    body += described(schemas)
    return page("rest.html", "REST", "\n".join(body), contents)


def _operation(document: Document, method: str, path: str, operation: Document) -> str:
    parts = [
        f'<h3 id="{operation["operationId"]}">{_address(method, path)}</h3>',
        f"<p>{inline(operation['summary'])}</p>",
        prose(operation.get("description", "")),
    ]
    if operation.get("parameters"):
        parts += ["<h4>Parameters</h4>", _parameters(operation["parameters"])]
    if "requestBody" in operation:
        parts += ["<h4>Body</h4>", *_body(document, operation["requestBody"])]
    parts += ["<h4>Answers</h4>", _answers(document, operation["responses"])]
    return "\n".join(parts)


def _address(method: str, path: str) -> str:
    return f'<span class="verb {method}">{method.upper()}</span>{escape(path)}'


def _parameters(parameters: list[Document]) -> str:
    rows = (
        (
            f"<code>{one['name']}</code>{'' if one['required'] else ' <span class=muted>optional</span>'}",
            one["in"],
            type_of(one["schema"]),
            inline(one.get("description", "")) + _such_as(one),
        )
        for one in parameters
    )
    return table(("parameter", "in", "type", "what"), rows)


def _such_as(described: Document) -> str:
    return f" Such as <code>{escape(str(described['example']))}</code>." if "example" in described else ""


def _body(document: Document, body: Document) -> Iterator[str]:
    (media, content), *_ = body["content"].items()
    name = content["schema"]["$ref"].rpartition("/")[2]
    schema = document["components"]["schemas"][name]
    needed = "" if body.get("required") else " It may be left out."
    yield f'<p><a href="#{name}">{name}</a> as <code>{media}</code>.{needed}</p>{prose(schema.get("description", ""))}'
    yield fields_of(schema)
    yield from _examples(document, content)


def _answers(document: Document, answers: Document) -> str:
    rows = []
    for status, answer in sorted(answers.items()):
        kinds = "".join(_content(document, media, content) for media, content in answer["content"].items())
        told = _codes(document, answer) if _is_error(answer) else prose(answer["description"]) + kinds
        rows.append((f'<span class="status s{status[0]}">{status}</span>', told + _named_headers(answer)))
    return table(("status", "answer"), rows)


def _is_error(answer: Document) -> bool:
    return str(answer["description"]).startswith("- `")


def _codes(document: Document, answer: Document) -> str:
    """Each code with what it means; it opens to show the example."""
    (content,) = answer["content"].values()
    meanings = dict(_CODE.findall(answer["description"]))
    return "".join(
        example(meanings[code], _resolved(document, one)["value"], f'<a href="errors.html#{code}">{code}</a>')
        for code, one in content["examples"].items()
    )


def _content(document: Document, media: str, content: Document) -> str:
    schema = content.get("schema") or {}
    kind = f"{type_of(schema)} as " if schema else ""
    said = prose(schema.get("description", ""))
    return f"<p>{kind}<code>{media}</code></p>{said}{''.join(_examples(document, content))}"


def _examples(document: Document, content: Document) -> Iterator[str]:
    for one in content.get("examples", {}).values():
        found = _resolved(document, one)
        yield example(f"Example: {found['summary'][0].lower()}{found['summary'][1:]}", found["value"])


def _named_headers(answer: Document) -> str:
    special = [name for name in answer.get("headers", {}) if name != "Trace-Id"]
    names = ", ".join(f'<a href="#header-{name}">{name}</a>' for name in special)
    return f'<p class="muted">Headers: {names}</p>' if names else ""


def _headers(document: Document) -> str:
    rows = "".join(
        f'<tr id="header-{name}"><td><code>{name}</code></td><td>{type_of(one["schema"])}</td>'
        f"<td>{inline(one['description'])}{_such_as(one)}</td></tr>\n"
        for name, one in document["components"]["headers"].items()
    )
    head = "<thead><tr><th>header</th><th>type</th><th>what</th></tr></thead>"
    return f'<div class="wide"><table>\n{head}\n<tbody>\n{rows}</tbody>\n</table></div>'


def _resolved(document: Document, node: Document) -> Document:
    if "$ref" not in node:
        return node
    found: Any = document
    for part in node["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found if isinstance(found, Mapping) else {}


def _anchor(tag: str) -> str:
    return f"tag-{tag.lower().replace(' ', '-')}"
