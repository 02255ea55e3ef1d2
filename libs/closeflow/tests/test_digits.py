"""Every process of ours counts with as many digits as the largest quantity has, in every thread."""

from __future__ import annotations

import subprocess
import sys

import pytest

ADD = """
import importlib, sys, threading
from decimal import Decimal

importlib.import_module(sys.argv[1])
part = Decimal("333333333333333.333333333333333333")

def add():
    print(part + part + part)

add()
thread = threading.Thread(target=add)
thread.start()
thread.join()
"""
PROCESSES = (
    "broker_gateway.__main__",
    "broker_simulator.__main__",
    "close_api.__main__",
    "closectl.app",
    "closeflow.storage.schema.migrate",
    "demo.__main__",
    "fill_processor.__main__",
    "order_submitter.__main__",
    "reconciler.__main__",
)


@pytest.mark.parametrize("module", PROCESSES)
def test_a_process_adds_quantities_exactly(module: str) -> None:
    done = subprocess.run([sys.executable, "-c", ADD, module], capture_output=True, text=True, timeout=60)
    assert done.stdout == "999999999999999.999999999999999999\n" * 2, done.stderr
