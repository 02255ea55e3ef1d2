"""docs/runbooks/README.md, the index, made from the kinds of incidents and from the pages themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from closeflow.domain.incidents import IncidentKind

from .markdown import table
from .runbooks import DEFERRED, Page, pages, rules

HEAD: Final = """# Runbooks

One page for each kind of incident and for each alert, named as that: what it means, what it costs meanwhile, how to
look closer, what to do, and when to call somebody. `closectl incidents list` shows what is open, and
`closectl incidents show` names the page; an alert has its page as `runbook_url`.

`python -m tests.architecture.pages` makes this index from the pages. Tests hold that every kind and alert has one, that
every `closectl` command in them parses, and that an operator's login may ask every query.

## Before you paste
The commands take the settings of `closectl` ([operations](../operations.md)) and these variables. Set those that a page
names:
"""
BROKER: Final = """
`psql` takes the DSN of `closectl`; where its password is in `CLOSECTL_POSTGRES_PASSWORD`, give it as `PGPASSWORD`.
Where Connect or a service asks for TLS, add `--cacert` to `curl`, and `--cert` and `--key` where it asks for a
certificate. `ask_broker` looks at the broker with the key of `closectl`:

```sh
ask_broker() {
  curl -sS -H "APCA-API-KEY-ID: $CLOSECTL_BROKER_KEY_ID" -H @- "$CLOSECTL_BROKER_URL$1" \\
    <<< "APCA-API-SECRET-KEY: $CLOSECTL_BROKER_SECRET_KEY"
}
```

Commands under Diagnosis change nothing. Those under Mitigation do, and each verb of `closectl` keeps its reason
(`closectl actions list`); the reasons here are examples, write your own. A verb that takes `--yes` only shows what it
would do without it.
"""
ALERTS: Final = """
## Alerts
The rules are in `deploy/monitoring/alerts.yaml`. `IncidentOpen` stands for the open incidents of a kind: its page
is the kind's.
"""
INCIDENTS: Final = """
## Incidents
*Freezes*: its close, and every other close of the position, sends nothing more before a person has closed the incident
([frozen](../operations.md#incidents)).
"""
VARIABLES: Final[Mapping[str, str]] = {
    "CLOSE": "the close request's id, `close_request_id` of an incident",
    "POSITION": "the position's id",
    "ORDER": "the client order id, `cf-…`: the subject of an incident about an order",
    "INCIDENT": "the incident's number",
    "ACCOUNT": "the account's id, as it is here",
    "SYMBOL": "the symbol as it is here; a broker is asked for a crypto pair without its slash",
    "BROKER_ORDER": "the broker's own id of the order",
    "EXECUTION": "the broker's id of an execution",
    "QUANTITY": "a quantity: of a fill, of an order, or what the position has now",
    "PRICE": "a price",
    "DELTA": "the signed change of a position",
    "OVERFILL": "the id of a position that is tagged `overfill_of`",
    "DAY": "a day, as 2026-03-02",
    "SENDER": "a sender, as `closectl senders list` names it",
    "PARTITION": "of a letter in its dead letter topic",
    "OFFSET": "the same",
    "GROUP": "a consumer group: `order-submitter` or `fill-processor`",
    "FILE": "a file of positions",
    "SERVICE_URL": "address of the health port of the service in question",
    "ORDER_SUBMITTER_URL": "the same of order-submitter",
    "BROKER_GATEWAY_URL": "the same of broker-gateway",
    "FILL_PROCESSOR_URL": "the same of fill-processor",
    "RECONCILER_URL": "the same of a reconciler",
    "CONNECT_URL": "the REST address of Kafka Connect",
    "CONNECTOR": "`closeflow-outbox-<database>`",
    "SLOT": "`closeflow_<database>`",
    "CREDENTIALS_FILE": "where the Connect worker finds the login of `closeflow_debezium`",
}
"""What each variable of a command is, but for the settings of closectl."""


def page() -> str:
    """The whole page."""
    variables = table(("variable", "what it is"), ((f"`${name}`", told) for name, told in VARIABLES.items()))
    kinds = table(("kind", "severity", "freezes", "closed by", "what happened"), _kinds())
    of_rules = [pages()[one.name] for one in rules() if one.has_page]
    alerts = table(("alert", "severity", "what happened"), map(_alert, of_rules))
    return "".join([HEAD, "\n", variables, BROKER, ALERTS, "\n", alerts, INCIDENTS, "\n", kinds])


def _alert(one: Page) -> tuple[str, ...]:
    return f"[{one.name}]({one.name}.md)", one.head["Severity"], one.first_sentence


def _kinds() -> Iterator[tuple[str, ...]]:
    for kind in [*IncidentKind, DEFERRED]:
        one = pages()[kind]
        name = f"`{kind}`" if kind != DEFERRED else f"`{DEFERRED}_<reason>`"
        freezes = "yes" if one.head["freezes the close"] == "yes" else ""
        yield f"[{name}]({kind}.md)", one.head["Severity"], freezes, one.head["closed by"], one.first_sentence
