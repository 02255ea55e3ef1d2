"""Each kind of incident has a runbook; every command in one is a command. What a database says is in tests/storage."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from closeflow.domain.close.deferral import MARKET_CLOSED, incident_kind
from closeflow.domain.incidents import IncidentKind, runbook
from closeflow.domain.position.freeze import FREEZING_KINDS
from closeflow.storage.incidents import RESOLVED_WHEN

from .repository import REPOSITORY
from .runbooks import DEFERRED, SAMPLES, faults, pages, rules, variables
from .runbooks_page import VARIABLES

SETTINGS = {"CLOSECTL_API_URL", "CLOSECTL_KAFKA_BOOTSTRAP_SERVERS", "CLOSECTL_POSTGRES_DSN"}
OF_THE_KIND = '{{ if match "^deferred_" $labels.kind }}' + DEFERRED + "{{ else }}{{ $labels.kind }}{{ end }}"
"""As the rules write it: what `runbook` does with a kind."""


def test_each_kind_and_each_alert_has_a_page_and_each_page_is_of_one() -> None:
    alerts = [one.name for one in rules() if one.has_page]
    assert sorted(pages()) == sorted([*IncidentKind, DEFERRED, *alerts])
    kinds = [*IncidentKind, incident_kind(MARKET_CLOSED)]
    assert [kind for kind in kinds if not (REPOSITORY / runbook(kind)).exists()] == []


def test_an_alert_leads_to_the_page_of_its_name_and_that_says_how_bad_it_is() -> None:
    for one in rules():
        if one.has_page:
            assert (one.url, one.severity) == (runbook(one.name), pages()[one.name].head["Severity"])


def test_the_alert_about_incidents_leads_to_the_page_of_each_kind() -> None:
    assert [one.url for one in rules() if not one.has_page] == [runbook(OF_THE_KIND)]


def test_every_page_is_whole_and_every_command_parses() -> None:
    assert {page.name: wrong for page in pages().values() if (wrong := faults(page))} == {}


def test_a_page_says_of_its_kind_what_the_code_does() -> None:
    for kind in IncidentKind:
        head = pages()[kind].head
        told = (head["Severity"], head["freezes the close"] == "yes", "the reconciler" in head["closed by"])
        assert told[:2] == (kind.severity, kind in FREEZING_KINDS), kind
        assert told[2] or kind not in RESOLVED_WHEN, kind


def test_the_index_says_what_every_variable_is_and_no_other() -> None:
    used = {name for page in pages().values() for name in variables(page)}
    assert used == VARIABLES.keys() | (used & SETTINGS)
    assert SAMPLES.keys() == VARIABLES.keys() | SETTINGS


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("## Impact\n", "## Cost\n", "its sections are Meaning, Cost, Diagnosis"),
        ("# gap\n", "# gaps\n", "it does not begin with `# gap`"),
        ("closectl incidents list", "closectl incident list", "No such command 'incident'"),
        ("closectl incidents show", "closectl incidents tell", "No such command 'tell'"),
        ("--kind gap", "--sort gap", "No such option"),
        ('show "$INCIDENT"', "show", "Missing argument"),
        ('show "$INCIDENT"', 'show "$ORDER"', "a valid integer"),
        ('show "$CLOSE"', 'show "$THAT_CLOSE"', "nothing says what $THAT_CLOSE is"),
        ("--price", "--prize", "No such option"),
        (" --reason 'by the confirmation' --yes", " --yes", "Missing option '--reason'"),
        ('show "$INCIDENT"', 'show "$INCIDENT', "unexpected EOF"),
        ("SELECT exec_id", "DELETE exec_id", "it does more than look"),
        ("/v2/account/activities/FILL", "/v2/accounts/FILL", "a broker has no /v2/accounts/FILL"),
        ('psql "$CLOSECTL_POSTGRES_DSN"', "psql closeflow", "it asks another database"),
        ("ask_broker", "ask_the_broker", "no page has such a command"),
    ],
)
def test_a_fault_in_a_page_is_noticed(right: str, wrong: str, said: str) -> None:
    page = pages()["gap"]
    assert faults(page) == []
    assert right in page.text
    broken = replace(page, text=page.text.replace(right, wrong))
    assert [one for one in faults(broken) if said in one] != [], faults(broken)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("/status", "/state", "nothing answers GET /connectors/closeflow-outbox-closeflow/state"),
        ("-X POST", "-X PUT", "nothing answers PUT /connectors/closeflow-outbox-closeflow/restart"),
        ("closeflow_connector_restarts_total", "closeflow_connector_starts_total", "no service exports"),
        ("[15m])", "[15m]", "a bracket is not closed"),
        ("_total[", '_total{task="0"}[', "no metric of the block has the label task"),
    ],
)
def test_a_fault_in_an_address_or_a_metric_is_noticed(right: str, wrong: str, said: str) -> None:
    page = pages()[IncidentKind.CONNECTOR_TASK_FAILED]
    assert right in page.text
    broken = replace(page, text=page.text.replace(right, wrong))
    assert [one for one in faults(broken) if said in one] != [], faults(broken)


def test_every_link_leads_to_a_heading_that_is_there() -> None:
    index = REPOSITORY / "docs" / "runbooks"
    lost = []
    for page in pages().values():
        for file, anchor in re.findall(r"\]\(([^)#]+)#([^)]+)\)", page.text):
            headings = re.findall(r"^#+ (.+)$", (index / file).read_text(), flags=re.MULTILINE)
            names = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            lost += [] if anchor in names else [f"{page.name}: {file}#{anchor}"]
    assert lost == []
