"""Augmentation: of single images on the CPU, and mixup and cutmix of batches on the device."""

from __future__ import annotations

import functools

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from core.images.colour import to_rgb
from core.preprocess import Pixels, Preprocess
from training.recipe import Recipe


@functools.cache
def augmentation(recipe: Recipe) -> v2.Transform:
    """Returns the transform of an epoch of ``recipe``: PIL RGB to a square PIL RGB image.

    It draws from torch's CPU generator.
    """
    side = recipe.train_crop or recipe.crop
    interpolation = InterpolationMode(recipe.interpolation)
    steps: list[torch.nn.Module] = []
    if recipe.min_scale < 1:
        scale = (recipe.min_scale, 1.0)
        steps.append(v2.RandomResizedCrop(side, scale, interpolation=interpolation))
    else:
        resize = round(recipe.resize * side / recipe.crop)
        whole = Preprocess(resize=resize, crop=side, interpolation=recipe.interpolation)
        steps.append(v2.Lambda(lambda image: Image.fromarray(whole(image))))
    if recipe.pad:
        steps.append(v2.RandomCrop(side, padding=recipe.pad))
    if recipe.flip:
        steps.append(v2.RandomHorizontalFlip())
    if recipe.shift or recipe.rotate:
        moves = (recipe.shift, recipe.shift)
        steps.append(v2.RandomAffine(recipe.rotate, moves, interpolation=interpolation))
    if recipe.randaugment:
        steps.append(v2.RandAugment(magnitude=recipe.randaugment, interpolation=interpolation))
    return v2.Compose(steps)


def seed_of(key: tuple[int, ...]) -> int:
    """Returns a pseudo-random seed for torch that depends only on ``key``."""
    (seed,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return int(seed) >> 1  # torch's seeds have 63 bits


def augmented(image: Image.Image, recipe: Recipe, key: tuple[int, ...]) -> Pixels:
    """Returns uint8 (side, side, 3): ``image``, augmented with ``key`` as the seed.

    The same key gives the same pixels in every process, so neither the number of worker processes
    nor an interruption changes a run.
    """
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also reset the device's generator, used by dropout.
        torch.default_generator.manual_seed(seed_of(key))
        return np.asarray(augmentation(recipe)(to_rgb(image)), dtype=np.uint8)


def mixed(
    pixels: torch.Tensor, labels: torch.Tensor, recipe: Recipe, classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a batch after mixup or cutmix, on its device: pixels in 0..255 and soft labels.

    Args:
        pixels: uint8 (N, H, W, 3).
        labels: int64 (N,).
        recipe: recipe of the epoch.
        classes: number of classes C.

    Returns:
        float32 (N, H, W, 3) and (N, C); the arguments themselves if the recipe mixes nothing.
        Normalisation follows and is affine, so mixing before or after it is the same.
    """
    mixes: list[v2.Transform] = []
    if recipe.mixup:
        mixes.append(v2.MixUp(alpha=recipe.mixup, num_classes=classes))
    if recipe.cutmix:
        mixes.append(v2.CutMix(alpha=recipe.cutmix, num_classes=classes))
    if not mixes:
        return pixels, labels
    images, shares = v2.RandomChoice(mixes)(pixels.float().permute(0, 3, 1, 2), labels)
    return images.permute(0, 2, 3, 1), shares
