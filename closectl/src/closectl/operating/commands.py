"""`closectl requests`, `orders`, `incidents`, `senders`, `actions`: what an operator does by hand, with a reason."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any, assert_never
from uuid import UUID

import typer

from closectl.arguments import AsJson, By, IncidentId, Limit, Reason, named, proper_name
from closectl.arguments import subject as subject_
from closectl.command_line import examples
from closectl.environment import with_database
from closectl.output import console, fail, plain, print_json, print_rows, visible
from closeflow.domain.incidents import runbook
from closeflow.domain.operator.requests import Already, Done, Outcome, Refused
from closeflow.operating.acting import Acted, NotThere, Operator
from closeflow.operating.closes import abandon_request, cancel_request, retry_request
from closeflow.operating.incidents import close_incident_by_hand
from closeflow.operating.senders import confirm_sender_exit
from closeflow.storage.core.engine import Database, transaction
from closeflow.storage.incidents import IncidentRow, find_incident, list_incidents
from closeflow.storage.operator_actions import list_actions
from closeflow.storage.senders import list_senders
from closeflow.unit_of_work import MoveRefused

requests = typer.Typer(no_args_is_help=True, help="Close requests: retry, abandon, cancel.")
incidents = typer.Typer(no_args_is_help=True, help="Incidents: what needs a person.")
senders = typer.Typer(no_args_is_help=True, help="Processes that send orders, and whether they have exited.")
actions = typer.Typer(no_args_is_help=True, help="What operators did by hand.")

RequestId = Annotated[UUID, typer.Argument(help="The close request.")]


def _example(verb: str, reason: str) -> str:
    return examples(f"requests {verb} 01932f4e-8a10-7c3b-9d21-5f0f7e6a1b22 --reason '{reason}'")


def perform(work: Callable[[Database], Awaitable[Outcome | Acted]]) -> None:
    """Run it and say what came of it. Exit code 1 when it is refused or names something that is not there."""
    try:
        outcome = with_database(work)
    except NotThere as error:
        fail(str(error))
    except MoveRefused as error:
        fail(f"nothing was done, the move is not a legal one: {error}")
    tell(outcome)


def tell(outcome: Outcome | Acted) -> None:
    """Print what was done, or that there was nothing to do; exits with 1 and every reason where it was refused."""
    match outcome:
        case Done(what=what) | Acted(what=what):
            console.print(visible(what), markup=False, highlight=False, soft_wrap=True)
        case Already(what=what):
            console.print(f"nothing to do: {visible(what)}", markup=False, highlight=False, soft_wrap=True)
        case Refused(reasons):
            listed = f" {reasons[0]}" if len(reasons) == 1 else "".join(f"\n- {reason}" for reason in reasons)
            fail(f"nothing was done:{listed}")
        case _:
            assert_never(outcome)


@requests.command("retry", epilog=_example("retry", "the desk asked for it"))
def retry_(request_id: RequestId, reason: Reason, by: By = "") -> None:
    """Try a retryable close again now, for what is still owed; also one that is not retried by itself.

    Refused while an order of the position may still fill, while it is frozen, and after its cancel or deadline. A close
    that failed is closed again with `closectl close`, under a new key.
    """
    perform(lambda database: retry_request(database, request_id, Operator(by=by, reason=reason)))


@requests.command("abandon", epilog=_example("abandon", "it is closed elsewhere"))
def abandon_(request_id: RequestId, reason: Reason, by: By = "") -> None:
    """Give a retryable close up, or let a position whose close failed be open again; nothing is sent.

    Refused while an order of the position may still fill.
    """
    perform(lambda database: abandon_request(database, request_id, Operator(by=by, reason=reason)))


@requests.command("cancel", epilog=_example("cancel", "the desk keeps the position"))
def cancel_(request_id: RequestId, reason: Reason, by: By = "") -> None:
    """Cancel a close: at once where no order works, else by cancelling its order at the broker.

    What filled before the broker took the cancel stays filled.
    """
    perform(lambda database: cancel_request(database, request_id, Operator(by=by, reason=reason)))


@incidents.command("list", epilog=examples("incidents list", "incidents list --kind gap --closed"))
def list_incidents_(
    closed: Annotated[bool, typer.Option("--closed", help="Also those that are closed.")] = False,
    kind: Annotated[str | None, named("Only this kind, such as gap.")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List incidents, the newest first. docs/runbooks has a page for each kind, which says what to do."""

    async def work(database: Database) -> list[IncidentRow]:
        async with transaction(database) as tx:
            return await list_incidents(tx, closed=closed, kind=kind, limit=limit)

    found = [asdict(one) for one in with_database(work)]
    columns = ("id", "opened_at", "severity", "kind", "subject", "count", "detail")
    _print(found, (*columns, "closed_by", "resolution") if closed else columns, as_json)


