"""Recipes by name: functions of the network's native input size that return a whole one."""

from __future__ import annotations

from collections.abc import Callable

from models.registry import find_model
from training import papers
from training.datasets import DATASETS
from training.recipe import Recipe, decoders, photos


def digits(size: int = 64) -> Recipe:
    """Returns the recipe for scikit-learn's 8x8 digits, enlarged to 64x64 for every network.

    make train MODEL=mobilenet_v3 DATA=digits

    Measured with mobilenet_v3_large on 2 cores of a Xeon in fp32, 2026-11-22: 98.1 % held-out
    top-1, six epochs in 47 s.
    Batch norm's own momentum of 0.01 would need more steps than this short run has.
    """
    return Recipe(
        epochs=6,
        batch_size=64,
        learning_rate=3e-3,
        warmup=0.25,
        bn_momentum=0.1,
        resize=64,
        crop=64,
        min_scale=1.0,
        flip=False,
        shift=0.06,
        rotate=8.0,
    )


def small(size: int = 32) -> Recipe:
    """Returns the recipe for sets of small images: Fashion-MNIST, CIFAR-10 and CIFAR-100.

    make train MODEL=resnet14 DATA=fashion_mnist

    The usual padding, crop and mirror of CIFAR, at 32x32. Nobody measured it yet.
    """
    return Recipe(
        epochs=30,
        batch_size=128,
        learning_rate=2e-3,
        resize=32,
        crop=32,
        min_scale=1.0,
        pad=4,
        workers=decoders(),
    )


def ablation(size: int = 32) -> Recipe:
    """Returns the recipe of the ablation study of resnet14: Adam 1e-3, batches of 100, 80 epochs.

    make train MODEL=resnet14_se DATA=fashion_mnist RECIPE=ablation
    python -m bench study ablation --data fashion_mnist, for all six

    No augmentation and a constant rate, so that networks differ in structure only. The seeds of
    this project print 80 epochs of CIFAR-10 on a GTX 1070; measured here: docs/ablation.md.
    """
    return Recipe(
        epochs=80,
        batch_size=100,
        learning_rate=1e-3,
        optimizer="adam",
        weight_decay=0.0,
        schedule="constant",
        warmup=0.0,
        label_smoothing=0.0,
        resize=32,
        crop=32,
        min_scale=1.0,
        flip=False,
    )


def scratch(size: int = 224) -> Recipe:
    """Returns a plain recipe for a folder of photos, from random weights.

    make train MODEL=mobilenet_v3 DATA=path/to/folder RECIPE=scratch

    Nobody measured it yet on a public data set.
    """
    return photos(size, epochs=90, batch_size=64, learning_rate=2e-3)


def finetune(size: int = 224) -> Recipe:
    """Returns the recipe for a folder of photos, from ImageNet weights.

    make train MODEL=shufflenet_v2_x1_0 DATA=path/to/folder

    Nobody measured it yet on a public data set.
    """
    return photos(
        size,
        epochs=20,
        batch_size=64,
        learning_rate=5e-4,
        weights="imagenet",
        min_scale=0.5,
        warmup=0.1,
        ema=0.99,
    )


RECIPES: dict[str, Callable[[int], Recipe]] = {
    "digits": digits,
    "small": small,
    "ablation": ablation,
    "scratch": scratch,
    "finetune": finetune,
    "mobilenet": papers.mobilenet,
    "shufflenet": papers.shufflenet,
    "efficientnet": papers.efficientnet,
    "efficientnet_v2": papers.efficientnet_v2,
    "bag_of_tricks": papers.bag_of_tricks,
}


def default_recipe(model: str, data: str) -> str:
    """Returns the name of the recipe used unless another is asked for.

    Small images have their own; photos are fine-tuned where ImageNet weights were published, save
    ImageNet itself, and trained from scratch otherwise.
    """
    if data in DATASETS and (recipe := DATASETS[data].recipe):
        return recipe
    return "finetune" if find_model(model).imagenet else "scratch"
