from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from core.errors import UserError
from core.files import check_folder, staged, whole_file, write_whole


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


def test_what_a_killed_process_left_is_deleted(tmp_path: Path) -> None:
    path, other = tmp_path / "onnx-fp32", tmp_path / ".onnx-fp16-abcdefgh"
    left, new = tmp_path / ".onnx-fp32-abcdefgh", tmp_path / ".onnx-fp32-ijklmnop"
    for folder in (other, left, new):
        (folder / "new").mkdir(parents=True)
    for folder in (other, left):
        os.utime(folder, (0, 0))
    with staged(path):
        assert not left.exists()
    assert {other, new, path} == set(tmp_path.iterdir())
    with staged(path):
        (held,) = set(tmp_path.iterdir()) - {other, new, path}
        os.utime(held, (0, 0))
        with staged(path):
            assert held.exists()
    assert {other, new, path} == set(tmp_path.iterdir())


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


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_folder_in_which_no_file_can_be_made_is_refused(tmp_path: Path) -> None:
    check_folder(tmp_path / "new" / "deeper")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"/proc/x: cannot be written"):
        check_folder(Path("/proc/x"))  # root may write there by its permissions
