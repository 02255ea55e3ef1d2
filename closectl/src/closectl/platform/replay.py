"""`closectl topics replay`: what was said of a position is published once more."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from closectl.arguments import AsJson, By, PositionId, Reason, Yes
from closectl.command_line import examples
from closectl.environment import with_database
from closectl.operating.commands import tell
from closectl.output import fail, print_json
from closeflow.domain.model import Topic
from closeflow.domain.operator.requests import Refused
from closeflow.operating.acting import Acted, NotThere, Operator
from closeflow.operating.replaying import TOPICS, replay_events

REPLAY_EXAMPLES: Final = examples(
    "topics replay 104 --reason 'risk lost its state'",
    "topics replay 104 --topic execution-events --reason 'accounting was restored from a backup' --yes",
)


def replay_(
    position_id: PositionId,
    reason: Reason,
    topic: Annotated[
        list[Topic] | None,
        typer.Option("--topic", help="Only this topic, position-events or execution-events; may be repeated."),
    ] = None,
    by: By = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Publish every event of a position once more, from the outbox and through it, each with a higher emission.

    Consumers end as they were: of position-events they apply only a higher version, of execution-events each event id
    once. One that lost its state has the position back. It is recorded who did it, and why.
    """
    topics = tuple(dict.fromkeys(topic or TOPICS))
    if any(one not in TOPICS for one in topics):
        raise typer.BadParameter(
            f"--topic must be {' or '.join(TOPICS)}; an order is asked for again by `closectl requests retry`"
        )
    who = Operator(by=by, reason=reason)
    try:
        outcome = with_database(lambda database: replay_events(database, position_id, topics, who, dry=not yes))
    except NotThere as error:
        fail(str(error))
    if isinstance(outcome, Refused) or not as_json:
        tell(outcome if isinstance(outcome, Refused) or yes else Acted(_would(outcome)))
    else:
        print_json({"position_id": position_id, "done": yes, "what": outcome.what})


def _would(outcome: Acted) -> str:
    return f"would be: {outcome.what}\nnothing was done; repeat it with --yes"
