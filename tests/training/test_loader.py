from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from few_digits import few_digits
from PIL import Image

from core.errors import UserError
from core.preprocess import ImageError
from training.augment import augmented, mixed
from training.checkpoint import load_checkpoint
from training.data import Sample
from training.datasets import ImageArray, load_data
from training.fit import fit
from training.loader import (
    Batch,
    Loaders,
    TrainingOrder,
    check_batch,
    part_size,
    plain_batches,
    smaller_batch,
)
from training.options import FolderOptions
from training.recipe import Recipe
from training.recipes import digits

SKIPPING = FolderOptions(skip_unreadable=True)


def recipe(**fields: Any) -> Recipe:
    return Recipe(**{"epochs": 1, "batch_size": 4, "learning_rate": 1e-3, **fields})


def test_loaders_give_uint8_batches_in_the_shape_of_the_contract() -> None:
    loaders = Loaders(load_data("digits"), digits())
    pixels, labels, unreadable = next(iter(loaders.train_dataloader()))
    assert pixels.shape == (64, 64, 64, 3)
    assert pixels.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert unreadable == ()
    assert sum(len(batch.labels) for batch in loaders.val_dataloader()) == 359


def batches(workers: int, epoch: int, seed: int = 0) -> list[Batch]:
    plan = recipe(batch_size=64, resize=36, crop=32, randaugment=9, workers=workers, seed=seed)
    loader = Loaders(load_data("digits"), plan).train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_pixels_are_a_matter_of_seed_and_epoch_not_of_processes() -> None:
    torch.manual_seed(1)
    here = batches(0, epoch=3)
    torch.manual_seed(2)
    there = batches(2, epoch=3)
    for mine, theirs in zip(here, there, strict=True):
        assert torch.equal(mine.pixels, theirs.pixels)
        assert torch.equal(mine.labels, theirs.labels)
    assert not torch.equal(here[0].pixels, batches(0, epoch=4)[0].pixels)
    assert not torch.equal(here[0].labels, batches(0, epoch=3, seed=1)[0].labels)


class Collecting(ImageArray):
    """Collects garbage before each sample, as Python does from time to time."""

    def __getitem__(self, index: int) -> Sample:
        gc.collect()
        return super().__getitem__(index)


class InACycle:
    """Garbage that only the collector frees, which then notes the process that freed it."""

    def __init__(self, notes: Path) -> None:
        self.notes, self.cycle = notes, self

    def __del__(self) -> None:
        (self.notes / str(os.getpid())).touch()


def test_processes_never_free_what_they_inherited(tmp_path: Path) -> None:
    pixels, labels = np.zeros((8, 32, 32, 3), np.uint8), np.zeros(8, np.int64)
    gc.disable()  # in this process; it is then the children's alone to free
    try:
        InACycle(tmp_path)
        loader = plain_batches(Collecting(pixels, labels), recipe(crop=32, resize=32, workers=1))
        assert sum(len(batch.labels) for batch in loader) == 8
        assert list(tmp_path.iterdir()) == []
        gc.collect()
    finally:
        gc.enable()
    assert [file.name for file in tmp_path.iterdir()] == [str(os.getpid())]


def test_augmenting_leaves_the_generator_of_dropout_alone() -> None:
    image = Image.new("RGB", (40, 40), "red")
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    augmented(image, recipe(), (0, 0, 0))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_processes_share_each_batch(world: int, accumulate: int) -> None:
    plan = recipe(batch_size=8, accumulate=accumulate)
    orders = [TrainingOrder(30, plan, rank, world) for rank in range(world)]
    size = part_size(plan, world)
    assert size == 8 // world // accumulate
    seen = [[index for _, index in order] for order in orders]
    assert [len(order) for order in orders] == [24 // world] * world == [len(s) for s in seen]
    whole = [index for _, index in TrainingOrder(30, recipe(batch_size=8), 0, 1)]
    assert len(set(whole)) == 24
    for step in range(3):
        mine = 8 // world
        together = [index for s in seen for index in s[step * mine : (step + 1) * mine]]
        assert sorted(together) == sorted(whole[step * 8 : step * 8 + 8])
    # Parts in turn on one process are the parts of two processes.
    if (world, accumulate) == (2, 1):
        turns = [index for _, index in TrainingOrder(30, recipe(batch_size=8, accumulate=2), 0, 1)]
        assert turns[:4] == seen[0][:4]
        assert turns[4:8] == seen[1][:4]


def test_a_batch_that_cannot_be_shared() -> None:
    with pytest.raises(UserError, match=r"batch_size is 4: .*\b3\b"):
        part_size(recipe(), 3)


def test_mixup_and_cutmix_share_out_the_labels() -> None:
    torch.manual_seed(0)
    pixels = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 8, 8, 3) * 60
    labels = torch.arange(4)
    same, untouched = mixed(pixels, labels, recipe(), 4)
    assert same is pixels
    assert untouched is labels
    for fields in ({"mixup": 1.0}, {"cutmix": 1.0}):
        images, shares = mixed(pixels, labels, recipe(**fields), 4)
        assert images.shape == (4, 8, 8, 3)
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(4))
        # An image's mean is the mean of its labels' grey values, by their shares.
        torch.testing.assert_close(images.mean(dim=(1, 2, 3)), shares @ (torch.arange(4.0) * 60))
        assert (shares > 0).sum() > 4
    assert len(mixed(pixels, labels, recipe(mixup=1.0), 4)[0].unique()) <= 4
    assert len(mixed(pixels, labels, recipe(cutmix=1.0), 4)[0].unique()) == 4


