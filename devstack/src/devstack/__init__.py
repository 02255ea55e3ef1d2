"""Starts and stops PostgreSQL, Kafka and Connect with Debezium: real servers, embedded as processes or in containers.

    import devstack

    stack = devstack.up("test")             # starts what does not run; seconds if all does
    stack.admin_dsn                         # postgresql://closeflow_admin:...@127.0.0.1:port/closeflow
    stack.kafka_bootstrap_servers           # "127.0.0.1:port"
    stack.connect_url                       # "http://127.0.0.1:port"
    devstack.kill_part("test", "connect")   # faults
    devstack.start_part("test", "connect")
    devstack.freeze_part("test", "kafka")
    devstack.thaw_part("test", "kafka")
    devstack.down("test")

DEVSTACK_PROVIDER in the environment says what runs them: `embedded` (control.py, the default) or `containers`
(containers.py, which needs a Docker engine). Both offer the same names.

Calls block. Errors are StackError, whose text is one line for a user and `exit_code` what a program should end with.
"""

import os
import sys
from typing import Final

from devstack.control import Status
from devstack.errors import EnvironmentLacking, StackError
from devstack.instances import Stack
from devstack.state import PartState, PartStatus

PROVIDER: Final = os.environ.get("DEVSTACK_PROVIDER") or "embedded"

if PROVIDER == "containers":
    from devstack.containers import (
        down,
        find,
        freeze_part,
        kill_part,
        reset,
        start_part,
        status,
        stop_part,
        thaw_part,
        up,
    )
elif PROVIDER == "embedded":
    from devstack.control import (
        down,
        find,
        freeze_part,
        kill_part,
        reset,
        start_part,
        status,
        stop_part,
        thaw_part,
        up,
    )
else:
    sys.stderr.write(f"DEVSTACK_PROVIDER is '{PROVIDER}': it is one of embedded, containers\n")
    raise SystemExit(2)

__all__ = [
    "PROVIDER",
    "EnvironmentLacking",
    "PartState",
    "PartStatus",
    "Stack",
    "StackError",
    "Status",
    "down",
    "find",
    "freeze_part",
    "kill_part",
    "reset",
    "start_part",
    "status",
    "stop_part",
    "thaw_part",
    "up",
]
