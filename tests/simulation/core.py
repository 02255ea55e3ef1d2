"""How the simulated services are set."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from closeflow.domain.close.plan_order import PlanRules
from closeflow.domain.retry import RetryPolicy
from closeflow.domain.sending.absence import window
from order_submitter.sending.breaker import BreakerRules

ACCOUNT: Final = "DU1"
BROKER: Final = "broker"
POLICY: Final = RetryPolicy()
RULES: Final = PlanRules()
BREAKER: Final = BreakerRules(failures=5, refusals=10, probe_s=5.0)

LEASE_S: Final = 30.0
HTTP_DEADLINE_S: Final = 5.0
VISIBILITY_LAG_S: Final = 5.0
VISIBLE_WITHIN_S: Final = 5.0
RESEND_AFTER: Final = timedelta(seconds=30)
UNKNOWN_AFTER: Final = timedelta(seconds=900)
QUIET_AFTER: Final = timedelta(seconds=10)
PUBLISH_WITHIN: Final = timedelta(seconds=30)
ABSENT_FOR: Final = window(VISIBILITY_LAG_S)
