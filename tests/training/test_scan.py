"""Class folders and files as they lie on disks."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UserError
from training.datasets import load_data

MakeImages = Callable[..., list[Path]]


@pytest.mark.parametrize(
    "name",
    [
        "lost+found",
        "System Volume Information",
        "$RECYCLE.BIN",
        "__MACOSX",
        "@eaDir",
        ".ipynb_checkpoints",
    ],
)
def test_folders_of_machines_are_no_classes(
    folder: Path, make_images: MakeImages, name: str
) -> None:
    make_images(folder / name, 3)
    make_images(folder / "dog" / name, 3)
    data = load_data(str(folder))
    assert data.labels == ("cat", "dog")
    assert len(data.train) + len(data.val) == 20
    (files,) = data.scan.unused.values()
    assert sorted(files) == sorted([folder / name, folder / "dog" / name])
    assert data.scan.notes == []


def test_empty_folders_are_no_classes(folder: Path) -> None:
    (folder / "eel").mkdir()
    (folder / "bee" / "2026").mkdir(parents=True)
    (folder / "bee" / ".DS_Store").touch()
    data = load_data(str(folder))
    assert data.labels == ("cat", "dog")
    (note,) = data.scan.notes
    assert note.endswith(f": {folder}/bee, {folder}/eel")


def test_every_file_that_is_not_used_is_counted_by_reason(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,label")
    os.mkfifo(folder / "pipe")
    (folder / "cover.png").write_bytes((folder / "cat" / "0.png").read_bytes())
    for name in ("a.txt", "b.json", ".hidden", "Thumbs.db"):
        (folder / "dog" / name).write_text("text")
    (folder / "cat" / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    scan = load_data(str(folder)).scan
    files = (sorted(files) for files in scan.unused.values())
    assert sorted([str(file.relative_to(folder)) for file in reason] for reason in files) == [
        ["cat/clip.mp4"],
        ["cover.png"],
        ["dog/.hidden", "dog/Thumbs.db"],
        ["dog/a.txt", "dog/b.json", "labels.csv", "pipe"],
    ]
    (line,) = scan.lines()
    assert re.search(rf": 8 .*: 2 .* 4 .*{folder}/dog/a\.txt\)", line)
    assert f"({folder}/cover.png)" in line


def test_a_name_from_mac_and_one_from_linux_are_one_class(
    tmp_path: Path, make_images: MakeImages
) -> None:
    composed = unicodedata.normalize("NFC", "café")
    apart = unicodedata.normalize("NFD", "café")
    assert composed != apart
    for part, name in (("train", composed), ("val", apart)):
        make_images(tmp_path / part / name, 5)
        make_images(tmp_path / part / "tea", 5)
    data = load_data(str(tmp_path))
    assert data.labels == (composed, "tea")
    assert (len(data.train), len(data.val)) == (10, 10)
    make_images(tmp_path / "train" / apart, 3)
    assert len(load_data(str(tmp_path)).train) == 13


@pytest.mark.parametrize("name", ["Cat", "cat ", " CAT"])
def test_names_that_look_alike_are_noted(folder: Path, make_images: MakeImages, name: str) -> None:
    make_images(folder / name, 5)
    data = load_data(str(folder))
    assert len(data.labels) == 3
    (line,) = data.scan.lines()
    assert line.startswith("warning: ")
    assert repr(name) in line
    assert "'cat'" in line


def test_parts_whose_names_look_alike_are_refused_with_both(
    tmp_path: Path, make_images: MakeImages
) -> None:
    for part, name in (("train", "Cat"), ("val", "cat")):
        make_images(tmp_path / part / name, 2)
        make_images(tmp_path / part / "dog", 2)
    with pytest.raises(UserError, match=r"train .*\bcat\b.* val .*\bCat\b.* 'Cat' .* 'cat'"):
        load_data(str(tmp_path))


def test_a_class_name_that_is_not_utf8(folder: Path) -> None:
    os.rename(folder / "dog", os.fsencode(folder) + b"/d\xf6g")
    with pytest.raises(UserError, match=r"pets/d\\xf6g: .*UTF-8") as caught:
        load_data(str(folder))
    str(caught.value).encode()


def test_a_file_name_that_is_not_utf8_is_used(folder: Path) -> None:
    os.rename(folder / "dog" / "3.png", os.fsencode(folder) + b"/dog/\xf6.png")
    data = load_data(str(folder))
    assert len(data.train) + len(data.val) == 20
