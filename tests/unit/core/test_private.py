"""What homing makes on disk is for its user alone, whatever the umask is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from homing_core.private import make_private_file, make_private_folder


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_file_and_all_folders_that_are_made_for_it_are_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    make_private_file(path)
    assert [mode(each) for each in (path, path.parent, path.parent.parent)] == [0o600, 0o700, 0o700]


def test_a_file_that_is_there_is_closed_to_others_and_keeps_what_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o755)
    path = folder / "file"
    path.write_text("kept")
    make_private_file(path)
    assert (mode(path), path.read_text(), mode(folder)) == (0o600, "kept", 0o755)


def test_a_folder_is_made_private_and_closed_where_it_is_there(tmp_path: Path) -> None:
    open_, new = tmp_path / "open", tmp_path / "x" / "new"
    open_.mkdir()
    for folder in (open_, new):
        make_private_folder(folder)
        assert mode(folder) == 0o700
    assert mode(new.parent) == 0o700
