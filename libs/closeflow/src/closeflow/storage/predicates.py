"""Conditions that more than one statement has, each written once: ended, unfinished, in doubt."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

NO_NAME: Final = """
    NOT EXISTS (SELECT FROM executions e
                WHERE (e.broker, e.account_id, e.exec_id) = (w.broker, w.account_id, w.exec_id))
    AND NOT EXISTS (SELECT FROM execution_aliases a
                    WHERE (a.broker, a.account_id, a.alias_id) = (w.broker, w.account_id, w.exec_id))
    AND NOT EXISTS (SELECT FROM executions r
                    WHERE r.client_order_id = w.client_order_id AND r.ref_exec_id = w.exec_id)
    AND NOT EXISTS (SELECT FROM order_statements t
                    WHERE t.client_order_id = w.client_order_id AND t.kind = 'canceled' AND t.source = 'operator')
"""
"""Of a row `w` of withheld_executions: neither booked nor another name, nor taken back under its own name, nor dropped
by an operator with its order."""


STILL_WITHHELD: Final = f"""EXISTS (
    SELECT FROM withheld_executions w WHERE w.client_order_id = i.client_order_id AND {NO_NAME})"""


UNKNOWN_VALUE: Final = "unknown_value: "
"""How the reason of a parked record begins that has a value which its reader does not know."""
UNKNOWN_VALUE_SUBJECT: Final = f"p.topic || ': ' || substr(p.reason, {len(UNKNOWN_VALUE) + 1})"
"""Of such a row `p` of parked_records: the subject of the incident that tells of it."""


UNFINISHED: Final = text("status IN ('pending', 'submitted', 'retryable')")
NOT_ENDED: Final = text("status NOT IN ('denied', 'lost', 'filled', 'canceled', 'expired', 'rejected')")
