"""The pages of docs/runbooks as they are read, and what is wrong with one: a section that lacks, a command that nothing
would take. No command is run."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

import typer
import yaml
from starlette.routing import Match

from broker_simulator.trading_api import TRADING_ROUTES
from closectl.app import app

from .markdown import DOCS
from .repository import REPOSITORY, run

RUNBOOKS: Final = DOCS / "runbooks"
RULES: Final = REPOSITORY / "deploy" / "monitoring" / "alerts.yaml"
DEFERRED: Final = "deferred"
"""The page of every kind `deferred_<reason>`."""
SECTIONS: Final = ("Meaning", "Impact", "Diagnosis", "Mitigation", "Escalate")
LINES: Final = range(25, 61)
SAMPLES: Final[Mapping[str, str]] = {
    "ACCOUNT": "main",
    "BROKER_GATEWAY_URL": "http://127.0.0.1:8081",
    "BROKER_ORDER": "61e69015-8549-4bfd-b9c3-01e75843f47d",
    "CLOSE": "01932f4e-8a10-7c3b-9d21-5f0f7e6a1b22",
    "CLOSECTL_API_URL": "http://127.0.0.1:8080",
    "CLOSECTL_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
    "CLOSECTL_POSTGRES_DSN": "postgresql://127.0.0.1/closeflow",
    "CONNECTOR": "closeflow-outbox-closeflow",
    "CONNECT_URL": "http://127.0.0.1:8083",
    "CREDENTIALS_FILE": "/run/secrets/debezium.properties",
    "DAY": "2026-03-02",
    "DELTA": "-5",
    "EXECUTION": "20260302::9f3",
    "FILE": str(REPOSITORY / "demo" / "positions.csv"),
    "FILL_PROCESSOR_URL": "http://127.0.0.1:8081",
    "GROUP": "fill-processor",
    "INCIDENT": "7",
    "OFFSET": "12",
    "ORDER": "cf-01932f4e8a107c3b9d215f0f7e6a1b22-1",
    "ORDER_SUBMITTER_URL": "http://127.0.0.1:8081",
    "OVERFILL": "105",
    "PARTITION": "0",
    "POSITION": "104",
    "PRICE": "99.5",
    "QUANTITY": "20",
    "RECONCILER_URL": "http://127.0.0.1:8081",
    "SENDER": "host-1/4711",
    "SERVICE_URL": "http://127.0.0.1:8081",
    "SLOT": "closeflow_closeflow",
    "SYMBOL": "AAPL",
}
"""A value for each variable that a command may have; the index says what each means."""
OTHER_PROGRAMS: Final = frozenset({"chronyc", "date", "kafka-consumer-groups.sh"})
_HEALTH: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_OF_CONNECT: Final = re.compile(
    r"GET /connectors(/[\w-]+/status)?|PUT /connectors/[\w-]+/resume|POST /connectors/[\w-]+/restart"
)
_BLOCK: Final = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_METRIC: Final = re.compile(r"\b(?:closeflow|close_api)_\w+")
_DECLARED: Final = re.compile(r"^\| \[`(\w+)`\]\S+ \| \w+ \| ([^|]*) \|", flags=re.MULTILINE)
_LABELS: Final = re.compile(r"\b(?:by|without) \(([^)]*)\)|\{([^}]*)\}")
_OF_EVERY_TARGET: Final = frozenset({"instance", "job", "le"})


@dataclass(frozen=True, slots=True)
class Page:
    """One page: `head` is the line below its title, `sections` are by heading, in their order."""

    name: str
    text: str

    @property
    def head(self) -> Mapping[str, str]:
        """What the line below the title says, by name: severity, and of a kind who closes it."""
        told = self.text.split("\n")[1]
        return {name: value for name, _, value in (one.partition(": ") for one in told.split(" · "))}

    @property
    def sections(self) -> Mapping[str, str]:
        """The text of each section."""
        parts = re.split(r"^## (.+)\n", self.text, flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True))

    @property
    def first_sentence(self) -> str:
        """Of its meaning: what the index says of it."""
        meaning = " ".join(self.sections["Meaning"].split("\n\n")[0].split())
        return re.split(r"(?<=\.) (?=[A-Z`])", meaning)[0]

    def blocks(self, language: str) -> list[str]:
        """Its blocks in this language."""
        return [text for name, text in _BLOCK.findall(self.text) if name == language]


@cache
def pages() -> Mapping[str, Page]:
    """All but the index, by name."""
    files = sorted(file for file in RUNBOOKS.glob("*.md") if file.name != "README.md")
    return {file.stem: Page(file.stem, file.read_text()) for file in files}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One alert of deploy/monitoring; `url` is what it calls its page, which may be a template."""

    name: str
    severity: str | None
    url: str

    @property
    def has_page(self) -> bool:
        """One that stands for incidents has the pages of their kinds."""
        return "{{" not in self.url


