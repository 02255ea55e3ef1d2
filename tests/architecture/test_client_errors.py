"""The client of callers knows every code that close-api answers, and retries what close-api says may be repeated."""

from __future__ import annotations

import pytest

from close_api.errors import STATUSES, Code
from closeflow_client import CloseflowError
from closeflow_client.errors import error_of
from closeflow_client.retry import wait_before_retry

ITS_OWN = {"outcome_unknown", "connection_failed", "answer_unreadable", "not_final"}
"""What no answer says."""


def test_each_code_has_a_class_and_no_class_is_of_a_code_that_is_gone() -> None:
    assert CloseflowError.classes.keys() - ITS_OWN == {code.value for code in Code}


@pytest.mark.parametrize("over_grpc", [False, True])
@pytest.mark.parametrize("code", list(Code))
def test_what_the_table_says_of_repeating_is_what_the_client_does(code: Code, over_grpc: bool) -> None:
    """Over gRPC a RetryInfo says so, where there is one."""
    status = STATUSES[code]
    error = error_of(
        code.value,
        status.message,
        status=status.grpc if over_grpc else status.http,
        should_retry=status.should_retry if not over_grpc or status.should_retry else None,
        retry_after_s=status.retry_after_s,
    )
    wait_s = wait_before_retry(error, attempts=1, elapsed_s=0, retry_for_s=60, chance=0)
    assert wait_s == ((status.retry_after_s or 0) if status.should_retry else None)
    assert error.temporary is status.should_retry
