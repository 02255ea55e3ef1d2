"""Where CI is set, nothing is left out silently."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from .repository import REPOSITORY, TOOLS, Finished, run

SKIPS_ITSELF = "import pytest\n\n\ndef test_of_a_server() -> None:\n    pytest.skip('no server')\n"
SKIPS_ITS_FILE = "import pytest\n\npytest.importorskip('a_package_nobody_has')\n"
FAILS_AS_EXPECTED = "import pytest\n\n\n@pytest.mark.xfail\ndef test_known() -> None:\n    raise AssertionError\n"


def run_pytest(directory: Path, text: str, ci: str) -> Finished:
    shutil.copy(REPOSITORY / "conftest.py", directory)
    (directory / "test_planted.py").write_text(text)
    return run(TOOLS / "pytest", "-q", "--rootdir", directory, directory, cwd=directory, env={**os.environ, "CI": ci})


@pytest.mark.parametrize("text", [SKIPS_ITSELF, SKIPS_ITS_FILE], ids=["a test", "a file"])
def test_a_skip_fails_where_ci_is_set(tmp_path: Path, text: str) -> None:
    ran = run_pytest(tmp_path, text, ci="true")
    assert ran.returncode != 0
    assert "skipped, which is a failure where CI is set" in ran.stdout


@pytest.mark.parametrize(("text", "ci"), [(SKIPS_ITSELF, ""), (FAILS_AS_EXPECTED, "true")], ids=["no CI", "xfail"])
def test_elsewhere_and_for_expected_failures_it_does_not(tmp_path: Path, text: str, ci: str) -> None:
    ran = run_pytest(tmp_path, text, ci=ci)
    assert ran.returncode == 0, ran.stdout