@pytest.mark.parametrize("fields", [{"min_scale": 0.3}, {"min_scale": 1.0, "pad": 4, "flip": True}])
def test_training_takes_its_own_side(fields: dict[str, Any]) -> None:
    plan = recipe(resize=48, crop=40, train_crop=32, **fields)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8))
    assert augmented(image, plan, (0, 0, 0)).shape == (32, 32, 3)
    assert plan.preprocess(image).shape == (40, 40, 3)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_and_nothing_is_left(
    folder: Path, here: Path, workers: int
) -> None:
    for label in ("cat", "dog"):  # all of them, so that it does not matter which are held out
        for file in (folder / label).iterdir():
            file.write_bytes(file.read_bytes()[:60])  # a header, so it passes the first look
    plan = recipe(resize=32, crop=32, workers=workers)
    reason = r"\.png: .*--skip-unreadable"
    with pytest.raises(ImageError, match=reason) as caught:
        fit("mobilenet_v3", load_data(str(folder)), plan)
    assert "\n" not in str(caught.value)
    assert not list((here / "runs").iterdir())
    with pytest.raises(UserError, match=rf"{folder}/(cat|dog)/\d\.png"):
        fit("mobilenet_v3", load_data(str(folder)), plan, options=SKIPPING)


def test_unreadable_images_are_left_out_on_request(
    folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [folder / "cat" / "3.png", folder / "dog" / "7.png"]
    for file in broken:
        file.write_bytes(file.read_bytes()[:60])
    data = load_data(str(folder))
    held_out = sum(source in broken for source, _ in data.val)
    plan = recipe(epochs=2, resize=16, crop=16, batch_size=8)
    path = fit("resnet14", data, plan, options=SKIPPING)
    assert load_checkpoint(path).metrics["images"] == 4 - held_out
    listed = (path.parent / "unreadable.txt").read_text().splitlines()
    assert [line.partition(": ")[0] for line in listed] == [str(file) for file in broken]
    said = capsys.readouterr().err
    assert all(said.count(f"left out: {file}") == 1 for file in broken)


def test_a_batch_larger_than_the_data(folder: Path, here: Path) -> None:
    with pytest.raises(UserError, match=r"batch_size is 17, .*\b16\b"):
        fit("mobilenet_v3", load_data(str(folder)), recipe(batch_size=17))
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("images", "parts", "batch"),
    [(60, 1, 30), (5, 1, 2), (3, 1, 2), (2, 1, 2), (1, 1, None), (9, 4, 8), (7, 4, None)],
)
def test_the_batch_that_is_advised_is_never_of_one_image(
    images: int, parts: int, batch: int | None
) -> None:
    assert smaller_batch(images, parts) == batch


def test_too_few_images_for_any_batch() -> None:
    plan = recipe(batch_size=16, accumulate=4)
    advised = r"more than the 9 training images of digits; try --recipe.batch-size 8$"
    with pytest.raises(UserError, match=advised):
        check_batch(few_digits("digits", train=9, val=4), plan)
    with pytest.raises(UserError, match=r"7 training images of digits; add images$"):
        check_batch(few_digits("digits", train=7, val=4), plan)
    with pytest.raises(UserError, match="it must be a multiple of 12"):
        check_batch(few_digits("digits", train=20, val=4), plan, world=3)
