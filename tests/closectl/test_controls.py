"""The kill switch and the account limits by hand, as the operator's role: the effect, its record, and refusals."""

from __future__ import annotations

from typing import Any

import pytest

from tests.closectl.running import ROLE, Done, answer, closectl
from tests.conftest import Database
from tests.storage.seeding import owner


@pytest.fixture(scope="module")
def desk(module_database: Database) -> Database:
    with owner(module_database.admin_dsn) as db:
        db.execute("INSERT INTO accounts (account_id, broker) VALUES ('main', 'alpaca')")
    return module_database


def act(desk: Database, *arguments: str) -> Done:
    return closectl(*arguments, "--reason", "asked by risk", "--by", "ann", postgres_dsn=desk.dsn(ROLE))


def shown(desk: Database, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer(*arguments, postgres_dsn=desk.dsn(ROLE))
    return found


def states(desk: Database) -> dict[str, str]:
    return {row["scope"]: row["state"] for row in shown(desk, "controls", "show")}


def recorded(desk: Database, subject: str) -> list[tuple[str, Any, Any]]:
    """The newest first."""
    found = shown(desk, "actions", "list", "--subject", subject)
    assert {(row["by"], row["reason"]) for row in found} == {("ann", "asked by risk")}
    return [(row["action"], row["before"], row["after"]) for row in found]


def test_trading_is_halted_reduced_and_released(desk: Database) -> None:
    assert states(desk) == {"global": "active"}
    assert act(desk, "halt").stdout == "trading is halted\n"
    assert states(desk) == {"global": "halted"}
    again = act(desk, "halt")
    assert (again.exit_code, again.stdout) == (0, "nothing to do: trading is halted already, by ann: asked by risk\n")
    assert act(desk, "reduce").stdout == "trading is reducing\n"
    assert act(desk, "release").stdout == "trading is active\n"
    assert recorded(desk, "global") == [
        ("release", {"state": "reducing"}, {"state": "active"}),
        ("reduce", {"state": "halted"}, {"state": "reducing"}),
        ("halt", {"state": "active"}, {"state": "halted"}),
    ]


def test_an_account_is_halted_apart_and_a_release_says_what_it_does_not_lift(desk: Database) -> None:
    assert act(desk, "halt", "--account", "main").stdout == "trading of account main is halted\n"
    assert states(desk) == {"global": "active", "main": "halted"}
    act(desk, "halt")
    lifted = act(desk, "release", "--account", "main")
    assert lifted.stdout == "trading of account main is active; still, trading is halted\n"
    act(desk, "release")
    assert recorded(desk, "main")[-1] == ("halt", {"state": None}, {"state": "halted"})


def test_limits_are_changed_one_by_one(desk: Database) -> None:
    done = act(desk, "limits", "set", "--account", "main", "--max-order-qty", "500.5", "--submits-per-minute", "60")
    assert done.exit_code == 0, done.stderr
    (row,) = shown(desk, "limits", "show", "--account", "main")
    assert (row["max_order_qty"], row["max_order_notional"], row["submits_per_minute"]) == ("500.5", "100000000", 60)
    was = {"max_order_qty": "1000000", "max_order_notional": "100000000", "submits_per_minute": 6000}
    assert recorded(desk, "main")[0] == (
        "set_limits",
        was,
        {**was, "max_order_qty": "500.5", "submits_per_minute": 60},
    )
    again = act(desk, "limits", "set", "--account", "main", "--submits-per-minute", "60")
    assert again.stdout == "nothing to do: these are the limits of account main\n"


REFUSED: dict[str, tuple[tuple[str, ...], int, str]] = {
    "an account that is not there": (("halt", "--account", "nobody"), 1, "there is no account nobody"),
    "limits of an account that is not there": (
        ("limits", "set", "--account", "nobody", "--max-order-qty", "1"),
        1,
        "there is no account nobody",
    ),
    "limits without a limit": (("limits", "set", "--account", "main"), 1, "nothing is given"),
    "a limit of nothing": (
        ("limits", "set", "--account", "main", "--max-order-qty", "0"),
        2,
        "greater than 0",
    ),
    "a limit that is no number": (
        ("limits", "set", "--account", "main", "--max-order-notional", "infinity"),
        2,
        "must be a decimal number such as 12.5",
    ),
}


@pytest.mark.parametrize(("arguments", "code", "text"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_with_a_reason(
    desk: Database, arguments: tuple[str, ...], code: int, text: str
) -> None:
    before = len(shown(desk, "actions", "list"))
    done = act(desk, *arguments)
    assert done.exit_code == code
    assert text in done.stderr
    assert len(shown(desk, "actions", "list")) == before


def test_every_verb_wants_a_reason(desk: Database) -> None:
    for verb in (["halt"], ["release"], ["reduce"], ["limits", "set", "--account", "main"]):
        done = closectl(*verb, "--by", "ann", postgres_dsn=desk.dsn(ROLE))
        assert done.exit_code == 2
        assert "--reason" in done.stderr
