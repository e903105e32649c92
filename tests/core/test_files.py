from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from core.files import staged, whole_file, write_whole


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    assert write_whole(path, b"first") == path
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "file.json", b"first")

    def cut_off() -> None:
        with whole_file(path) as file:
            file.write(b"sec")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        cut_off()
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("whole", [whole_file, staged])
def test_an_error_of_writing_names_what_was_to_be_written(
    tmp_path: Path, whole: Callable[[Path], AbstractContextManager[object]]
) -> None:
    path = tmp_path / "new"
    with pytest.raises(OSError, match="No space left on device") as error, whole(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as error, whole(path):
        Path("absent").read_bytes()
    assert error.value.filename == "absent"
    assert not list(tmp_path.iterdir())
