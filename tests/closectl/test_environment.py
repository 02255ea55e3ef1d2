"""Settings that cannot be and servers that are away, of another kind or not made ready: one line, and what to mend."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import pytest

import devstack
from tests.closectl.running import ROLE, Done, closectl, process
from tests.conftest import Database as OnTestStack
from tests.conftest import fresh_database

HERE: Final = "postgresql://me@127.0.0.1:1/nothing"
REQUEST: Final = "01932f4e-8a10-7c3b-9d21-5f0f7e6a1b22"


def told(done: Done, code: int = 2) -> str:
    assert (done.exit_code, done.stdout) == (code, ""), done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr.strip()


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("postgres_dsn", "", "must be a DSN such as postgresql://user:password@host:5432/database"),
        ("postgres_dsn", "not a dsn", "must be a DSN such as postgresql://user:password@host:5432/database"),
        ("postgres_dsn", "postgresql://me:hunter2@127.0.0.1:port/x", "must have a port from 1 to 65535"),
        ("postgres_dsn", "postgresql://me:hunter2@127.0.0.1:99999999/x", "must have a port from 1 to 65535"),
        ("kafka_bootstrap_servers", "", "must be host:port, or several with commas between them"),
        ("kafka_bootstrap_servers", "127.0.0.1:99999999", "must have a port from 1 to 65535"),
        ("kafka_bootstrap_servers", "kafka.example:9092", "set CLOSECTL_KAFKA_SECURITY_PROTOCOL=SSL, or"),
        ("api_url", "", "must be a URL that begins with http:// or https://"),
        ("api_url", "http://127.0.0.1:99999", "must have a port from 1 to 65535"),
        ("api_url", "http://api.example", "is not encrypted and not on this machine"),
        ("broker", "", "should have at least 1 character"),
        ("broker_key_id", "", "must not be empty; give its value, or unset it"),
        ("api_token", "", "must not be empty; give its value, or unset it"),
        ("broker_secret_key", "hunter2-ключ", "must be printable ASCII"),
        ("absence_window_s", "nan", "is wrong"),
    ],
)
def test_a_setting_that_cannot_be_is_named(name: str, value: str, wrong: str) -> None:
    line = told(closectl("verify", **{"postgres_dsn": HERE, name: value}))
    assert line.startswith(f"CLOSECTL_{name.upper()}")
    assert wrong in line
    assert "hunter2" not in line


def test_a_database_that_is_away_or_does_not_let_us_in_is_told(database: OnTestStack) -> None:
    def listed(dsn: str) -> str:
        return told(closectl("list", postgres_dsn=dsn))

    cannot = "closectl: the database of CLOSECTL_POSTGRES_DSN cannot be asked: "
    good = urlsplit(database.dsn(ROLE))
    assert listed(HERE).startswith(cannot)
    assert "port 1 failed: Connection refused" in listed(HERE)
    wrong = urlunsplit(good._replace(netloc=good.netloc.replace(str(good.password), "hunter2")))
    assert "password authentication failed" in listed(wrong)
    assert "hunter2" not in listed(wrong)
    assert 'database "nothing" does not exist' in listed(urlunsplit(good._replace(path="/nothing")))
    kafka = database.stack.kafka_bootstrap_servers
    assert listed(f"postgresql://me@{kafka}/x").startswith(cannot)
    assert "closeflow_operator" in listed(database.dsn("closeflow_debezium"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify",),
        ("list",),
        ("positions", "list"),
        ("show", REQUEST),
        ("incidents", "list"),
        ("parked", "list"),
        ("halt", "--reason", "r"),
        ("requests", "cancel", REQUEST, "--reason", "r"),
        ("positions", "adjust", "1", "--delta", "1", "--reason", "r"),
    ],
    ids=" ".join,
)
def test_a_database_without_its_tables_is_told(stack: devstack.Stack, template: str, arguments: Sequence[str]) -> None:
    with fresh_database(stack, None) as empty:
        line = told(closectl(*arguments, postgres_dsn=empty.dsn(ROLE)))
    assert "bring it to the newest schema: make migrate" in line


@pytest.mark.parametrize("verb", [("list",), ("show", "broker-fill", "0", "0"), ("replay", "--all", "--reason", "r")])
def test_a_kafka_that_is_none_is_told(database: OnTestStack, verb: Sequence[str]) -> None:
    postgres = urlsplit(database.admin_dsn)
    for servers in ("127.0.0.1:1", f"{postgres.hostname}:{postgres.port}"):
        line = told(closectl("dlq", *verb, postgres_dsn=database.dsn(ROLE), kafka_bootstrap_servers=servers))
        assert line.startswith("closectl: Kafka did not do it: ")
        assert "repeating the command does no harm" in line


def test_a_kafka_that_is_away_is_told_in_one_line_by_the_process_too(database: OnTestStack) -> None:
    line = told(process("dlq", "list", postgres_dsn=database.dsn(ROLE), kafka_bootstrap_servers="127.0.0.1:1"))
    assert line.startswith("closectl: Kafka did not do it: it cannot be reached at 127.0.0.1:1; what is not done waits")


def test_a_certificate_that_is_none_is_told(database: OnTestStack) -> None:
    settings = {"kafka_bootstrap_servers": "127.0.0.1:1", "kafka_security_protocol": "SSL", "kafka_ca_path": "/none"}
    line = told(closectl("dlq", "list", postgres_dsn=database.dsn(ROLE), **settings))
    assert line.startswith("CLOSECTL_KAFKA_CA_PATH: /none is no readable PEM file of an authority")


@dataclass(slots=True)
class Answers:
    """What the other end says, one after the other: a status and a body, or None to hang up."""

    url: str
    next: list[tuple[int, str] | None] = field(default_factory=list)
    asked: list[tuple[str, str | None, str]] = field(default_factory=list)


@pytest.fixture
def other_end() -> Iterator[Answers]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            answers.asked.append((self.path, self.headers.get("Idempotency-Key"), body))
            given = answers.next.pop(0)
            if given is None:
                self.close_connection = True
                return
            self.send_response(given[0])
            self.end_headers()
            self.wfile.write(given[1].encode())

        do_GET = do_POST = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    answers = Answers(f"http://127.0.0.1:{server.server_port}")
    running = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    running.start()
    yield answers
    server.shutdown()
    running.join()
    server.server_close()


ACCEPTED: Final = json.dumps({"close_request_id": REQUEST, "close_request_status": "pending", "filled_qty": 0})
DONE: Final = ACCEPTED.replace("pending", "completed")


def problem(message: str, **more: Any) -> str:
    return json.dumps({"code": "code", "detail": message, **more})


def test_a_close_sends_the_digits_given_and_waits_for_its_end(other_end: Answers) -> None:
    other_end.next = [(201, ACCEPTED), (200, ACCEPTED), (200, DONE)]
    done = closectl(
        *("close", "104", "--quantity", "0.10", "--order-type", "market", "--wait", "30", "--key", "k 7", "--json"),
        api_url=other_end.url,
    )
    assert (done.exit_code, json.loads(done.stdout)["close_request_status"]) == (0, "completed")
    assert other_end.asked[0] == ("/v1/positions/104/close", "k 7", '{"quantity": 0.10, "order_type": "market"}')
    assert [one[0] for one in other_end.asked[1:]] == [f"/v1/close-requests/{REQUEST}"] * 2


def test_a_close_that_never_left_is_told_so() -> None:
    for url in ("http://127.0.0.1:1", "http://localhost:1/somewhere"):
        line = told(closectl("close", "104", api_url=url))
        assert "cannot be reached" in line
        assert "nothing was sent" in line
        assert "--key" not in line


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (None, 2, "whether it accepted is not known: repeat the command with --key k7, which closes once"),
        ((200, "<html>hello</html>"), 2, "answered 200, not as close-api does; is CLOSECTL_API_URL its address?"),
        ((200, "[]"), 2, "not as close-api does"),
        ((200, "[" * 100_000), 2, "not as close-api does"),
        ((301, ""), 2, "answered 301, not as close-api does"),
        ((502, "<html>bad gateway</html>"), 2, "answered 502, not as close-api does"),
        ((409, problem("The position is closed.")), 1, "closectl: 409: The position is closed."),
        ((400, problem("zero quantity")), 1, "closectl: 400: zero quantity"),
        (
            (422, problem("See fields.", fields=[{"field": "quantity", "message": "is over the position"}])),
            1,
            "422: See fields. (quantity is over the position)",
        ),
        (
            (401, problem("Send a token.", reason="the token has expired")),
            1,
            "401: Send a token. (the token has expired) The token is CLOSECTL_API_TOKEN;",
        ),
        ((403, problem("See scope.", scope="close:write", trace_id="7f")), 1, "403: See scope. (scope close:write)"),
        (
            (409, problem("Follow it.", active_close_request_id=REQUEST)),
            1,
            f"409: Follow it. (active_close_request_id {REQUEST})",
        ),
        ((409, problem("See reasons.", reasons=["it is over", "it is frozen"])), 1, "(it is over; it is frozen)"),
        ((500, problem("A defect.", trace_id="7f")), 1, "500: A defect. (trace_id 7f)"),
        ((503, problem("Trading is halted.")), 1, "repeat the command with --key k7, which closes once"),
    ],
)
def test_what_close_api_says_instead_of_accepting_is_told(
    other_end: Answers, answer: tuple[int, str] | None, code: int, words: str
) -> None:
    other_end.next = [answer]
    assert words in told(closectl("close", "104", "--key", "k7", api_url=other_end.url), code)


@pytest.mark.parametrize("answer", [None, (503, problem("No answer.")), (200, "<html>")])
def test_a_close_that_is_lost_sight_of_is_said_to_be_accepted(
    other_end: Answers, answer: tuple[int, str] | None
) -> None:
    other_end.next = [(201, ACCEPTED), answer]
    line = told(closectl("close", "104", "--wait", "5", api_url=other_end.url))
    assert f"close request {REQUEST} was accepted; `closectl show {REQUEST}` tells what becomes of it" in line
