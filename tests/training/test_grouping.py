"""Splits that keep what belongs together on one side, and a test part taken from a folder."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UserError
from training.checkpoint import checkpoint_path, load_checkpoint, run_folder
from training.data import ImageData
from training.datasets import load_data
from training.identity import digests_of
from training.options import FolderOptions

Command = Callable[..., subprocess.CompletedProcess[str]]
MakeImages = Callable[..., list[Path]]

PATTERN = r"patient(\d+)"
# The classes of wards hold folders of the same names, as parts of a data set would.
NO_PARTS = ("none",)


@pytest.fixture
def wards(tmp_path: Path, make_images: MakeImages) -> Path:
    """Returns a folder of two classes with 2 to 6 images of each of 20 patients."""
    for label in ("ill", "well"):
        for patient in range(20):
            make_images(tmp_path / "wards" / label / f"patient{patient}", 2 + patient % 5)
    return tmp_path / "wards"


def groups(data: ImageData) -> dict[str, set[str]]:
    """Returns the patients in each part."""
    return {
        part: {Path(str(source)).parent.name for source, _ in samples}
        for part, samples in data.parts.items()
    }


def test_no_group_is_on_both_sides_and_each_class_has_its_share(wards: Path) -> None:
    data = load_data(
        str(wards), FolderOptions(split_folders=NO_PARTS, group_by=PATTERN, test_fraction=0.15)
    )
    parts = groups(data)
    assert set(parts) == {"train", "val", "test"}
    assert set.union(*parts.values()) == {f"patient{number}" for number in range(20)}
    assert sum(map(len, parts.values())) == 20
    for samples, share in ((data.val, 0.85 * 0.2), (data.test, 0.15)):
        counts = Counter(label for _, label in samples)
        assert counts == pytest.approx({0: 80 * share, 1: 80 * share}, abs=4)
    assert any("20 groups" in line for line in data.scan.lines())
    plain = groups(load_data(str(wards), FolderOptions(split_folders=NO_PARTS)))
    assert plain["train"] & plain["val"]


def test_the_split_follows_from_content(wards: Path) -> None:
    options = FolderOptions(split_folders=NO_PARTS, group_by=PATTERN, test_fraction=0.2)

    def digests() -> dict[str, set[bytes]]:
        data = load_data(str(wards), options)
        return {name: set(digests_of(part, data.digests)) for name, part in data.parts.items()}

    before = digests()
    for label in ("ill", "well"):
        for patient in range(20):
            old = wards / label / f"patient{patient}"
            old.rename(wards / label / f"as patient{(patient + 7) % 20 + 100}")
    assert digests() == before


def test_groups_with_a_common_image_are_one(wards: Path) -> None:
    options = FolderOptions(split_folders=NO_PARTS, group_by=PATTERN)
    before = load_data(str(wards), options)
    inside, outside = (sorted(groups(before)[part])[0] for part in ("train", "val"))
    shared = (wards / "ill" / inside / "0.png").read_bytes()
    (wards / "ill" / outside / "same.png").write_bytes(shared)
    parts = groups(load_data(str(wards), options))
    assert parts["train"].isdisjoint(parts["val"])
    assert any({inside, outside} <= names for names in parts.values())


def test_a_class_of_few_large_groups_has_one_held_out(
    tmp_path: Path, make_images: MakeImages
) -> None:
    for label, patients in (("ill", (1, 2)), ("well", (3, 4, 5))):
        for patient in patients:
            make_images(tmp_path / "few" / label / f"patient{patient}", 9 + patient)
    data = load_data(str(tmp_path / "few"), FolderOptions(group_by=PATTERN))
    assert {label for _, label in data.val} == {label for _, label in data.train} == {0, 1}
    assert groups(data)["val"].isdisjoint(groups(data)["train"])


def test_parts_of_the_folder_are_checked(tmp_path: Path, make_images: MakeImages) -> None:
    for part, patients in (("train", (1, 2)), ("val", (3, 2))):
        for label in ("ill", "well"):
            for patient in patients:
                make_images(tmp_path / "set" / part / label / f"patient{patient}", 2)
    with pytest.raises(UserError, match=r"1 groups .*: 2 \(train and val\); move") as caught:
        load_data(str(tmp_path / "set"), FolderOptions(group_by=PATTERN))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"group_by": "patient("}, r"--group-by patient\(: no regular expression"),
        ({"group_by": "patient"}, r"no group; .*parentheses"),
        ({"group_by": r"ill/(\w+)"}, r"does not match 80 of 160 images: well/.* more;"),
        ({"group_by": r"^(\w)"}, r"class ill: none of its groups \(i\)"),
        ({"test_fraction": 0.9}, r"--test-fraction 0\.9: .*0\.5$"),
        ({"test_fraction": -1.0}, r"--test-fraction -1: "),
    ],
)
def test_mistakes(wards: Path, flags: dict[str, object], reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        load_data(str(wards), FolderOptions(split_folders=NO_PARTS, **flags))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_named_sets_and_test_folders_are_not_split(tmp_path: Path, make_images: MakeImages) -> None:
    with pytest.raises(UserError, match=r"digits has parts of its own"):
        load_data("digits", FolderOptions(group_by=PATTERN))
    for part in ("train", "test"):
        for label in ("a", "b"):
            make_images(tmp_path / "set" / part / label, 3)
    with pytest.raises(UserError, match=r"has a test folder already, with 6 images"):
        load_data(str(tmp_path / "set"), FolderOptions(test_fraction=0.2))


def test_two_images_are_too_few_for_three_parts(folder: Path, make_images: MakeImages) -> None:
    make_images(folder / "eel", 2)
    with pytest.raises(UserError, match=r"class eel holds 2 images, .*one to test on"):
        load_data(str(folder), FolderOptions(test_fraction=0.2))


def test_a_run_is_tested_on_groups_that_nothing_was_chosen_by(
    wards: Path, here: Path, command: Command
) -> None:
    ran = command(
        "training",
        *shlex.split(
            "--model resnet14 --data wards --recipe-name scratch --recipe.epochs 2 --recipe.crop 8 "
            "--recipe.resize 8 --recipe.batch-size 16 --recipe.workers 0 --recipe.monitor top1 "
            "--test-fraction 0.2 --split-folders none"
        ),
        "--group-by",
        PATTERN,
    )
    assert ran.returncode == 0, ran.stderr
    run = run_folder("resnet14", "wards")
    checkpoint = load_checkpoint(checkpoint_path(run))
    assert checkpoint.options.group_by == PATTERN
    assert checkpoint.options.test_fraction == 0.2
    again = load_data("wards", checkpoint.options)  # as export does
    assert checkpoint.metrics["test_images"] == len(again.test)
    assert set(digests_of(again.train, again.digests)) == checkpoint.trained_on
    page = (run / "README.md").read_text()
    assert re.search(r"points (above|below) that of the test images\. It was chosen", page)