@incidents.command("show", epilog=examples("incidents show 7"))
def show_incident(incident_id: IncidentId, as_json: AsJson = False) -> None:
    """Show one incident, whole, and the page that says what to do."""

    async def work(database: Database) -> IncidentRow | None:
        async with transaction(database) as tx:
            return await find_incident(tx, incident_id=incident_id)

    found = with_database(work)
    if found is None:
        fail(f"there is no incident {incident_id}; `closectl incidents list --closed` shows those that are")
    members = asdict(found) | {"runbook": runbook(found.kind)}
    if as_json:
        print_json(members)
        return
    for name, value in members.items():
        console.print(f"{name:18} {plain(value)}", markup=False, highlight=False, soft_wrap=True)


@incidents.command("close", epilog=examples("incidents close 7 --reason 'the broker confirmed the fill'"))
def close_incident_(incident_id: IncidentId, reason: Reason, by: By = "") -> None:
    """Close an incident; the reason becomes its resolution. A request that it froze goes on.

    As long as another incident that freezes the request is open, it stays frozen.
    """
    perform(lambda database: close_incident_by_hand(database, incident_id, Operator(by=by, reason=reason)))


@senders.command("list", epilog=examples("senders list"))
def list_senders_(limit: Limit = 100, as_json: AsJson = False) -> None:
    """List the processes that send orders; `unanswered` are their sends without an answer."""

    async def work(database: Database) -> list[dict[str, Any]]:
        async with transaction(database) as tx:
            return await list_senders(tx, limit=limit)

    rows = with_database(work)
    for row in rows:
        row["silent_for_s"] = int(row.pop("silent_for").total_seconds())
    columns = ("instance_id", "host", "pid", "started_at", "last_seen_at", "silent_for_s", "exited_at", "unanswered")
    _print(rows, columns, as_json)


@senders.command("exited", epilog=examples("senders exited host-1/4711 --reason 'ps shows no such process'"))
def sender_exited_(
    instance_id: Annotated[
        str, typer.Argument(callback=proper_name, help="The sender, as `closectl senders list` names it.")
    ],
    reason: Reason,
    by: By = "",
) -> None:
    """Confirm that a sender has exited: that its process is gone, seen on its host, not guessed from its silence.

    A paused process that wakes up could still send what it had begun; an order is lost only when it cannot (R6).
    """
    perform(lambda database: confirm_sender_exit(database, instance_id, Operator(by=by, reason=reason)))


@actions.command("list", epilog=examples("actions list --subject global"))
def list_actions_(
    subject: Annotated[
        str | None, typer.Option(callback=subject_, help="Only of this request, order, position, incident, …")
    ] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List what operators did by hand, the newest first: who, what, why, and what it changed."""

    async def work(database: Database) -> list[dict[str, Any]]:
        async with transaction(database) as tx:
            return await list_actions(tx, subject=subject, limit=limit)

    _print(with_database(work), ("at", "by", "action", "subject", "reason", "before", "after"), as_json)


def _print(rows: Sequence[dict[str, Any]], columns: Sequence[str], as_json: bool) -> None:
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, columns)
