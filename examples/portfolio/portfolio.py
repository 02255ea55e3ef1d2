"""Close every open position of an account, each exactly once, however often this program is killed and started again.

python portfolio.py ACCOUNT RECORD [follow]    (CLOSEFLOW_ADDRESS and CLOSEFLOW_TOKEN say where and as whom)
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from closeflow_client import Client, Close, CloseflowError, CloseRequest, new_key

AT_ONCE = 10


def close_book(client: Client, account: str, record: Path) -> tuple[dict[str, Any], list[CloseflowError]]:
    """The record with every close that was accepted, and the errors of the others; called again, it asks for those."""
    if record.exists():
        book: dict[str, Any] = json.loads(record.read_text())
    else:
        positions = [one.position_id for one in client.positions(account=account, status="open")]
        book = {"batch_key": new_key(), "positions": positions, "requests": {}}
        save(record, book)  # A key is made of batch_key and position, so all keys are on the disk before one is sent.
    todo = [one for one in book["positions"] if str(one) not in book["requests"]]
    errors: list[CloseflowError] = []
    for first in range(0, len(todo), AT_ONCE):
        results = client.close_many(map(Close, todo[first : first + AT_ONCE]), batch_key=book["batch_key"])
        accepted = [one for one in results if isinstance(one, CloseRequest)]
        errors += [one for one in results if isinstance(one, CloseflowError)]
        book["requests"] |= {str(one.position_id): str(one.close_request_id) for one in accepted}
        save(record, book)
    return book, errors


def save(record: Path, book: dict[str, Any]) -> None:
    """Replace the record as a whole: after a crash it is the old one or the new one."""
    fresh = record.with_suffix(".new")
    fresh.write_text(json.dumps(book))
    sync(fresh)
    fresh.replace(record)
    sync(record.parent)


def sync(path: Path) -> None:
    """Have it on the disk."""
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.close(file)


if __name__ == "__main__":
    with Client(os.environ["CLOSEFLOW_ADDRESS"], os.environ.get("CLOSEFLOW_TOKEN")) as client:
        book, errors = close_book(client, sys.argv[1], Path(sys.argv[2]))
        for position, request_id in book["requests"].items() if "follow" in sys.argv else ():
            print(position, client.wait(request_id).close_request_status)
    print(*errors, f"{len(book['requests'])} of {len(book['positions'])} closes are accepted", sep="\n")
    sys.exit(1 if errors else 0)
