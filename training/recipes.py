"""Recipes by name: functions of the network's native input size that return a complete recipe.

If a paper trained on several devices, its recipe here has the same total batch size. Papers give
warm-up in epochs; here it is a fraction of all steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from core.cores import usable_cores
from core.errors import UserError, unknown
from core.image_size import in_full
from models.registry import find_model
from training.datasets import DATASETS
from training.recipe import Recipe


def photos(size: int, **fields: Any) -> Recipe:
    """Returns a recipe for photos at ``size`` pixels, with the given ``fields``."""
    return Recipe(crop=size, resize=round(size * 8 / 7), workers=decoders(), **fields)


def decoders() -> int:
    """Returns the best number of decoding processes on this machine.

    With a GPU, one per core. On a CPU none: a decoding process would take a core from the training
    step (measured on 2 cores: 0.94 of the step's speed with one process, 1.02 with none).
    """
    import torch

    return min(8, usable_cores()) if torch.cuda.is_available() else 0


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

    The usual padding, crop and mirror of CIFAR, at 32x32. Measured for one epoch, and on imbalanced
    classes: docs/results.md.
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

    No augmentation and a constant rate, so that networks differ in structure only. The figures
    that the study repeats are of 80 epochs of CIFAR-10 on a GTX 1070; measured here:
    docs/ablation.md.
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

    Measured on few images only: docs/results.md.
    """
    return photos(
        size,
        epochs=20,
        batch_size=64,
        learning_rate=5e-4,
        weights="imagenet",
        keep_statistics=True,
        min_scale=0.5,
        warmup=0.1,
        ema=0.99,
    )


def probe(size: int = 224) -> Recipe:
    """Returns the recipe of a linear probe: ImageNet weights, of which only the last layer learns.

    make train MODEL=efficientnet_lite0 DATA=path/to/folder RECIPE=probe

    No backward pass through the backbone, and few epochs: a first figure, which fine-tuning should
    exceed. Measured with efficientnet_lite0 on 250 photos of CIFAR-10 enlarged to 128 px, on one
    core of an AMD EPYC, 2026-11-27: 62.0 % top-1 on 500 others, in 38 s of CPU time.
    """
    return photos(
        size,
        epochs=5,
        batch_size=64,
        learning_rate=1e-2,
        weights="imagenet",
        freeze_epochs=5,
        keep_statistics=True,
        min_scale=0.5,
        warmup=0.1,
    )


def qat(size: int = 224) -> Recipe:
    """Returns the recipe of quantization-aware fine-tuning of a finished run, by its int8 form.

    make train MODEL=mobilenet_v3 DATA=digits RECIPE=qat

    Images are augmented as in that run. Measured: docs/results.md.
    """
    return photos(
        size,
        epochs=5,
        batch_size=64,
        learning_rate=1e-4,
        weights="run",
        qat=True,
        weight_decay=0.0,
        warmup=0.1,
        min_scale=0.5,
        label_smoothing=0.0,
        temperature=1.0,
        calibrate=False,
        precision="fp32",
    )


def qat_imagenet(size: int = 224) -> Recipe:
    """Returns the recipe of quantization-aware fine-tuning of published ImageNet weights.

    make train MODEL=efficientnet_lite0 DATA=path/to/photos RECIPE=qat_imagenet

    Any photos will do: those of other classes are labelled by the network's own answers. Measured:
    docs/results.md.
    """
    return dataclasses.replace(qat(size), weights="imagenet")


def mobilenet(size: int = 224) -> Recipe:
    """Returns the recipe of MobileNetV2 (arXiv 1801.04381, Section 6.1).

    make train MODEL=mobilenet_v2 DATA=imagenet RECIPE=mobilenet

    The paper's 16 workers with 96 images each took steps of their own (asynchronous); a step here
    is 96 images. Its number of epochs is not printed, nor is RMSprop's epsilon, which is 1 in the
    authors' training script (train_image_classifier.py of TF-slim), so that steps are nearly those
    of SGD, with which torchvision's reference trains it at the same rate. Measured for one epoch
    of small images: docs/results.md; nobody measured it on ImageNet here yet.
    """
    return photos(
        size,
        epochs=300,
        batch_size=96,
        learning_rate=0.045,
        optimizer="rmsprop",
        rmsprop_epsilon=1.0,
        weight_decay=4e-5,
        schedule="exponential",
        decay_rate=0.98,
        decay_epochs=1.0,
        warmup=0.0,
        min_scale=0.08,
    )


def shufflenet(size: int = 224) -> Recipe:
    """Returns the recipe of ShuffleNet V1 and V2 (arXiv 1707.01083, Section 4).

    make train MODEL=shufflenet_v2_x1_0 DATA=imagenet RECIPE=shufflenet

    300,000 steps of 1,024 images, which is 240 epochs of ImageNet, on 4 GPUs in the paper. Measured
    for one epoch of small images: docs/results.md; nobody measured it on ImageNet here yet.
    """
    return photos(
        size,
        epochs=240,
        batch_size=1024,
        learning_rate=0.5,
        optimizer="sgd",
        weight_decay=4e-5,
        decay_vectors=False,
        schedule="linear",
        warmup=0.0,
        min_scale=0.2,
    )


def efficientnet(size: int = 224) -> Recipe:
    """Returns the recipe of EfficientNet (arXiv 1905.11946, Section 5.2).

    make train MODEL=efficientnet_b0 DATA=imagenet RECIPE=efficientnet

    RMSprop, decay by 0.97 every 2.4 epochs, EMA. RandAugment stands in for the paper's
    AutoAugment. Nobody measured it here yet.
    """
    return photos(
        size,
        epochs=350,
        batch_size=4096,
        learning_rate=0.256,
        optimizer="rmsprop",
        weight_decay=1e-5,
        decay_vectors=False,
        schedule="exponential",
        warmup=5 / 350,
        bn_momentum=0.01,
        ema=0.9999,
        min_scale=0.08,
        randaugment=9,
    )


def efficientnet_v2(size: int = 300) -> Recipe:
    """Returns the recipe of EfficientNetV2-S (arXiv 2104.00298, Section 5.1 and Table 6).

    make train MODEL=efficientnet_v2_s DATA=imagenet ARGS="--recipe-name efficientnet_v2"

    Four stages, from 128x128 with little regularisation to 300x300 with more; validation at 384.
    M and L end at 380, RandAugment 20 and 25, mixup 0.2 and 0.5, dropout 0.4 and 0.5. Nobody
    measured it here yet.
    """
    return dataclasses.replace(
        efficientnet(384),
        stages=4,
        train_crop=300,
        start_train_crop=128,
        randaugment=15,
        start_randaugment=5,
        dropout=0.3,
        start_dropout=0.1,
    )


def bag_of_tricks(size: int = 224) -> Recipe:
    """Returns the recipe of Bag of Tricks with all its refinements but distillation (Table 6).

    make train MODEL=resnet50_d DATA=imagenet RECIPE=bag_of_tricks
    and, to distil: ARGS="--recipe.teacher <network or run folder>"

    arXiv 1812.01187: large batch with warm-up, no decay on bias and norm, zero gamma (Section 3),
    cosine, label smoothing, mixup over 200 epochs (Section 5). 8 V100 in the paper. Nobody
    measured it here yet.
    """
    return photos(
        size,
        epochs=200,
        batch_size=1024,
        learning_rate=0.4,
        optimizer="sgd",
        weight_decay=1e-4,
        decay_vectors=False,
        zero_gamma=True,
        warmup=5 / 200,
        mixup=0.2,
        min_scale=0.08,
    )


RECIPES: dict[str, Callable[[int], Recipe]] = {
    "digits": digits,
    "small": small,
    "ablation": ablation,
    "scratch": scratch,
    "finetune": finetune,
    "probe": probe,
    "qat": qat,
    "qat_imagenet": qat_imagenet,
    "mobilenet": mobilenet,
    "shufflenet": shufflenet,
    "efficientnet": efficientnet,
    "efficientnet_v2": efficientnet_v2,
    "bag_of_tricks": bag_of_tricks,
}


def default_recipe(model: str, data: str) -> str:
    """Returns the name of the recipe used unless another is asked for.

    Small images have their own; photos are fine-tuned where ImageNet weights were published, save
    ImageNet itself, and trained from scratch otherwise.
    """
    if data in DATASETS and (recipe := DATASETS[data].recipe):
        return recipe
    return "finetune" if find_model(model).imagenet else "scratch"


def find_recipe(name: str, model: str, data: str = "") -> Recipe:
    """Returns a recipe at the input size of a network's design; 224 where ``model`` is empty.

    Args:
        name: of the recipe.
        model: registry name.
        data: name of the data set, by which a recipe that starts from a run finds it; if it is
            empty, that has the sizes of photos.

    Raises:
        UserError: no such recipe, no such network, or no such run.
    """
    check_recipe_name(name)
    recipe = RECIPES[name](native_side(model) if model else 224)
    if recipe.qat and model and data:
        from training.qat.recipe import fitted  # imports torch

        return fitted(recipe, model, data)
    return recipe


def check_recipe_name(name: str) -> None:
    """Raises UserError if there is no such recipe."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)


def native_side(model: str) -> int:
    """Returns the side of the images that a network was designed for.

    Raises:
        UserError: they are not square, as those of training are.
    """
    size = find_model(model).native_size
    if not isinstance(size, int):
        raise UserError(
            f"{model} is made for {in_full(size)} images, and training takes square ones"
        )
    return size
