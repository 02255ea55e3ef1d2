"""A broker's order id names one order of an account; two brokers may give the same."""

from __future__ import annotations

import psycopg
import pytest

from tests.conftest import Database
from tests.storage.seeding import add_order, add_position, add_request, owner


def test_one_order_id_is_one_order_of_an_account_and_may_be_anothers_too(database: Database) -> None:
    with owner(database.admin_dsn) as db:
        names = []
        for symbol in ("AAPL", "MSFT", "TSLA"):
            position_id = add_position(db, symbol)
            names.append(add_order(db, add_request(db, position_id), position_id))
        first, elsewhere, twin = names
        db.execute("UPDATE orders SET broker_order_id = '1001' WHERE client_order_id = %s", (first,))
        db.execute("INSERT INTO accounts (account_id, broker) VALUES ('other', 'another')")
        db.execute(
            "UPDATE orders SET account_id = 'other', broker_order_id = '1001' WHERE client_order_id = %s", (elsewhere,)
        )
        with pytest.raises(psycopg.errors.UniqueViolation):
            db.execute("UPDATE orders SET broker_order_id = '1001' WHERE client_order_id = %s", (twin,))