@cache
def rules() -> tuple[Rule, ...]:
    """Every alert, in the order of the file."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return tuple(
        Rule(name=one["alert"], severity=one.get("labels", {}).get("severity"), url=one["annotations"]["runbook_url"])
        for group in groups
        for one in group["rules"]
        if "alert" in one
    )


def faults(page: Page) -> list[str]:
    """Everything that is wrong with a page, but what only a database says of its queries."""
    return [*_of_form(page), *_of_shell("\n".join(page.blocks("sh"))), *_of_queries(page)]


def queries(page: Page) -> list[str]:
    """The SQL that its commands ask, with sample values."""
    found = (command for text in page.blocks("sh") for command in commands(text))
    return [command[3] for command in found if command[0] == "psql" and len(command) == 4]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a block, with sample values. Raises ValueError where a quote is not closed."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";|&()<>\n")
    lexer.whitespace, lexer.whitespace_split = " \t\r", True
    words: list[str] = []
    for token in [*lexer, "\n"]:
        if token and set(token) <= set(";|&()<>\n"):
            if words:
                yield words
            words = []
        else:
            words.append(_VARIABLE.sub(lambda name: SAMPLES.get(name[1] or name[2], name[0]), token))


def variables(page: Page) -> set[str]:
    """The names of the variables in its commands."""
    return {one or other for text in page.blocks("sh") for one, other in _VARIABLE.findall(text)}


def _of_form(page: Page) -> Iterator[str]:
    if not page.text.startswith(f"# {page.name}\nSeverity: "):
        yield f"it does not begin with `# {page.name}` and its severity"
    if tuple(page.sections) != SECTIONS:
        yield f"its sections are {', '.join(page.sections)}, and not {', '.join(SECTIONS)}"
    yield from (f"{name} is empty" for name, text in page.sections.items() if not text.strip())
    if page.text.count("\n") not in LINES:
        yield f"it has {page.text.count(chr(10))} lines"
    if not any(_BLOCK.findall(page.sections.get("Diagnosis", ""))):
        yield "no command tells more about it"
    strange = {name for name, _ in _BLOCK.findall(page.text)} - {"sh", "promql"}
    yield from (f"a block is {name or 'of no language'}" for name in sorted(strange))
    yield from (f"nothing says what ${name} is" for name in sorted(variables(page) - SAMPLES.keys()))


def _of_shell(text: str) -> Iterator[str]:
    parsed = run("bash", "-n", text=text)
    if parsed.returncode != 0:
        yield parsed.stderr.strip()
        return
    for words in commands(text):
        yield from (f"{shlex.join(words)}: {fault}" for fault in _of_command(words))


def _of_command(words: list[str]) -> Iterator[str]:
    match words:
        case ["closectl", *arguments]:
            yield from _of_closectl(arguments)
        case ["psql", dsn, "-c", sql]:
            if dsn != SAMPLES["CLOSECTL_POSTGRES_DSN"]:
                yield "it asks another database than that of CLOSECTL_POSTGRES_DSN"
            if sql.split()[0] not in ("SELECT", "SHOW"):
                yield "it does more than look"
        case ["ask_broker", target]:
            path = urlsplit(target).path
            scope = {"type": "http", "method": "GET", "path": path}
            if not any(route.matches(scope)[0] is Match.FULL for route in TRADING_ROUTES):
                yield f"a broker has no {path}"
        case ["curl", "-sS", "-X", method, url]:
            yield from _of_url(method, url)
        case ["curl", "-sS", url]:
            yield from _of_url("GET", url)
        case [program, *_] if program not in OTHER_PROGRAMS:
            yield "no page has such a command"


def _of_url(method: str, url: str) -> Iterator[str]:
    address = urlsplit(url)
    base = f"{address.scheme}://{address.netloc}"
    if base == SAMPLES["CONNECT_URL"]:
        found = _OF_CONNECT.fullmatch(f"{method} {address.path}") is not None
    elif base == SAMPLES["CLOSECTL_API_URL"] and address.path not in _HEALTH:
        found = method.lower() in _rest().get(address.path, {})
    else:
        found = method == "GET" and address.path in _HEALTH
    if not found:
        yield f"nothing answers {method} {address.path}"


@cache
def _rest() -> Mapping[str, Mapping[str, Any]]:
    paths: Mapping[str, Mapping[str, Any]] = json.loads((REPOSITORY / "schemas" / "openapi.json").read_text())["paths"]
    return paths


def _of_closectl(arguments: list[str]) -> Iterator[str]:
    context, name, command, left = None, "closectl", _command_line(), arguments
    try:
        while True:
            context = command.make_context(name, [*left], parent=context)
            if not hasattr(command, "resolve_command"):
                return
            left = [*context._protected_args, *context.args]  # As the group's own invoke does.
            name, command, left = command.resolve_command(context, left)
    except Exception as error:
        if not hasattr(error, "format_message"):  # A ClickException, which typer does not export.
            raise
        yield str(error.format_message())


@cache
def _command_line() -> Any:
    return typer.main.get_command(app)


def _of_queries(page: Page) -> Iterator[str]:
    for text in page.blocks("promql"):
        if any(text.count(one) != text.count(other) for one, other in ("()", "[]", "{}")):
            yield f"a bracket is not closed in: {text}"
        names = {re.sub("_(bucket|sum|count)$", "", name) for name in _METRIC.findall(text)}
        yield from (f"no service exports {name}" for name in sorted(names - _metrics().keys()))
        labels = _OF_EVERY_TARGET.union(*(_metrics().get(name, ()) for name in names))
        used = {name for by, matched in _LABELS.findall(text) for name in _label_names(by, matched)}
        yield from (f"no metric of the block has the label {name}" for name in sorted(used - labels))


def _label_names(by: str, matched: str) -> set[str]:
    return {*re.findall(r"\w+", by), *re.findall(r"(\w+)(?:=~?|!=|!~)\"", matched)}


@cache
def _metrics() -> Mapping[str, frozenset[str]]:
    declared = _DECLARED.findall((DOCS / "metrics.md").read_text())
    return {name: frozenset(re.findall(r"`(\w+)`", labels)) for name, labels in declared}
