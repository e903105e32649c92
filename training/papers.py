"""Recipes of the papers.

What a paper trained on many devices is given for the same number of images per step. Papers count
warm-up in epochs; here it is that share of all steps.
"""

from __future__ import annotations

import dataclasses

from training.recipe import Recipe, photos


def mobilenet(size: int = 224) -> Recipe:
    """Returns the recipe of MobileNetV2 (arXiv 1801.04381, Section 6.1).

    make train MODEL=mobilenet_v2 DATA=imagenet RECIPE=mobilenet

    The paper's 16 workers with 96 images each took steps of their own (asynchronous); a step here
    is 96 images. Its number of epochs is not printed. Nobody measured it here yet.
    """
    return photos(
        size,
        epochs=300,
        batch_size=96,
        learning_rate=0.045,
        optimizer="rmsprop",
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

    300,000 steps of 1,024 images, which is 240 epochs of ImageNet, on 4 GPUs in the paper. Nobody
    measured it here yet.
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
