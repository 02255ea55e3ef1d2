"""The mutants can still be applied, and the tests that kill them exist; `make mutants` shows that they do."""

from __future__ import annotations

import pytest

from tests.mutants.table import MUTANTS, Mutant

from .repository import REPOSITORY


@pytest.mark.parametrize("mutant", MUTANTS, ids=[one.idea for one in MUTANTS])
def test_a_mutant_fits_the_code(mutant: Mutant) -> None:
    assert (REPOSITORY / mutant.file).read_text().count(mutant.before) == 1
    for test in mutant.killed_by:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (REPOSITORY / file).read_text() if name else (REPOSITORY / file).exists()
