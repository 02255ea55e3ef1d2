"""Ask about many orders with few calls: a list answers for hundreds at once; what is not in it is asked for alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from closeflow.broker.protocol import Broker, BrokerUnavailable
from closeflow.domain.model import BrokerUpdate
from closeflow.domain.sending.broker_answers import Acknowledged, LookUpAnswer, NotAccepted, NotSent, Unanswered

log = structlog.get_logger(__name__)

LISTED_FROM: Final = 3
"""So many questions cost more than a list."""


async def newest_by_id(broker: Broker, *, wanted: int) -> Mapping[str, BrokerUpdate]:
    """What the broker states of its newest orders, by client order id, where that saves calls; nothing when it cannot
    be had. Whoever is not in it has to be asked for: a list is no evidence of absence (rule R6)."""
    if wanted < LISTED_FROM:
        return {}
    try:
        return {update.client_order_id: update for update in await broker.newest_orders()}
    except BrokerUnavailable as error:
        log.warning("orders_not_listed", reason=error.reason)
        return {}


async def look_up_all(broker: Broker, client_order_ids: Sequence[str]) -> dict[str, LookUpAnswer]:
    """The answers up to the first that is none: a broker in trouble is not helped by the rest of the questions."""
    listed = await newest_by_id(broker, wanted=len(client_order_ids))
    answers: dict[str, LookUpAnswer] = {one: Acknowledged(listed[one]) for one in client_order_ids if one in listed}
    for client_order_id in client_order_ids:
        if client_order_id in answers:
            continue
        answer = answers[client_order_id] = await broker.look_up(client_order_id)
        if isinstance(answer, NotAccepted | NotSent | Unanswered):
            break
    return answers
