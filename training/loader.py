"""Samples to uint8 batches, with a file that cannot be read named rather than buried."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, v2

from models.preprocess import ImageError
from training.data import ImageData, Sample, open_image
from training.recipe import Recipe

Item = tuple[torch.Tensor, int] | ImageError
Batch = tuple[torch.Tensor, torch.Tensor]


class Samples(Dataset[Item]):
    """Samples as uint8 (crop, crop, 3) tensors with their class index.

    An image that cannot be read is an item too, as the ImageError itself: raised inside a worker
    process it would reach the user as a stack trace.
    """

    def __init__(self, samples: Sequence[Sample], recipe: Recipe, *, augment: bool) -> None:
        self._samples = samples
        self._preprocess = recipe.preprocess
        self._augment = _augmentation(recipe) if augment else None

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Item:
        source, label = self._samples[index]
        try:
            image = open_image(source)
        except ImageError as error:
            return error
        pixels = self._preprocess(image) if self._augment is None else self._augmented(image)
        return torch.from_numpy(pixels.copy()), label

    def _augmented(self, image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        assert self._augment is not None
        return np.asarray(self._augment(image.convert("RGB")))


def loaders(data: ImageData, recipe: Recipe) -> tuple[DataLoader[Item], DataLoader[Item]]:
    """Returns the training loader (shuffled, augmented) and the held-out one.

    Both yield uint8 (n, crop, crop, 3) and int64 (n,), or the ImageError of an unreadable image.
    """
    train = Samples(data.train, recipe, augment=True)
    val = Samples(data.val, recipe, augment=False)
    return _loader(train, recipe, training=True), _loader(val, recipe, training=False)


def _loader(samples: Samples, recipe: Recipe, *, training: bool) -> DataLoader[Item]:
    return DataLoader(
        samples,
        batch_size=recipe.batch_size,
        num_workers=recipe.workers,
        persistent_workers=recipe.workers > 0,
        collate_fn=_collate,
        shuffle=training,
        drop_last=training,
    )


def _collate(items: Sequence[Item]) -> Batch | ImageError:
    pixels, labels = [], []
    for item in items:
        if isinstance(item, ImageError):
            return item
        pixels.append(item[0])
        labels.append(item[1])
    return torch.stack(pixels), torch.tensor(labels)


def _augmentation(recipe: Recipe) -> v2.Transform:
    interpolation = InterpolationMode(recipe.interpolation)
    steps: list[torch.nn.Module] = (
        [v2.RandomResizedCrop(recipe.crop, (recipe.min_scale, 1), interpolation=interpolation)]
        if recipe.min_scale < 1
        else [v2.Lambda(lambda image: Image.fromarray(recipe.preprocess(image)))]
    )
    if recipe.flip:
        steps.append(v2.RandomHorizontalFlip())
    if recipe.shift or recipe.rotate:
        moves = (recipe.shift, recipe.shift)
        steps.append(v2.RandomAffine(recipe.rotate, moves, interpolation=interpolation))
    return v2.Compose(steps)
