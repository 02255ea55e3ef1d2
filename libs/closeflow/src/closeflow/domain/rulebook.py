"""What the labels mean by which code, tests and documents name rules and moves (lifecycle.md of the design).

docs/lifecycle.md is made from this and from the tables of `closeflow.domain.transitions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

WORDS: Final[Mapping[str, str]] = {
    "executed": "the sum of an order's effective executions: busted ones left out, corrected ones as corrected",
    "known cum": (
        "the higher of executed and the cumulative quantity the broker stated since its last bust or correction"
    ),
    "unattributed, a gap": "known cum − executed: filled, but not yet named by an execution",
    "statement": "what the broker says of an order under its own order id; refusals and not-founds are none",
    "done": (
        "proven that the broker can fill no more of it: filled, or ended with its quantity stated, or refused as R3b "
        "accepts, or denied, or declared lost"
    ),
    "exposure": "quantity − known cum of an order that is not done, else 0",
    "owed": (
        "what a request may still order: its target less what is known filled, but never more than the position has "
        "left beside its other orders"
    ),
    "clear": "a position whose orders are all done, without a gap and without a trade that is withheld",
    "a send that counts": "one not answered `not_sent` or `not_accepted`",
}

RULES: Final[Mapping[str, str]] = {
    "R1": "Executions and adjustments are facts; quantities are sums of facts",
    "R2": "The status of an order is a function of its facts, so the order of arrival does not matter",
    "R3a": (
        "A sequence orders statements of one kind. An execution id not seen before is applied however late it comes, "
        "unless its figures say that it is the other feed's; booked above what is stated, the request is frozen"
    ),
    "R3b": "A refusal proves absence only as the answer to the first send that counts",
    "R4": "A gap is not a fill: nothing is booked from it, and nothing is sent for the position while it is open",
    "R5": (
        "At every send exposure and what is known filled stay within the target, and within the position. One active "
        "request per position, one order of it not done"
    ),
    "R6": (
        "Only explicit not-founds are evidence of absence, five over a minute after the last lease; concluding from "
        "them is for a person. The same id is sent again only where the broker refuses it for ever, or, for the whole "
        "position, what exceeds one"
    ),
    "R7": "Locks: positions → close_requests → orders → account_limits → inbox, ids ascending",
    "R8": "One loop retries, the reconciler's. No HTTP client repeats a POST",
    "R9": "Decide from state. What was received before is never a reason",
    "R10": "In a batch the second item on an entity sees what the first decided",
    "R11": (
        "Until the incident that froze a request is closed, neither it nor another of its position sends anything, and "
        "no close of the position is accepted, even when the request is over"
    ),
    "Q": (
        "The position changed while it was being closed. It grew: the target is finished. It shrank below the "
        "exposure: the order is cancelled, and what is owed is planned again. Nothing is left: the order is "
        "cancelled, the request completed. It changed its side: the order is cancelled, the request failed"
    ),
}

POSITION: Final[Mapping[str, str]] = {
    "P1": "A close is accepted",
    "P2": "The request is completed and nothing is left",
    "P3": "Completed with quantity left; or denied or withdrawn before any send; or the user's cancel is confirmed",
    "P4": "The request waits for a retry",
    "P5": "The retry is due",
    "P6": "Retries or deadline used up while it waited",
    "P7": "The close failed: rejected for good, retries used up, unknown for too long, or the side changed",
    "P8": "A new close after a failed one",
    "P9": "Late fills bring the quantity to zero",
    "P10": "Abandoned",
    "P11": "A bust, correction or adjustment leaves a closed position with a quantity",
    "P12": "More is filled than it held: it stays at zero, and a position tagged with it holds the rest",
    "P13": "An adjustment from outside",
}

REQUEST: Final[Mapping[str, str]] = {
    "C1": "Accepted",
    "C2": "Its order is durable; nothing has been sent",
    "C3": "Deferred: no fresh quote, market closed, broker unavailable, halted. No retry is used up",
    "C4": "Denied or withdrawn before any send",
    "C5": "Completed: every order is done and the target filled, or what is left is below the smallest lot",
    "C6": "To be retried",
    "C6a": "To be retried after a denial that allows it; no retry is used up",
    "C7": "Failed for good",
    "C8": "The retry is due: the next attempt, for what is owed",
    "C9": "Completed after all, by a late fill",
    "C10": "Retries or deadline used up while it waited, or abandoned",
    "C11": "A bust or correction after completion: its order lives again, or a person has to retry it",
    "C12": "An order that was over lives again while the request waited for its next attempt",
}

ORDER: Final[Mapping[str, str]] = {
    "O1": "Planned: the intent is durable",
    "O1a": "Not accepted (429, 401): it stays planned and goes out later under the same id",
    "O2": "Denied by the check before the wire, which no counting send preceded",
    "O3": "Acknowledged, or found by its client order id",
    "O4": "No answer: whether the broker has it is unknown",
    "O5": "Looked up",
    "O6": "Refused or rejected",
    "O7": "Filled before it was acknowledged",
    "O8": "Filled",
    "O9": "Its cancel was asked for",
    "O10": "Filled while it was being cancelled",
    "O11": "The outcome of the cancel",
    "O12": "Ended, paused or resumed by the broker",
    "O13": "A late execution after the end; the label stays until the order is full",
    "O14": "The record was wrong: the broker has, or fills, an order that was refused, denied or ended",
    "O15": "A bust takes from it; whether it lives again the broker's statement says",
    "O16": "A correction changes it; whether it lives again the broker's statement says",
    "O17": "Filled with more than it asked for",
    "O18": "Declared lost while unknown, by an operator on the evidence of R6",
    "O19": "Declared lost although it had been acknowledged",
    "O20": "Lost and found again, also where nothing of it has changed",
}
