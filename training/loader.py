"""Loads samples as uint8 batches, in an order that depends only on the recipe."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytorch_lightning as lightning
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from core.errors import UserError
from core.preprocess import ImageError
from training.augment import augmented
from training.data import ImageData, Sample, labels_of, open_image, pixels_of
from training.recipe import Recipe

STATISTICS_IMAGES = 1024
"""Most training images from which batch norm statistics are estimated."""

Key = tuple[int, int]  # epoch, and a draw: see draw()
Labels = npt.NDArray[np.int64]
Item = tuple[torch.Tensor, int] | ImageError
Report = Callable[[ImageError], None]


class Batch(NamedTuple):
    """Some samples: uint8 (n, H, W, 3), int64 (n,), and the errors of those that cannot be read.

    Errors are passed as values: raised in a worker process, they would appear as stack traces.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    unreadable: tuple[ImageError, ...]


class Loaders(lightning.LightningDataModule):
    """The training and the held-out loader of this process, one of ``trainer.world_size``."""

    def __init__(self, data: ImageData, recipe: Recipe) -> None:
        super().__init__()
        self._data = data
        self._recipe = recipe

    def train_dataloader(self) -> DataLoader[Item]:
        """Returns shuffled, augmented batches; see :class:`TrainingOrder`."""
        rank, world = self._place()
        size = part_size(self._recipe, world)
        order = TrainingOrder(len(self._data.train), self._recipe, rank, world, self._balance())
        samples = Samples(self._data.train, self._recipe, augment=True)
        return _loader(samples, order, size, self._recipe.workers)

    def val_dataloader(self) -> DataLoader[Item]:
        """Returns this process's share of the held-out images; no image is used twice."""
        rank, world = self._place()
        return plain_batches(self._data.val, self._recipe, rank, world)

    def statistics_dataloader(self) -> DataLoader[Item]:
        """Returns training images without augmentation, for batch norm statistics.

        They are the same random ones in every epoch, up to :data:`STATISTICS_IMAGES`, in batches
        of the training size.
        """
        rank, world = self._place()
        size = part_size(self._recipe, world)
        random = np.random.default_rng(self._recipe.seed)
        draws = draw(random, len(self._data.train), self._balance())
        steps = max(1, min(STATISTICS_IMAGES, len(draws)) // (size * world))
        parts = draws[: steps * world * size].reshape(steps, world, size)
        order = [(0, int(number)) for number in parts[:, rank].flat]
        samples = Samples(self._data.train, self._recipe, augment=False)
        return _loader(samples, order, size, self._recipe.workers)

    def _balance(self) -> Labels | None:
        """Returns the classes of the training images if as many of each are used."""
        return labels_of(self._data.train) if self._recipe.sampler == "balanced" else None

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def plain_batches(
    samples: Sequence[Sample], recipe: Recipe, rank: int = 0, world: int = 1
) -> DataLoader[Item]:
    """Returns one process's share of ``samples``, in order and without augmentation."""
    order = [(0, index) for index in range(rank, len(samples), world)]
    plain = Samples(samples, recipe, augment=False)
    return _loader(plain, order, part_size(recipe, world), recipe.workers)


def read(batch: Batch, report: Report | None) -> Batch:
    """Reports the unreadable images of ``batch``, or raises if ``report`` is None; returns it."""
    for error in batch.unreadable:
        if report is None:
            raise ImageError(f"{error}; mend it, or --skip-unreadable leaves such images out")
        report(error)
    return batch


def check_batch(
    data: ImageData, recipe: Recipe, *, flag: str = "--recipe.batch-size", world: int = 1
) -> None:
    """Checks that there are images for a batch, and that it can be divided.

    Args:
        data: the data set.
        recipe: the recipe.
        flag: what sets the batch, for the error.
        world: number of processes.

    Raises:
        UserError: fewer training images than a batch, or as :func:`part_size`.
    """
    if len(data.train) < recipe.batch_size:
        smaller = smaller_batch(len(data.train), recipe.accumulate * world)
        raise UserError(
            f"batch_size is {recipe.batch_size}, more than the {len(data.train)} training images "
            f"of {data.name}; {f'try {flag} {smaller}' if smaller else 'add images'}"
        )
    part_size(recipe, world)


def smaller_batch(images: int, parts: int) -> int | None:
    """Returns a batch size of about half of ``images``, in ``parts`` of at least two images each.

    Batch norm cannot learn from a single one. None if there are too few images.
    """
    half = images // 2 // parts * parts
    fewest = 2 * parts
    return half if half >= fewest else fewest if images >= fewest else None


def part_size(recipe: Recipe, world: int) -> int:
    """Returns the number of images per forward pass in each of ``world`` processes.

    Raises:
        UserError: the batch cannot be divided evenly.
    """
    parts = recipe.accumulate * world
    if recipe.batch_size % parts:
        raise UserError(
            f"batch_size is {recipe.batch_size}: it must be a multiple of {parts} "
            f"({world} processes x accumulate {recipe.accumulate})"
        )
    return recipe.batch_size // parts


class TrainingOrder(Sampler[Key]):
    """The samples of one process, epoch by epoch.

    All processes shuffle identically and take their part of each batch, so a step uses the same
    images whether one process computes it in two parts, or two processes compute one each.

    Args:
        length: number of samples, which is also that of the draws of an epoch.
        recipe: its seed and batch size.
        rank: number of this process.
        world: number of processes.
        labels: (length,) class of each sample, to use as many of each class; None to use each
            sample once.
    """

    def __init__(
        self, length: int, recipe: Recipe, rank: int, world: int, labels: Labels | None = None
    ) -> None:
        self._length = length
        self._recipe = recipe
        self._rank, self._world = rank, world
        self._labels = labels
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the next epoch; called by the trainer."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length // self._recipe.batch_size * (self._recipe.batch_size // self._world)

    def __iter__(self) -> Iterator[Key]:
        recipe = self._recipe
        random = np.random.default_rng((recipe.seed, self._epoch))
        draws = draw(random, self._length, self._labels)
        steps = self._length // recipe.batch_size
        parts = draws[: steps * recipe.batch_size].reshape(
            steps * recipe.accumulate, self._world, -1
        )
        return ((self._epoch, int(number)) for number in parts[:, self._rank].flat)


def draw(random: np.random.Generator, length: int, labels: Labels | None) -> Labels:
    """Returns int64 (length,): the draws of an epoch, in random order.

    A draw is the index of a sample, plus ``length`` for each time that it was drawn before in this
    epoch, so that repeated images are not augmented alike.

    Args:
        random: random generator of the epoch.
        length: number of samples.
        labels: (length,) class of each sample, to draw as many of each class, to within one; None
            to draw each sample once. A class is drawn from anew when all its samples were.
    """
    if labels is None:
        return random.permutation(length)
    classes = random.permutation(np.unique(labels))
    draws = []
    for place, label in enumerate(classes):
        samples = np.flatnonzero(labels == label)
        count = (length + place) // len(classes)
        rounds = -(-count // len(samples))
        turns = [turn * length + random.permutation(samples) for turn in range(rounds)]
        draws.append(np.concatenate(turns)[:count] if turns else samples[:0])
    return random.permutation(np.concatenate(draws))


class Samples(Dataset[Item]):
    """Samples as uint8 (side, side, 3) tensors with their class index."""

    def __init__(self, samples: Sequence[Sample], recipe: Recipe, *, augment: bool) -> None:
        self._samples = samples
        self._recipe = recipe
        self._augment = augment

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: Key) -> Item:
        epoch, number = key
        source, label = self._samples[number % len(self._samples)]
        truncated = self._recipe.truncated
        try:
            if self._augment:
                whole, seeds = open_image(source, truncated), (self._recipe.seed, epoch, number)
                pixels = augmented(whole, self._recipe.at(epoch), seeds)
            else:
                pixels = pixels_of(source, self._recipe.preprocess, truncated)
        except ImageError as error:
            return error
        return torch.from_numpy(pixels.copy()), label


class _ForkedLoader(DataLoader[Item]):
    """A loader whose worker processes never free what they have inherited.

    Among it can be tensors on a GPU that an earlier run left in a reference cycle. Freeing them
    aborts a forked process, which cannot use the GPU.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        gc.freeze()
        try:
            return super().__iter__()  # starts the processes, in which all of it stays frozen
        finally:
            gc.unfreeze()


def _loader(
    samples: Samples, order: Sampler[Key] | Sequence[Key], size: int, workers: int
) -> DataLoader[Item]:
    return _ForkedLoader(
        samples,
        batch_size=size,
        sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        collate_fn=_collate,
        generator=torch.Generator(),  # else it draws from the one that mixup and dropout draw from
    )


def _collate(items: Sequence[Item]) -> Batch:
    unreadable = tuple(item for item in items if isinstance(item, ImageError))
    read = [item for item in items if not isinstance(item, ImageError)]
    if not read:
        return Batch(torch.empty(0), torch.empty(0), unreadable)
    pixels, labels = zip(*read, strict=True)
    return Batch(torch.stack(pixels), torch.tensor(labels), unreadable)
