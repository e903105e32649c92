"""What folders are taken for, by their names and by what they hold."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UserError
from training.data import ImageData
from training.datasets import load_data
from training.options import FolderOptions
from training.splits import role_of

MakeImages = Callable[..., list[Path]]


@pytest.fixture
def split(tmp_path: Path, make_images: MakeImages) -> Callable[..., Path]:
    """Returns a function that makes a folder with cats and dogs in each of some folders."""

    def make(*names: str) -> Path:
        for name in names:
            make_images(tmp_path / "pets" / name / "cat", 5)
            make_images(tmp_path / "pets" / name / "dog", 5)
        return tmp_path / "pets"

    return make


def load(folder: Path, *split_folders: str) -> ImageData:
    return load_data(str(folder), FolderOptions(split_folders=split_folders))


def origin(data: ImageData, part: str) -> set[str]:
    """Returns the names of the folders that the images of a part are in, classes left out."""
    folders = {Path(str(source)).parent.parent for source, _ in data.parts[part]}
    return {str(folder.relative_to(Path(str(data.folder)))) for folder in folders}


def unused(data: ImageData) -> Counter[Path]:
    """Returns how many entries of each folder are not used."""
    return Counter(file.parent for files in data.scan.unused.values() for file in files)


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train", "val"),
        ("Train", "Val"),
        ("TRAIN", "VAL"),
        ("train", "valid"),
        ("train", "validation"),
        ("training", "dev"),
        ("trn", "val"),
        ("training_set", "validation_set"),
        ("trainset", "valset"),
        ("train_images", "val_images"),
        ("images-train", "images-val"),
        ("train2017", "val2017"),
        ("TrainSet", "ValidationSet"),
        ("pets_train", "pets_val"),
        ("archive/pets/train", "archive/pets/val"),
        ("train/train", "val/val"),
    ],
)
def test_what_is_learned_from_and_held_out(
    split: Callable[..., Path], train: str, val: str
) -> None:
    data = load(split(train, val))
    assert data.labels == ("cat", "dog")
    assert (origin(data, "train"), origin(data, "val")) == ({train}, {val})
    assert (len(data.train), len(data.val), len(data.test)) == (10, 10, 0)
    (line,) = data.scan.lines()
    parts = [name.removeprefix("archive/pets/") for name in (train, val)]
    assert re.search(f" {parts[0]}/.* {parts[1]}/$", line)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("TRAIN", "TEST"),
        ("training_set", "test_set"),
        ("seg_train", "seg_test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
    ],
)
def test_without_val_a_part_of_train_is_held_out(
    split: Callable[..., Path], train: str, test: str
) -> None:
    data = load(split(train, test))
    assert data.labels == ("cat", "dog")
    assert origin(data, "train") == origin(data, "val") == {train}
    assert origin(data, "test") == {test}
    assert [len(part) for part in data.parts.values()] == [8, 2, 10]
    (line,) = data.scan.lines()
    assert re.search(f" {train}/.* 20 %.* {test}/$", line)


def test_of_all_three_val_is_held_out_and_test_is_tested_on(split: Callable[..., Path]) -> None:
    data = load(split("train", "val", "test"))
    assert [origin(data, part) for part in ("train", "val", "test")] == [
        {"train"},
        {"val"},
        {"test"},
    ]


def test_what_is_beside_the_parts_is_counted(
    split: Callable[..., Path], make_images: MakeImages
) -> None:
    folder = split("seg_train", "seg_val")
    make_images(folder / "seg_pred", 3)
    make_images(folder, 2)
    (folder / ".git").mkdir()
    data = load(folder)
    assert len(data.train) == len(data.val) == 10
    assert unused(data) == {folder: 3, folder / "seg_pred": 3}
    assert sorted(map(len, data.scan.unused.values())) == [1, 2, 3]  # .git has its own reason


def test_what_is_beside_chosen_parts_is_counted(
    split: Callable[..., Path], make_images: MakeImages
) -> None:
    folder = split("all/fit", "all/check")
    make_images(folder / "all" / "spare" / "cat", 2)
    make_images(folder, 1)
    (folder / "all" / "notes.txt").write_text("who took them")
    data = load(folder, "train=all/fit", "val=all/check")
    assert len(data.train) == len(data.val) == 10
    assert unused(data) == {folder: 1, folder / "all": 1, folder / "all" / "spare" / "cat": 2}
    assert sorted(map(len, data.scan.unused.values())) == [1, 3]


def test_what_is_beside_the_only_folder_is_counted(split: Callable[..., Path]) -> None:
    folder = split("archive")
    for name in ("README", "LICENSE.txt", ".DS_Store", "archive/list.csv"):
        (folder / name).write_text("about the images")
    data = load(folder)
    assert len(data.train) + len(data.val) == 10
    assert unused(data) == {folder: 3, folder / "archive": 1}


def test_test_images_without_classes_are_counted(
    split: Callable[..., Path], make_images: MakeImages
) -> None:
    folder = split("train", "val")
    make_images(folder / "test", 4)
    data = load(folder)
    assert data.test == ()
    assert unused(data) == {folder / "test": 4}


def test_train_beside_test_images_without_classes(
    split: Callable[..., Path], make_images: MakeImages
) -> None:
    folder = split("train")
    make_images(folder / "test", 4)
    data = load(folder)
    assert [len(part) for part in data.parts.values()] == [8, 2]
    assert unused(data) == {folder / "test": 4}


def test_a_stray_image_in_a_part_is_counted(
    split: Callable[..., Path], make_images: MakeImages
) -> None:
    folder = split("train", "val")
    make_images(folder / "train", 1)
    data = load(folder)
    assert (len(data.train), len(data.val)) == (10, 10)
    assert unused(data) == {folder / "train": 1}


def test_class_folders_one_folder_deeper_are_taken(split: Callable[..., Path]) -> None:
    folder = split("archive")
    data = load(folder)
    assert data.labels == ("cat", "dog")
    (line,) = data.scan.lines()
    assert re.search(f"^{folder}: .* {folder}/archive$", line)
    (folder / "README").write_text("of the archive")
    assert load(folder).labels == ("cat", "dog")


def test_a_train_folder_alone_is_one_folder_too_many(split: Callable[..., Path]) -> None:
    data = load(split("train"))
    assert data.labels == ("cat", "dog")
    assert [len(part) for part in data.parts.values()] == [8, 2]


@pytest.mark.parametrize(
    "names", [("train_station", "train_track"), ("training shoes", "dress shoes"), ("train", "bus")]
)
def test_classes_with_such_names_stay_classes(
    tmp_path: Path, make_images: MakeImages, names: tuple[str, str]
) -> None:
    for name in names:
        make_images(tmp_path / name, 5)
    assert load(tmp_path).labels == tuple(sorted(names))


@pytest.mark.parametrize(
    "names", [("train", "test"), ("Train", "Val"), ("cat", "dog", "test"), ("bus", "valid")]
)
def test_names_that_leave_it_open_are_asked_for(
    tmp_path: Path, make_images: MakeImages, names: tuple[str, ...]
) -> None:
    for name in names:
        make_images(tmp_path / name, 5)
    with pytest.raises(UserError, match=r"--split-folders none"):
        load(tmp_path)
    assert load(tmp_path, "none").labels == tuple(sorted(names))


def test_two_folders_for_the_same_part_are_asked_for(split: Callable[..., Path]) -> None:
    folder = split("train", "val", "validation")
    with pytest.raises(UserError, match=r"val/, validation/ .*train=train"):
        load(folder)
    data = load(folder, "train=train", "val=validation")
    assert (origin(data, "train"), origin(data, "val")) == ({"train"}, {"validation"})


def test_folders_can_be_named(split: Callable[..., Path]) -> None:
    data = load(split("fit", "check", "a/final"), "test=a/final", "train=fit", "val=check")
    assert [origin(data, part) for part in data.parts] == [{"fit"}, {"check"}, {"a/final"}]


def test_folders_can_be_named_by_their_whole_path(split: Callable[..., Path]) -> None:
    folder = split("fit", "check")
    data = load(folder, f"train={folder / 'fit'}", "val=./check")
    assert [origin(data, part) for part in ("train", "val")] == [{"fit"}, {"check"}]


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        (("train=cat", "val=eel"), r"val=eel: .*/pets/eel"),
        (("val=cat",), r"--split-folders val=cat: .*train=FOLDER"),
        (("train=cat", "val=cat"), r"--split-folders train=cat val=cat: "),
        (("fit=cat",), r"fit=cat: .*train=FOLDER .*val=FOLDER .*test=FOLDER"),
        (("train=cat", "train=dog"), r"train=cat train=dog: .*train=FOLDER"),
        (("cat",), r"--split-folders cat: .*train=FOLDER"),
        (("train=/", "val=cat"), r"train=/: .*/pets, .*train=NAME"),
        (("train=cat", "val=../pets2"), r"val=../pets2: .*/pets"),
        (("train=cat", "val=dog/../cat"), r"train=cat val=dog/../cat: "),
    ],
)
def test_folders_that_cannot_be_named_so(
    folder: Path, chosen: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        load(folder, *chosen)
    assert "\n" not in str(caught.value)


def test_test_may_lack_classes_but_has_no_others(split: Callable[..., Path]) -> None:
    folder = split("train", "val", "test")
    shutil.rmtree(folder / "test" / "dog")
    assert re.search(r"^warning: test .*dog", load(folder).scan.lines()[1])
    (folder / "test" / "cat").rename(folder / "test" / "eel")
    with pytest.raises(UserError, match=r"train .*eel.* test .*cat, dog"):
        load(folder)


def test_named_data_sets_have_parts_of_their_own() -> None:
    with pytest.raises(UserError, match=r"digits\b.* --split-folders"):
        load_data("digits", FolderOptions(split_folders=("none",)))


@pytest.mark.parametrize("name", ["cat", "trains", "test_train", "invalid", "contest", "2017"])
def test_most_names_say_nothing(name: str) -> None:
    assert role_of(name) is None
