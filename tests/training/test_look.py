"""Files are looked at before anything is trained: what they are, and which image each is."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from core.errors import UserError
from core.preprocess import FORMATS, MAX_PIXELS, ImageError, check_header
from training.data import ImageData
from training.datasets import load_data
from training.look import look, look_at
from training.options import FolderOptions

MakeImages = Callable[..., list[Path]]
Command = Callable[..., subprocess.CompletedProcess[str]]

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
TINY = "--recipe-name scratch --recipe.epochs 1 --recipe.crop 8 --recipe.resize 8 "
TINY += "--recipe.batch-size 4 --recipe.workers 0"


def train(command: Command, *flags: str) -> subprocess.CompletedProcess[str]:
    return command("training", "--model", "resnet14", *TINY.split(), *flags)


def images(data: ImageData) -> set[Path]:
    return {Path(str(source)) for part in data.parts.values() for source, _ in part}


@pytest.fixture
def split(tmp_path: Path, make_images: MakeImages) -> Path:
    """Returns a folder with a given split, whose files are not read to list them."""
    for part in ("train", "val"):
        for label in ("cat", "dog"):
            make_images(tmp_path / "split" / part / label, 10)
    return tmp_path / "split"


@pytest.mark.parametrize("name", ["a.jfif", "b.jpe", "c.JPEG", "d", "e.heic", "f.bin"])
def test_an_image_is_an_image_whatever_its_suffix(folder: Path, name: str) -> None:
    Image.new("RGB", (9, 9), "green").save(folder / "dog" / name, "JPEG")
    data = load_data(str(folder))
    assert folder / "dog" / name in images(data)
    assert data.scan.lines() == []


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_passes(tmp_path: Path, format: str) -> None:
    if format == "HEIF":
        pytest.importorskip("pillow_heif")
    Image.new("RGB", (9, 9), "green").save(tmp_path / "image", format)
    check_header(tmp_path / "image")
    (looked,) = look_at([tmp_path / "image"]).values()
    assert isinstance(looked, bytes)  # its digest, not a reason to leave it out


def test_a_class_may_lose_a_tenth_of_its_files(split: Path) -> None:
    (split / "val" / "dog" / "0.png").write_bytes(b"")
    data = load_data(str(split))
    assert len(data.val) == 20
    looked = look(data, FolderOptions())
    assert len(looked.val) == 19
    assert split / "val" / "dog" / "0.png" not in images(looked)
    assert looked.scan.lines()[1:] == [f"not used: 1 file: 1 empty ({split}/val/dog/0.png)"]
    assert len(data.scan.lines()) == 1  # what was given stays as it was


def test_a_class_that_loses_more_than_a_tenth_is_refused(folder: Path) -> None:
    (folder / "dog" / "0.png").write_bytes(b"no image")
    (folder / "dog" / "1.png").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        load_data(str(folder))
    reasons = rf"1 .*\({folder}/dog/0.png\), 1 .*\({folder}/dog/1.png\)"
    message = str(caught.value)
    assert re.match(f"class dog: 2 of its 10 .*: {reasons}.*--skip-unreadable", message)
    data = load_data(str(folder), FolderOptions(skip_unreadable=True))
    assert len(images(data)) == 18
    unused = sorted(file for files in data.scan.unused.values() for file in files)
    assert unused == [folder / "dog" / "0.png", folder / "dog" / "1.png"]


def test_files_that_are_not_meant_as_images_are_no_loss(folder: Path) -> None:
    for index in range(10):
        (folder / "dog" / f"{index}.json").write_text("{}")
    data = load_data(str(folder))
    assert len(images(data)) == 20
    assert [len(files) for files in data.scan.unused.values()] == [10]


def test_a_class_without_any_image_is_refused_in_any_case(folder: Path) -> None:
    for file in (folder / "dog").iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(UserError, match=rf"class dog: 10 of its 10 .*{folder}/dog"):
        load_data(str(folder), FolderOptions(skip_unreadable=True))


def test_heic_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    formats = tuple(name for name in FORMATS if name != "HEIF")
    monkeypatch.setattr("core.preprocess.FORMATS", formats)
    for index in range(5):
        (folder / "dog" / f"{index}.heic").write_bytes(HEIC)
    with pytest.raises(
        UserError, match=r"5 of its 15 .* pip install '.\[heic\]' \(such as .*heic\)"
    ):
        load_data(str(folder))


def test_what_cannot_be_opened_is_no_image(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("/nowhere/image.png")
    (folder / "zeros.png").write_bytes(bytes(100))
    image = io.BytesIO()
    Image.new("1", (MAX_PIXELS // 1000 + 1, 1000)).save(image, "PNG")
    (folder / "huge.png").write_bytes(image.getvalue())
    names = ("pipe", "link", "zeros.png", "huge.png")
    looks = look_at([folder / name for name in names])
    assert all(isinstance(reason, str) for reason in looks.values())
    assert len(set(looks.values())) == 4  # each has a reason of its own


def test_a_file_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, opened = folder / "dog" / "0.png", Path.open

    def refuse(
        path: Path, *arguments: Any, **named: Any
    ) -> object:  # chmod does not stop the root user
        if path == file:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refuse)
    assert re.search(r"\(Permission denied\)$", str(look_at([file])[file]))


def test_a_tiff_that_costs_too_much_is_refused_as_decoding_does(tmp_path: Path) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "a.tif")
    check_header(tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    at = content.index((273).to_bytes(2, "little"))  # StripOffsets
    content[at + 4 : at + 8] = (200_000).to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(ImageError, match=r"\b273\b.* 200000 "):
        check_header(tmp_path / "a.tif")


def test_an_unreadable_image_in_val_is_found_before_the_first_epoch(
    split: Path, here: Path, command: Command
) -> None:
    for index in range(2):
        (split / "val" / "dog" / f"{index}.png").write_bytes(b"no image")
    ran = train(command, "--data", str(split))
    assert ran.returncode == 1
    assert re.search(rf"class dog: 2 of its 10 .*{split}/val/dog/\d\.png", ran.stderr)
    assert "epoch" not in ran.stderr
    assert not (here / "runs").exists()
    ran = train(command, "--data", str(split), "--skip-unreadable")
    assert ran.returncode == 0
    assert re.search(rf": 2 .*{split}/val/dog/\d\.png", ran.stderr)
    assert "on 18 images" in ran.stdout


def test_a_bar_shows_how_far_it_is(folder: Path) -> None:
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=100)
    look_at(sorted((folder / "cat").iterdir()), terminal)
    assert "10/10" in shown.getvalue()
    piped = io.StringIO()
    look_at(sorted((folder / "cat").iterdir()), Console(file=piped))
    assert piped.getvalue() == ""


# The same image twice


def test_an_image_in_train_and_val_is_refused(split: Path) -> None:
    for index in range(7):
        shutil.copy(split / "train" / "cat" / f"{index}.png", split / "val" / "cat" / f"c{index}")
    data = load_data(str(split))
    with pytest.raises(UserError) as caught:
        look(data, FolderOptions())
    said = str(caught.value)
    assert re.search(r"^split: .*: 7 in train and val: .*--allow-duplicates", said)
    assert f"{split}/train/cat/0.png = {split}/val/cat/c0" in said
    assert said.count(" = ") == 5
    looked = look(data, FolderOptions(allow_duplicates=True))
    assert len(looked.val) == 27
    assert re.search(r"^warning: split: .*: 7 ", looked.scan.notes[-1])


def test_an_image_in_two_classes_is_refused(folder: Path) -> None:
    shutil.copy(folder / "cat" / "3.png", folder / "dog" / "other.png")
    same = f"{folder}/cat/3.png = {folder}/dog/other.png"
    with pytest.raises(UserError, match=f"^pets: .*: 1 .*{same}.*--allow-duplicates"):
        load_data(str(folder))
    data = load_data(str(folder), FolderOptions(allow_duplicates=True))
    parts = [{str(source) for source, _ in part} for part in (data.train, data.val)]
    both = {str(folder / "cat" / "3.png"), str(folder / "dog" / "other.png")}
    assert [len(part & both) for part in parts] in ([2, 0], [0, 2])  # both on one side


def test_an_image_twice_in_a_class_stands_on_one_side(folder: Path) -> None:
    for index in range(10):
        shutil.copy(folder / "cat" / f"{index}.png", folder / "cat" / f"again{index}.png")
    data = load_data(str(folder))
    assert data.scan.lines() == []
    for label, count in ((0, 4), (1, 2)):
        held_out = [Path(str(source)).name for source, index in data.val if index == label]
        assert len(held_out) == count
        learned = [Path(str(source)).name for source, index in data.train if index == label]
        assert not {name[-5:] for name in held_out} & {name[-5:] for name in learned}


def test_published_sets_keep_the_duplicates_they_have(split: Path) -> None:
    shutil.copy(split / "train" / "cat" / "0.png", split / "val" / "cat" / "copy.png")
    data = load_data(str(split))
    published = ImageData(name="imagenet", labels=data.labels, train=data.train, val=data.val)
    looked = look(published, FolderOptions())
    assert len(looked.val) == 21
    assert re.search(r"^warning: imagenet: .*: 1 in train and val", looked.scan.notes[0])
