"""Recipes of quantization-aware fine-tuning, fitted to the network that it starts from."""

from __future__ import annotations

import dataclasses

from core.errors import UserError
from core.image_size import in_full
from training.qat.start import float_self
from training.recipe import Recipe

# What the images of a run are, and how they are augmented.
_OF_IMAGES = (
    "batch_size",
    "accumulate",
    "resize",
    "crop",
    "interpolation",
    "truncated",
    "min_scale",
    "flip",
    "pad",
    "shift",
    "rotate",
    "randaugment",
    "channels_last",
    "workers",
)


def fitted(recipe: Recipe, model: str, data: str) -> Recipe:
    """Returns a recipe with the images of the run, or of the published weights, it starts from.

    Args:
        recipe: one with ``qat``.
        model: registry name.
        data: name of the data set.

    Raises:
        UserError: there is nothing to start from, or its images are not square.
    """
    own = float_self(model, data, recipe)
    if own.recipe:
        return dataclasses.replace(recipe, **{name: own.recipe[name] for name in _OF_IMAGES})
    resize, crop = own.preprocess.resize, own.preprocess.crop
    if not (isinstance(resize, int) and isinstance(crop, int)):
        raise UserError(
            f"{model} was trained on {in_full(crop)} images, and training takes square ones"
        )
    return dataclasses.replace(
        recipe, resize=resize, crop=crop, interpolation=own.preprocess.interpolation
    )
