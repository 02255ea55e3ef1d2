"""What a process leaves behind about the sends that it handed to the network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from order_submitter.sending import hand_overs
from order_submitter.sending.hand_overs import HandOvers, path_of, read_hand_overs


def kept(folder: Path) -> HandOvers:
    mine = HandOvers(path_of(folder, "host-1-aa"))
    mine.open()
    return mine


def test_what_was_handed_over_is_read_by_others(tmp_path: Path) -> None:
    mine = kept(tmp_path / "made")
    assert read_hand_overs(mine.path) == frozenset()
    mine.note("cf-1-1", 1)
    mine.note("cf-1-1", 2)
    mine.note("cf-2-1", 1)
    assert read_hand_overs(mine.path) == frozenset({("cf-1-1", 1), ("cf-1-1", 2), ("cf-2-1", 1)})


@pytest.mark.parametrize(
    "content", [None, b"", b"closeflow hand-ov", b"closeflow hand-overs 1\ncf-1-1 1", b"x\n", b"\xff\n"]
)
def test_a_file_that_is_missing_or_not_whole_says_nothing(tmp_path: Path, content: bytes | None) -> None:
    path = path_of(tmp_path, "host-1-aa")
    if content is not None:
        path.write_bytes(content)
    assert read_hand_overs(path) is None


def test_nothing_is_said_any_more_once_a_line_cannot_be_written(tmp_path: Path) -> None:
    mine = kept(tmp_path)
    mine.note("cf-1-1", 1)
    mine.note("c" * hand_overs.LARGEST, 1)
    assert read_hand_overs(mine.path) is None
    mine.note("cf-2-1", 1)
    assert not mine.path.exists()


def test_a_folder_that_cannot_be_made_keeps_nobody_from_sending(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    mine = kept(tmp_path / "file" / "folder")
    mine.note("cf-1-1", 1)
    mine.close()
    assert read_hand_overs(mine.path) is None


def test_another_process_keeps_a_file_of_its_own_and_old_ones_go(tmp_path: Path) -> None:
    old, recent = path_of(tmp_path, "old"), path_of(tmp_path, "recent")
    for path in (old, recent):
        path.write_text("")
    os.utime(old, (0, 0))
    mine = kept(tmp_path)
    assert (old.exists(), recent.exists()) == (False, True)
    mine.close()
    assert not mine.path.exists()
