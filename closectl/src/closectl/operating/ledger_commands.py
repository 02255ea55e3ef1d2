"""`closectl orders` and `closectl positions adjust|override`: what changes facts, so it is only shown without --yes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Annotated, Final

import typer

from closectl.arguments import (
    AsJson,
    By,
    Moment,
    Number,
    OrderId,
    PositionId,
    Reason,
    Yes,
    amount,
    number,
    price,
    proper_name,
)
from closectl.command_line import examples
from closectl.environment import absence_window, account_at_broker, broker_name, with_database
from closectl.operating.commands import perform, tell
from closectl.operating.ending import end_one_order
from closectl.operating.lost import Inquiry, Judged
from closectl.output import fail, print_json, print_rows
from closeflow.domain.operator.adjust import Ending, Fill
from closeflow.domain.operator.requests import Done, Outcome
from closeflow.operating.acting import Acted, NotThere, Operator
from closeflow.operating.adjusting import adjust_position, end_position_, name_execution
from closeflow.storage.core.engine import Database
from closeflow.unit_of_work import MoveRefused

orders = typer.Typer(no_args_is_help=True, help="Orders: declare one lost, name a fill.")

Positive = Annotated[Decimal, typer.Option(parser=amount, metavar="NUMBER")]
Price = Annotated[Decimal, typer.Option(parser=price, metavar="NUMBER", help="0 when it was for nothing.")]
_ORDER: Final = "cf-01932f4e8a107c3b9d215f0f7e6a1b22-1"


@orders.command("lost", epilog=examples(f"orders lost {_ORDER} --reason 'the broker denies it in writing' --yes"))
def lost_(order_id: OrderId, reason: Reason, by: By = "", yes: Yes = False, as_json: AsJson = False) -> None:
    """Declare that the broker does not have an order: its request goes on as if it had ended unfilled.

    Shows the evidence first (R6), the broker's included (CLOSECTL_BROKER_*), and is refused while anything of it is
    missing. Should the order be found later after all, its fills are booked and an incident is opened (O20).
    """
    _judge(lambda inquiry: inquiry.order(order_id, Operator(by=by, reason=reason), dry=not yes), yes, as_json)


def override_(position_id: PositionId, reason: Reason, by: By = "", yes: Yes = False, as_json: AsJson = False) -> None:
    """Free a position whose exposure is unproven: declare every order lost that may still fill, each on its evidence.

    A fill without a name has to be named first (`closectl orders execution`).
    """
    _judge(lambda inquiry: inquiry.position(position_id, Operator(by=by, reason=reason), dry=not yes), yes, as_json)


def _judge(work: Callable[[Inquiry], Awaitable[Judged]], yes: bool, as_json: bool) -> None:
    account, within = account_at_broker(), absence_window()
    try:
        judged = with_database(lambda database: work(Inquiry(database=database, account=account, within=within)))
    except NotThere as error:
        fail(str(error))
    except MoveRefused as error:
        fail(f"nothing was done, the move is not a legal one: {error}")
    rows = [
        {"order": order, "evidence": point.name, "holds": point.holds, "detail": point.detail}
        for order, points in judged.evidence.items()
        for point in points
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_rows(rows, ("order", "evidence", "holds", "detail"))
    _conclude(judged.outcome, yes=yes, quiet=as_json)


@orders.command(
    "execution",
    epilog=examples(
        f"orders execution {_ORDER} --exec-id 20260302::9f3 --quantity 4 --price 99.5 --reason 'by the confirmation'"
    ),
)
def execution_(
    order_id: OrderId,
    exec_id: Annotated[
        str, typer.Option(callback=proper_name, help="The broker's own id of the execution; then it is booked once.")
    ],
    quantity: Positive,
    price: Price,
    reason: Reason,
    cum: Annotated[
        Decimal | None,
        typer.Option(parser=amount, metavar="NUMBER", help="What the order had filled with it, if the broker says."),
    ] = None,
    at: Moment = None,
    by: By = "",
    yes: Yes = False,
) -> None:
    """Name a fill that the broker states and whose execution never came, as the broker confirms it (R4).

    It closes a gap and no more, or books a trade that is withheld, as it was told (`execution_withheld`). Request,
    position and accounting follow as for any execution.
    """
    fill = Fill(
        broker=broker_name(),
        exec_id=exec_id,
        quantity=quantity,
        price=price,
        occurred_at=at,
        cum_quantity=cum,
    )
    _perform(
        lambda database: name_execution(database, order_id, fill, Operator(by=by, reason=reason), dry=not yes), yes
    )


ADJUST_EXAMPLES: Final = examples(
    "positions adjust 104 --delta -5 --reason 'transferred out'",
    "positions adjust 104 --delta -5 --if-quantity 20 --reason 'transferred out' --yes",
)
OVERRIDE_EXAMPLES: Final = examples("positions override 104 --reason 'the broker holds nothing of it' --yes")


def adjust_(
    position_id: PositionId,
    delta: Number,
    reason: Reason,
    expected: Annotated[
        Decimal | None,
        typer.Option("--if-quantity", parser=number, metavar="NUMBER", help="Only if this is its quantity now."),
    ] = None,
    by: By = "",
    yes: Yes = False,
) -> None:
    """Change a position by what happened outside: a transfer, an assignment, a split. The delta is signed.

    A close that is under way follows (rule Q): its order is cancelled where it could sell more than is left.
    With --yes it needs --if-quantity, so that a repeated command, or a fill in between, changes nothing.
    """
    if yes and expected is None:
        raise typer.BadParameter("with --yes give --if-quantity, which the look without --yes shows")
    who = Operator(by=by, reason=reason)
    _perform(lambda database: adjust_position(database, position_id, delta, who, expected=expected, dry=not yes), yes)


END_EXAMPLES: Final = examples(
    "positions end 104 --as expired --if-quantity -2 --reason 'worthless on 2026-03-20' --yes"
)


def end_(
    position_id: PositionId,
    ending: Annotated[Ending, typer.Option("--as", help="What happened to it at the broker.")],
    expected: Annotated[
        Decimal,
        typer.Option("--if-quantity", parser=number, metavar="NUMBER", help="Its quantity now; all of it ends."),
    ],
    reason: Reason,
    by: By = "",
    yes: Yes = False,
) -> None:
    """End a position that no close ended: it expired, was assigned or exercised, or a split made another one of it.

    A close that waits ends with it, for that reason. Refused while an order of it may still fill: cancel that first.
    What became of the position (shares of an assignment) is imported.
    """
    _perform(
        lambda database: end_position_(
            database, position_id, ending, expected, Operator(by=by, reason=reason), dry=not yes
        ),
        yes,
    )


@orders.command(
    "end", epilog=examples(f"orders end {_ORDER} --reason 'replaced by hand, the new one is cancelled' --yes")
)
def end_order_(order_id: OrderId, reason: Reason, by: By = "", yes: Yes = False) -> None:
    """Say that nothing more of an order will be filled as ours: it was replaced at the broker, or split into another.

    The broker is asked first (CLOSECTL_BROKER_*); while the order lives there, or is over with a
    fill that has no name yet, it is refused. What the broker filled
    beyond what is booked is not of this order any more: adjust the position by it.
    A trade that is withheld (`execution_withheld`) is taken for one that is booked.
    """
    account = account_at_broker()
    _perform(
        lambda database: end_one_order(database, account, order_id, Operator(by=by, reason=reason), dry=not yes), yes
    )


def _perform(work: Callable[[Database], Awaitable[Outcome]], yes: bool) -> None:
    if yes:
        perform(work)
        return

    async def shown(database: Database) -> Outcome | Acted:
        outcome = await work(database)
        return Acted(_would(outcome)) if isinstance(outcome, Done) else outcome

    perform(shown)


def _conclude(outcome: Outcome, *, yes: bool, quiet: bool) -> None:
    if isinstance(outcome, Done) and quiet:
        return
    tell(Acted(_would(outcome)) if isinstance(outcome, Done) and not yes else outcome)


def _would(done: Done) -> str:
    return f"would be: {done.what}\nnothing was done; repeat it with --yes"
