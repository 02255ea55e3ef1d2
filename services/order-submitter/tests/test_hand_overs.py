"""What a process leaves behind about the sends that it handed to the network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

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


def test_nothing_is_handed_over_once_the_file_can_neither_be_written_nor_removed(tmp_path: Path) -> None:
    """As on a disk that became read-only: the file would say that nothing was sent."""
    mine = kept(tmp_path)
    mine.note("cf-1-1", 1)
    os.close(cast(int, mine._file))
    mine._file = os.open(mine.path, os.O_RDONLY)  # Neither written nor emptied by this.
    tmp_path.chmod(0o500)
    try:
        if os.geteuid() == 0:
            mine.path = tmp_path  # Root may unlink a file of any folder; nobody unlinks a folder.
        for name in ("cf-2-1", "cf-3-1"):
            with pytest.raises(OSError):
                mine.note(name, 1)
        assert mine.trouble is not None
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    mine = kept(tmp_path)
    assert not mine.path.exists()
    mine.path.write_text(f"{hand_overs.HEAD}\n")
    assert read_hand_overs(mine.path) is None


def test_a_file_that_goes_meanwhile_keeps_nobody_from_having_one(tmp_path: Path) -> None:
    path_of(tmp_path, "gone").symlink_to(tmp_path / "nowhere")
    mine = kept(tmp_path)
    mine.note("cf-1-1", 1)
    assert read_hand_overs(mine.path) == frozenset({("cf-1-1", 1)})
