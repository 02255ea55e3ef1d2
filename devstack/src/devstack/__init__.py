"""Starts and stops the embedded PostgreSQL, Kafka and Connect with Debezium: real servers as processes, no containers.

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

Calls block. Errors are StackError, whose text is one line for a user and `exit_code` what a program should end with.
"""

from devstack.control import (
    Status,
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
from devstack.errors import EnvironmentLacking, StackError
from devstack.instances import Stack
from devstack.state import PartState, PartStatus

__all__ = [
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
