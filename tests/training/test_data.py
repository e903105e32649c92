from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.errors import UserError
from models.preprocess import ImageError
from training.data import load_data, sample_photos
from training.fit import fit
from training.loader import loaders
from training.recipe import Recipe, digits

SMALL = Recipe(epochs=1, batch_size=4, learning_rate=1e-3, resize=32, crop=32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a folder of ten images in each of two classes."""
    for label, colour in (("cat", "red"), ("dog", "blue")):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", (40, 50), colour).save(tmp_path / "pets" / label / f"{index}.png")
    return tmp_path / "pets"


def test_digits_are_split_the_same_way_every_time() -> None:
    first, second = load_data("digits"), load_data("digits")
    assert len(first.train) + len(first.val) == 1797
    assert first.labels == tuple("0123456789")
    assert [label for _, label in first.val] == [label for _, label in second.val]
    counts = np.bincount([label for _, label in first.val])
    assert counts.min() >= 34  # a fifth of each class


def test_digits_keep_their_grey_levels() -> None:
    image, _ = load_data("digits").train[0]
    assert isinstance(image, Image.Image)
    assert image.size == (8, 8)
    assert set(np.unique(np.asarray(image))) <= set(np.round(np.arange(17) * 255 / 16).astype(int))


def test_no_image_is_both_learned_from_and_held_out(folder: Path) -> None:
    data = load_data(str(folder))
    assert data.name == "pets"
    assert data.labels == ("cat", "dog")
    train, val = ({str(source) for source, _ in part} for part in (data.train, data.val))
    assert (len(train), len(val)) == (16, 4)
    assert not train & val


def test_a_split_folder_is_taken_as_it_is(folder: Path) -> None:
    for part in ("train", "val"):
        (folder / part).mkdir()
    for label in ("cat", "dog"):
        (folder / "val" / label).mkdir()
        for index in range(3):
            (folder / label / f"{index}.png").rename(folder / "val" / label / f"{index}.png")
        (folder / label).rename(folder / "train" / label)
    data = load_data(str(folder))
    assert (len(data.train), len(data.val)) == (14, 6)


def _one_class(folder: Path) -> None:
    for file in (folder / "dog").iterdir():
        file.unlink()
    (folder / "dog").rmdir()


def _no_images(folder: Path) -> None:
    for file in (folder / "dog").iterdir():
        file.unlink()


def _only_train(folder: Path) -> None:
    (folder / "train").mkdir()


def _other_classes(folder: Path) -> None:
    for part in ("train", "val"):
        for label in ("cat", "dog", "eel") if part == "train" else ("cat", "dog"):
            (folder / part / label).mkdir(parents=True)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_one_class, r"one class folder \(cat\)"),
        (_no_images, r"dog: 0 images, at least 2 are needed"),
        (_only_train, r"only one of train/ and val/; add val/"),
        (_other_classes, r"differ in these classes: eel"),
    ],
)
def test_a_folder_that_is_no_data_set(
    folder: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    spoil(folder)
    with pytest.raises(UserError, match=reason):
        load_data(str(folder))


def test_an_empty_folder_and_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no class folders"):
        load_data(str(tmp_path))
    with pytest.raises(UserError, match=r"unknown data 'digit': .* did you mean digits"):
        load_data("digit")


def test_loaders_give_uint8_batches_in_the_shape_of_the_contract() -> None:
    train, val = loaders(load_data("digits"), digits())
    pixels, labels = next(iter(train))
    assert pixels.shape == (64, 64, 64, 3)
    assert pixels.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert sum(len(batch[1]) for batch in val) == 359


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_and_nothing_is_left(
    folder: Path, here: Path, workers: int
) -> None:
    for label in ("cat", "dog"):  # all of them, so that it does not matter which are held out
        for file in (folder / label).iterdir():
            file.write_bytes(b"not an image")
    recipe = Recipe(epochs=1, batch_size=4, learning_rate=1e-3, resize=32, crop=32, workers=workers)
    with pytest.raises(ImageError, match=r"\.png: not a JPEG, PNG") as caught:
        fit("mobilenet_v3", load_data(str(folder)), recipe)
    assert "\n" not in str(caught.value)
    assert not list((here / "runs").iterdir())


def test_a_batch_larger_than_the_data(folder: Path, here: Path) -> None:
    recipe = Recipe(epochs=1, batch_size=17, learning_rate=1e-3)
    with pytest.raises(UserError, match="batch_size is 17, more than the 16 training images"):
        fit("mobilenet_v3", load_data(str(folder)), recipe)
    assert not (here / "runs").exists()


def test_sample_photos_are_real_and_repeatable() -> None:
    photos = sample_photos(6)
    assert [photo.tobytes() for photo in photos] == [p.tobytes() for p in sample_photos(6)]
    assert all(np.asarray(photo).std() > 10 for photo in photos)
