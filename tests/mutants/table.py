"""The mutants: one change each that a wrong idea of the system would make, and the tests that have to notice it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DOMAIN: Final = "libs/closeflow/src/closeflow/domain"
STORAGE: Final = "libs/closeflow/src/closeflow/storage"
TESTS: Final = "libs/closeflow/tests/domain"


@dataclass(frozen=True, slots=True)
class Mutant:
    """`before` stands once in the file and becomes `after`; each test of `killed_by` (pytest node ids) then fails."""

    idea: str
    file: str
    before: str
    after: str
    killed_by: tuple[str, ...]


MUTANTS: Final = (
    Mutant(
        "a new id on not-found",
        f"{DOMAIN}/orders/status.py",
        "or refused(order) or is_lost(order)",
        "or refused(order) or is_lost(order) or order.not_found_count > 0",
        (f"{TESTS}/test_order_status.py::test_an_order_is_not_over_because_it_was_not_found",),
    ),
    Mutant(
        "adding last_qty without de-duplication",
        f"{DOMAIN}/orders/judge_update.py",
        "        if one.exec_id == known:",
        "        if False:",
        (f"{TESTS}/test_judge_update.py::test_the_same_execution_again_changes_nothing",),
    ),
    Mutant(
        "offset committed before the database",
        "libs/closeflow/src/closeflow/kafka/consume.py",
        "            found = self._sort_out(batch)",
        "            await self._commit({tp: records[-1].offset + 1 for tp, records in batch.items()})\n"
        "            found = self._sort_out(batch)",
        ("tests/kafka/test_consume.py::test_offsets_are_committed_only_after_the_batch_was_processed",),
    ),
    Mutant(
        "no sequence check",
        f"{DOMAIN}/orders/judge_update.py",
        "        if _rank(new) <= _rank(old):",
        "        if False:",
        (f"{TESTS}/test_judge_update.py::test_of_two_statements_of_one_kind_the_higher_sequence_counts",),
    ),
    Mutant(
        "a compare-and-set dropped",
        f"{STORAGE}/order_sends.py",
        " AND s.answered_at IS NULL\n    RETURNING",
        "\n    RETURNING",
        ("tests/storage/test_answers.py::test_a_second_answer_changes_neither_the_send_nor_its_order",),
    ),
    Mutant(
        "no lock on the position",
        f"{STORAGE}/book/load.py",
        '    ORDER BY id FOR NO KEY UPDATE\n""")\n_LOCK_REQUESTS',
        '    ORDER BY id\n""")\n_LOCK_REQUESTS',
        ("tests/storage/test_locks.py::test_a_book_is_held_until_its_transaction_ends",),
    ),
    Mutant(
        "no lock on the position that is closed",
        f"{STORAGE}/close_requests.py",
        '    ORDER BY id FOR NO KEY UPDATE\n""")\n',
        '    ORDER BY id\n""")\n',
        ("tests/storage/test_locks.py::test_a_position_to_be_closed_is_held_until_its_transaction_ends",),
    ),
    Mutant(
        "auto-commit on",
        "libs/closeflow/src/closeflow/kafka/consume.py",
        "        enable_auto_commit=False,",
        "        enable_auto_commit=True,\n        auto_commit_interval_ms=50,",
        ("tests/kafka/test_consume.py::test_a_batch_that_did_not_finish_is_read_again",),
    ),
    Mutant(
        "row-not-found straight to the dead letters",
        "services/order-submitter/src/order_submitter/plan_orders.py",
        "            if waiting and monotonic() >= give_up_at:",
        "            if waiting:",
        ("tests/pipeline/test_order_submitter.py::test_a_request_that_is_not_visible_yet_is_waited_for",),
    ),
    Mutant(
        "cleaner by age only",
        "migrations/versions/0017_short_locks.py",
        "            IF unproven THEN",
        "            IF false THEN",
        ("tests/storage/test_outbox_partitions.py::test_a_day_that_kafka_may_lack_is_kept",),
    ),
    Mutant(
        "a refused re-send taken as rejection",
        f"{DOMAIN}/orders/refusals.py",
        "    if order_status.sends_that_count(order) != 1 or",
        "    if order_status.sends_that_count(order) == 0 or",
        (f"{TESTS}/test_judge_update.py::test_a_refusal_proves_nothing",),
    ),
    Mutant(
        "retry with an open gap",
        f"{DOMAIN}/orders/status.py",
        "    return is_done(order) and is_named(order)",
        "    return is_done(order)",
        (f"{TESTS}/test_order_status.py::test_clear", f"{TESTS}/test_timeouts.py::test_a_request_waits"),
    ),
    Mutant(
        "retry while a trade is withheld",
        f"{DOMAIN}/orders/status.py",
        "    return unattributed(order) == ZERO and not unclear_trades(order)",
        "    return unattributed(order) == ZERO",
        (f"{TESTS}/test_withheld.py",),
    ),
    Mutant(
        "plan skipped because the inbox knows the event",
        "services/order-submitter/src/order_submitter/plan_orders.py",
        "                result = plan_batch(known, asked, ",
        "                from sqlalchemy import text\n"
        "                asked_of = text(\"SELECT event_id FROM inbox WHERE consumer = 'order-submitter'\")\n"
        "                rows = await tx.execute(asked_of)\n"
        "                received = {row.event_id for row in rows}\n"
        "                asked = [one for one in asked if one[0] not in received]\n"
        "                result = plan_batch(known, asked, ",
        ("tests/pipeline/test_order_submitter.py::test_an_event_that_was_received_before_is_planned_when_it_is_time",),
    ),
    Mutant(
        "kill switch read once at start",
        f"{STORAGE}/trading_controls.py",
        '    state = effective_state(row["states"] or {}, account_id)\n',
        '    state = effective_state(row["states"] or {}, account_id)\n'
        "    state = lock_controls.__dict__.setdefault(account_id, state)\n",
        (
            "tests/storage/test_trading_controls.py::test_a_halt_counts_as_soon_as_it_is_committed",
            "tests/pipeline/test_submitting_controls.py::"
            "test_a_halt_holds_an_order_that_is_planned_and_lets_cancels_and_look_ups_pass",
        ),
    ),
    Mutant(
        "limits per process",
        f"{STORAGE}/trading_controls.py",
        "    limits = controls.limits\n    if limits is not None:",
        "    limits = controls.limits\n    if False:",
        (
            "tests/storage/test_trading_controls.py::test_two_that_claim_at_once_count_one_after_the_other",
            "tests/pipeline/test_submitting_controls.py::"
            "test_the_submits_of_a_minute_are_the_accounts_over_all_processes",
        ),
    ),
    Mutant(
        "409 turned into 404",
        "services/close-api/src/close_api/errors.py",
        "    Code.POSITION_ALREADY_CLOSING: Status(\n        409,",
        "    Code.POSITION_ALREADY_CLOSING: Status(\n        404,",
        ("tests/pipeline/test_close_api.py::test_fifty_closes_of_one_position_over_two_processes_accept_one",),
    ),
    Mutant(
        "outbox insert outside the transaction",
        "libs/closeflow/src/closeflow/unit_of_work.py",
        "    await insert_events(tx, events=result.events)",
        "    async with tx.engine.begin() as other:\n        await insert_events(other, events=result.events)",
        ("tests/pipeline/test_close_api.py::test_fifty_closes_of_one_position_over_two_processes_accept_one",),
    ),
    Mutant(
        "naive datetimes",
        f"{STORAGE}/core/bulk.py",
        "        if value.tzinfo is None:",
        "        if False:",
        ("tests/storage/test_bulk.py",),
    ),
    Mutant(
        "accounting per message instead of per execution",
        "services/fill-processor/src/fill_processor/apply_batch.py",
        "            booked = execution_ledger.entries(order, verdict.order)",
        "            booked = execution_ledger.entries(replace(order, executions=()), verdict.order)",
        (
            "services/fill-processor/tests/test_apply_batch.py::"
            "test_a_batch_makes_one_position_event_with_the_next_version_and_one_event_per_execution",
        ),
    ),
    Mutant(
        "a stub believed as a quote",
        f"{DOMAIN}/close/quotes.py",
        "    if quote.bid and quote.ask and _far_apart(",
        "    if False and _far_apart(",
        (f"{TESTS}/test_odd_markets.py::test_how_wide_a_quote_may_be_is_a_setting",),
    ),
    Mutant(
        "prices off the increment for ever",
        f"{DOMAIN}/close/outcome.py",
        "or increments > 1):",
        "or increments > 9):",
        (f"{TESTS}/test_ticks.py::test_a_second_refusal_for_the_increment_ends_the_close",),
    ),
    Mutant(
        "a residual that keeps its position open",
        f"{DOMAIN}/lots.py",
        "    return abs(quantity) < LOTS[asset_type]",
        "    return quantity == ZERO",
        (f"{TESTS}/test_residuals.py::test_an_adjustment_to_a_residual_closes_a_position_that_nobody_closes",),
    ),
    Mutant(
        "a claim begun although another answered it",
        f"{STORAGE}/order_sends.py",
        "AND order_sends.started_at = r.started_at AND order_sends.answered_at IS NULL\n",
        "AND order_sends.started_at = r.started_at\n",
        (
            "tests/storage/test_answers.py::"
            "test_a_claim_that_has_not_begun_is_answered_by_another_and_then_refused_to_its_sender",
        ),
    ),
    Mutant(
        "a claim answered although it has begun",
        f"{STORAGE}/order_sends.py",
        "      AND (order_sends.begun_at IS NULL OR r.though_begun)\n",
        "",
        ("tests/storage/test_answers.py::test_a_claim_that_has_begun_is_nobodys_to_answer",),
    ),
    Mutant(
        "dropping what of a call nobody reads",
        "services/close-api/src/close_api/rest/unread_input.py",
        'if request.scope["query_string"]:',
        "if False:",
        ("services/close-api/tests/test_unread_input.py::test_a_query_is_refused_by_its_names",),
    ),
    Mutant(
        "a body without a length is no body",
        "services/close-api/src/close_api/rest/unread_input.py",
        'if http_version == "1.0" and not reads and (length is None or coding is not None):',
        "if False:",
        ("services/close-api/tests/test_unread_input.py::test_a_call_of_http_1_0_has_to_say_how_long_its_body_is",),
    ),
    Mutant(
        "a fill refused for its average price",
        "libs/closeflow/src/closeflow/broker/alpaca/parse.py",
        'average_price=aside(order, "filled_avg_price"),',
        'average_price=optional_number(order, "filled_avg_price"),',
        ("libs/closeflow/tests/broker/test_odd_fills.py::test_a_fill_is_read_whatever_else_is_odd",),
    ),
    Mutant(
        "no fill is for nothing",
        f"{DOMAIN}/operator/adjust.py",
        "fill.price >= ZERO",
        "fill.price > ZERO",
        (f"{TESTS}/test_adjust.py::test_an_operators_execution_may_be_for_nothing",),
    ),
    Mutant(
        "somebody else's unreadable fill holds up ours",
        "libs/closeflow/src/closeflow/broker/alpaca/activities.py",
        "if _is_foreign(order):",
        "if False:",
        (
            "libs/closeflow/tests/broker/test_foreign.py::test_a_fill_that_cannot_be_read_is_passed_over_when_its_order_is_foreign",
        ),
    ),
    Mutant(
        "absence although a fill was left out",
        "libs/closeflow/src/closeflow/broker/protocol.py",
        'return not self.doubtful & {symbol, ""}',
        "return True",
        ("libs/closeflow/tests/broker/test_foreign.py::test_what_is_left_out_speaks_only_against_its_own_symbol",),
    ),
    Mutant(
        "a position ends under its close",
        f"{DOMAIN}/operator/non_trade_activity.py",
        'return Waits("; ".join(obstacles)) if obstacles else Ends(ending)',
        "return Ends(ending)",
        (f"{TESTS}/test_non_trade_activity.py::test_a_position_never_ends_while_something_of_it_is_under_way",),
    ),
    Mutant(
        "a part of a holding ends all of it",
        f"{DOMAIN}/operator/non_trade_activity.py",
        "activity.quantity == -held and at_broker == ZERO",
        "activity.quantity is not None",
        (f"{TESTS}/test_non_trade_activity.py::test_anything_else_that_leaves_a_difference_is_for_a_person",),
    ),
    Mutant(
        "a charge booked each time that it is stated",
        f"{DOMAIN}/orders/charges.py",
        "    if known is None:\n",
        "    if True:\n",
        (
            f"{TESTS}/test_charges.py::test_one_charge_that_comes_twice_is_booked_once_and_with_another_amount_a_person_is_told",
        ),
    ),
    Mutant(
        "a bust leaves the commission of its trade in the books",
        f"{DOMAIN}/orders/execution_ledger.py",
        "yield Reversed(was, one.by, told)",
        "yield Reversed(was, one.by)",
        (f"{TESTS}/test_charges.py::test_a_bust_takes_back_what_went_with_the_trade_and_leaves_a_charge_of_its_own",),
    ),
    Mutant(
        "an activity applied twice",
        "services/reconciler/src/reconciler/jobs/import_non_trades.py",
        "if one.activity_id not in done and concerns(",
        "if concerns(",
        ("tests/pipeline/test_non_trades.py::test_an_activity_counts_once",),
    ),
    Mutant(
        "an operator ends a position under a live order",
        f"{DOMAIN}/operator/adjust.py",
        "obstacles = tuple(unclear(book)) if",
        "obstacles = () if",
        (f"{TESTS}/test_ending.py::test_a_position_is_not_ended_while_an_order_of_it_may_fill",),
    ),
    Mutant(
        "an id sent again although its sender may live",
        f"{DOMAIN}/sending/absence.py",
        "        *evidence(order, asked, known, now=now, within=within),\n",
        "        *evidence(order, asked, known, now=now, within=within)[2:],\n",
        (f"{TESTS}/test_repeating.py::test_it_waits_for_a_person_when",),
    ),
    Mutant(
        "the close of a part sent again",
        f"{DOMAIN}/sending/absence.py",
        "held == {sign * order.quantity}",
        "True",
        (f"{TESTS}/test_repeating.py::test_it_waits_for_a_person_when",),
    ),
    Mutant(
        "an id sent again to a broker that lets orders exceed",
        f"{DOMAIN}/sending/absence.py",
        "heeded = refuses_to_exceed and all(",
        "heeded = all(",
        (f"{TESTS}/test_repeating.py::test_it_waits_for_a_person_when",),
    ),
    Mutant(
        "an id sent again whose first send could open",
        f"{DOMAIN}/sending/absence.py",
        "heeded = refuses_to_exceed and all(one.sender in known.says_it_closes for one in sends)",
        "heeded = refuses_to_exceed",
        (f"{TESTS}/test_repeating.py::test_it_waits_for_a_person_when",),
    ),
    Mutant(
        "an exit seen from elsewhere",
        "services/order-submitter/src/order_submitter/heartbeat.py",
        "if send.runs_in is None or send.runs_in != self.runs_in or",
        "if",
        ("services/order-submitter/tests/test_heartbeat.py::test_whose_exit_is_confirmed",),
    ),
)
