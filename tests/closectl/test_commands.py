"""The command line as its user meets it: arguments and settings in, output and an exit code out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.closectl.running import ROLE, answer, closectl, process
from tests.closectl.seeding import FILE, REQUESTS, order_id
from tests.conftest import Database as OnTestStack
from tests.storage.seeding import add_position, owner


def test_import_and_list(database: OnTestStack, tmp_path: Path) -> None:
    dsn = database.dsn(ROLE)
    file = tmp_path / "positions.csv"
    file.write_text(FILE, encoding="utf-8-sig")
    first = closectl("positions", "import", str(file), postgres_dsn=dsn)
    assert (first.exit_code, first.stdout) == (0, "6 positions added, 0 unchanged\n")
    assert answer("positions", "import", str(file), postgres_dsn=dsn) == {"added": 0, "unchanged": 6}
    listed = answer("positions", "list", "--limit", "2", "--after", "2", postgres_dsn=dsn)
    assert [(one["id"], one["symbol"], one["quantity"]) for one in listed] == [(3, "NVDA", "-5"), (4, "AMZN", "7")]
    file.write_text(FILE.replace("1,main,AAPL,stock,10", "1,main,AAPL,stock,11"))
    refused = closectl("positions", "import", str(file), postgres_dsn=dsn)
    assert refused.exit_code == 1
    assert "position 1 (main AAPL): the file says quantity 11, the position was opened with 10" in refused.stderr


def test_a_bad_file_needs_no_database_to_be_told(tmp_path: Path) -> None:
    file = tmp_path / "positions.csv"
    file.write_text(FILE.replace("option", "bond").replace("-5", "[b]five"))
    done = closectl("positions", "import", str(file))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "nothing was:\nline 4: quantity '[b]five' is not a number" in done.stderr
    file.write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8" in closectl("positions", "import", str(file)).stderr


def test_an_export_is_imported_with_a_map(database: OnTestStack, tmp_path: Path) -> None:
    dsn = database.dsn(ROLE)
    file = tmp_path / "export.csv"
    file.write_text("Instrument,Qty,Kind,Value\nbrk b,5,Equity,2000\nAAPL  270119C00150000,-2,Option,9\n")
    given = ["positions", "import", str(file), "--map", "Instrument=symbol", "--map", "Qty=quantity"]
    given += ["--map", "Kind=asset_type", "--set", "account_id=main"]
    assert answer(*given, postgres_dsn=dsn) == {"added": 2, "unchanged": 0}
    listed = answer("positions", "list", postgres_dsn=dsn)
    assert [(one["symbol"], one["quantity"]) for one in listed] == [("BRK.B", "5"), ("AAPL270119C00150000", "-2")]
    for option, problem in (("Qty", "must be name=value"), ("account=main", "names none of account_id")):
        refused = closectl("positions", "import", str(file), "--set", option)
        assert refused.exit_code == 2
        assert problem in refused.stderr


@pytest.mark.usefixtures("closes")
def test_show_tells_a_close_from_every_table(closes_database: OnTestStack) -> None:
    shown = answer("show", str(REQUESTS[2]), postgres_dsn=closes_database.dsn(ROLE))
    assert (shown["request"]["status"], shown["request"]["filled_qty"]) == ("completed", "10")
    assert [(one["client_order_id"], one["status"], one["executed_qty"]) for one in shown["orders"]] == [
        (order_id(2, 1), "canceled", "4"),
        (order_id(2, 2), "filled", "6"),
    ]
    told = [f"{one['source']}: {one['what']}" for one in shown["timeline"]]
    for fact in (
        "status_history: position open -> closing",
        "outbox_events: event SUBMIT_CLOSE_ORDER",
        "order_sends: submit sent (1)",
        "order_sends: submit answered: accepted",
        "executions: trade 4 @ 100.25",
        "order_statements: broker states canceled",
        "status_history: close_request submitted -> retryable",
        "executions: trade 6 @ 100.25",
        "status_history: close_request submitted -> completed",
        "status_history: position closing -> closed",
        "outbox_events: event POSITION_CLOSED",
    ):
        assert fact in told
    assert [one["at"] for one in shown["timeline"]] == sorted(one["at"] for one in shown["timeline"])
    assert told.count("outbox_events: event SUBMIT_CLOSE_ORDER") == 2


@pytest.mark.usefixtures("closes")
def test_the_tables_for_people_say_the_same(closes_database: OnTestStack) -> None:
    dsn = closes_database.dsn(ROLE)
    shown = process("show", str(REQUESTS[3]), postgres_dsn=dsn)
    assert shown.exit_code == 0
    for word in (order_id(3), "partially_filled", "trade 2 @ 100.25", "timeline"):
        assert word in shown.stdout
    listed = process("list", "--status", "completed", postgres_dsn=dsn)
    assert [line.split()[:3] for line in listed.stdout.splitlines()[1:]] == [
        [str(REQUESTS[2]), "2", "MSFT"],
        [str(REQUESTS[1]), "1", "AAPL"],
    ]
    assert [one["id"] for one in answer("list", "--position", "3", postgres_dsn=dsn)] == [str(REQUESTS[3])]


@pytest.mark.usefixtures("closes")
def test_verify_says_what_it_could_check(closes_database: OnTestStack) -> None:
    dsn = closes_database.dsn(ROLE)
    done = closectl("verify", postgres_dsn=dsn)
    assert done.exit_code == 0, done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith("not quiet: 2 unfinished close requests")
    assert " 1 conserve             holds: 6 positions (database)" in lines
    assert f"{'':23} not checked: the topics: CLOSECTL_KAFKA_BOOTSTRAP_SERVERS is not set" in lines
    assert any("the broker: not set: CLOSECTL_BROKER_URL, CLOSECTL_BROKER_KEY_ID" in line for line in lines)
    assert [line for line in lines if line.startswith("18 kill switch") and "holds" in line]
    assert lines[-1] == "no violation; 21 of 22 invariants checked"
    told = answer("verify", postgres_dsn=dsn)
    assert (told["quiet"], told["violations"], len(told["invariants"])) == (False, [], 22)
    assert told["invariants"][0]["checked"] == [{"at": "database", "what": "positions", "count": 6}]


def test_verify_prints_each_violation_and_exits_with_1(database: OnTestStack) -> None:
    with owner(database.admin_dsn) as db:
        db.execute("UPDATE positions SET quantity = 9 WHERE id = %s", (add_position(db),))
    done = closectl("verify", "--wait", "0.1", postgres_dsn=database.dsn(ROLE))
    detail = "position 1: quantity is 9; opening, adjustments and executions make 10"
    assert done.exit_code == 1
    assert " 1 conserve             1 VIOLATIONS: 1 positions (database)" in done.stdout
    assert f"violation 1 (conserve): {detail}" in done.stdout.splitlines()
    told = closectl("verify", "--json", postgres_dsn=database.dsn(ROLE))
    assert told.exit_code == 1
    assert [f"{one['subject']}: {one['detail']}" for one in json.loads(told.stdout)["violations"]] == [detail]


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "told"),
    [
        (["verify"], {}, 2, "CLOSECTL_POSTGRES_DSN is not set; give the DSN of role closeflow_operator"),
        (
            ["list"],
            {"postgres_dsn": "postgresql://me@127.0.0.1:1/nothing"},
            2,
            "the database of CLOSECTL_POSTGRES_DSN cannot",
        ),
        (["list"], {"postgres_dsn": "not a dsn"}, 2, "CLOSECTL_POSTGRES_DSN is wrong: must be a DSN"),
        (["close", "1"], {}, 2, "CLOSECTL_API_URL is not set"),
        (["close", "1", "--key", "k7"], {"api_url": "http://127.0.0.1:1"}, 2, "nothing was sent"),
        (["close", "1", "--quantity", "ten"], {"api_url": "http://127.0.0.1:1"}, 2, "'ten' must be a decimal number"),
        (["show", "7"], {}, 2, "be a valid UUID"),
        (["list"], {"postgres_dns": "x"}, 2, "CLOSECTL_POSTGRES_DNS"),
        (["positions", "import", "missing.csv"], {}, 2, "does not exist"),
    ],
)
def test_what_cannot_be_done_is_told_with_its_exit_code(
    arguments: Sequence[str], settings: dict[str, str], code: int, told: str
) -> None:
    done = closectl(*arguments, **settings)
    assert (done.exit_code, done.stdout) == (code, "")
    assert told.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("closes")
def test_a_close_that_is_not_there_is_told(closes_database: OnTestStack) -> None:
    done = closectl("show", str(REQUESTS[6]), postgres_dsn=closes_database.dsn(ROLE))
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"there is no close request {REQUESTS[6]}" in done.stderr


def test_what_others_wrote_cannot_play_with_the_terminal(database: OnTestStack) -> None:
    wild = "\x1b[2J\x07 [red]"
    with owner(database.admin_dsn) as db:
        db.execute("INSERT INTO incidents (kind, severity, client_order_id) VALUES ('gap', 'warning', %s)", (wild,))
        db.execute("INSERT INTO operator_actions (by, action, subject, reason) VALUES (%s, 'halt', 'x', 'r')", (wild,))
        db.execute("UPDATE positions SET symbol = %s WHERE id = %s", (wild, add_position(db)))
        db.execute(
            "INSERT INTO status_history (entity, entity_id, to_status, by) VALUES ('order', %s, 'x', 'x')", (wild,)
        )
    for command in (["actions", "list"], ["positions", "list"], ["verify"], ["incidents", "show", "1"]):
        done = process(*command, postgres_dsn=database.dsn(ROLE))
        assert not {"\x1b", "\x07"} & set(done.stdout + done.stderr), command
        assert "[red]" in done.stdout, command
