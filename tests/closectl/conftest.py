"""A database with closes in every state, made once for all tests of closectl that only look at it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

import devstack
from closeflow.storage.engine import Database, make_engine
from tests.closectl.seeding import Closes
from tests.conftest import Database as OnTestStack
from tests.conftest import fresh_database


@pytest.fixture(scope="session")
def closes_database(stack: devstack.Stack, template: str) -> Iterator[OnTestStack]:
    with fresh_database(stack, template) as made:
        yield made


@pytest.fixture(scope="session")
async def closes(closes_database: OnTestStack) -> AsyncIterator[Database]:
    """The owner's engine on it. Whoever changes something takes it back."""
    engine = make_engine(closes_database.admin_dsn, pool_size=3, application_name="closeflow-tests")
    await Closes(engine).make_all()
    yield engine
    await engine.dispose()
