"""Which images a finished network is judged by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UserError
from training.datasets import load_data
from training.labelled import Labelled, load_labelled
from training.options import FolderLayout

MakeImages = Callable[..., list[Path]]


def classes(images: Labelled) -> dict[str, int]:
    return {
        label: sum(index == at for _, index in images.samples)
        for at, label in enumerate(images.labels)
    }


def test_of_a_named_data_set_they_are_the_held_out_ones() -> None:
    images, data = load_labelled("digits"), load_data("digits")
    assert images.labels == data.labels
    assert [label for _, label in images.samples] == [label for _, label in data.val]


def test_of_a_folder_of_classes_all(folder: Path) -> None:
    (folder / "notes.txt").write_text("no image")
    images = load_labelled(str(folder))
    assert classes(images) == {"cat": 10, "dog": 10}
    assert images.part == "images"


def test_of_a_folder_with_parts_the_last_that_is_there(
    tmp_path: Path, make_images: MakeImages
) -> None:
    for part, number in (("train", 4), ("val", 3), ("test", 2)):
        for label in ("cat", "dog"):
            make_images(tmp_path / part / label, number)
    assert load_labelled(str(tmp_path)).part == "test images"
    assert classes(load_labelled(str(tmp_path))) == {"cat": 2, "dog": 2}
    without_test = FolderLayout(split_folders=("train=train", "val=val"))
    assert classes(load_labelled(str(tmp_path), without_test)) == {"cat": 3, "dog": 3}


def test_one_class_is_enough(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "cat", 3)
    assert classes(load_labelled(str(tmp_path))) == {"cat": 3}


def test_classes_that_a_file_names(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, 4)
    (tmp_path / "labels.csv").write_text("file,label\n0.png,cat\n1.png,dog\n3.png,dog\n")
    images = load_labelled(str(tmp_path), FolderLayout(labels="labels.csv"))
    assert classes(images) == {"cat": 1, "dog": 2}
    assert list(images.scan.unused.values()) == [[tmp_path / "2.png"]]


@pytest.mark.parametrize(
    "layout",
    [
        FolderLayout(labels="a.csv"),
        FolderLayout(labels_columns=("a", "b")),
        FolderLayout(split_folders=("none",)),
    ],
)
def test_a_named_data_set_has_a_layout_of_its_own(layout: FolderLayout) -> None:
    with pytest.raises(UserError, match=r"digits\b.*--labels"):
        load_labelled("digits", layout)


def test_what_is_neither_a_name_nor_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'digit'.*\bdigits\b"):
        load_labelled("digit")
    with pytest.raises(UserError, match=f"pets in {tmp_path}"):
        load_labelled(str(tmp_path / "pets"))
