"""Where quantization-aware fine-tuning starts: a float32 network, which teaches its int8 form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from core.errors import UserError
from core.lazy import resolve
from core.machine import adds_in_32_bits, cpu_name
from core.preprocess import Preprocess
from models.classifier import Classifier
from models.imagenet import WeightsUnavailable
from models.weights import imagenet_classifier, load_imagenet_weights
from training.checkpoint import checkpoint_path, load_checkpoint, run_folder
from training.data import ImageData, Sample, pixel_batches
from training.qat.names import qat_name
from training.qat.network import QuantizedNetwork
from training.recipe import Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class FloatSelf:
    """A trained float32 network, before it is quantized.

    Attributes:
        module: uint8 (N, H, W, 3) to logits, in evaluation mode, frozen.
        labels: class names, in the order of the logits.
        preprocess: how an image becomes pixels.
        origin: a text: where its weights are from.
        recipe: all fields of the recipe of its run; empty for published weights.
    """

    module: Classifier
    labels: tuple[str, ...]
    preprocess: Preprocess
    origin: str
    recipe: dict[str, Any]

    @property
    def sha256(self) -> str:
        """Returns the digest of its weights."""
        return weights_sha256(self.module)


def weights_sha256(module: nn.Module) -> str:
    """Returns the digest of the names and values of a network's weights."""
    digest = sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def float_self(model: str, data: str, recipe: Recipe) -> FloatSelf:
    """Returns the network to start from: that of a finished run, or with published weights.

    Args:
        model: registry name.
        data: name of the data set of the run.
        recipe: its ``weights`` say which.

    Raises:
        UserError: there is no such run, or no such weights.
    """
    if recipe.weights == "run":
        path = checkpoint_path(run_folder(model, data))
        if not path.is_file():
            raise UserError(
                f"no finished run of {model} on {data}: {path} is not there, and quantization-aware"
                " fine-tuning starts from it; train it first, or --recipe-name qat_imagenet for "
                "published weights"
            )
        saved = load_checkpoint(path)
        module = saved.network()
        assert isinstance(module, Classifier)
        found = FloatSelf(
            module=module,
            labels=saved.labels,
            preprocess=saved.preprocess,
            origin=f"{path}, trained on {saved.data}",
            recipe=saved.recipe,
        )
    else:
        try:
            weights = load_imagenet_weights(model)
            module = imagenet_classifier(model, weights)
        except WeightsUnavailable as error:
            raise UserError(f"{error}; or --recipe-name qat, for a run of yours") from None
        found = FloatSelf(
            module=module,
            labels=weights.labels,
            preprocess=weights.preprocess,
            origin=weights.origin,
            recipe={},
        )
    found.module.eval().requires_grad_(False)
    return found


def check_same_images(own: FloatSelf, recipe: Recipe) -> None:
    """Raises UserError if the recipe's images are of another size than those of the network."""
    side, crop = recipe.crop, own.preprocess.crop
    if crop not in (side, (side, side)) or own.preprocess.channels != 3:
        raise UserError(
            f"crop is {side}: {own.origin} takes images of {crop} pixels and "
            f"{own.preprocess.channels} channels, and its int8 form the same; leave --recipe.crop "
            "out"
        )


def with_own_labels(data: ImageData, own: FloatSelf, recipe: Recipe) -> ImageData:
    """Returns ``data`` under the name of the run, with classes that the network knows.

    Images of other classes, for published weights, are labelled by the network's own answers, so
    top-1 is agreement with it.

    Raises:
        UserError: the run that it starts from has other classes.
    """
    name = qat_name(data.name, recipe.weights)
    if data.labels == own.labels:
        return replace(data, name=name)
    if recipe.weights == "run":
        raise UserError(
            f"{own.origin} knows the classes {', '.join(own.labels)}, but {data.name} holds "
            f"{', '.join(data.labels)}; train it again first"
        )

    def answered(samples: Sequence[Sample]) -> list[Sample]:
        answers = _answers(own, samples, recipe)
        return [(source, int(each)) for (source, _), each in zip(samples, answers, strict=True)]

    return replace(
        data,
        name=name,
        labels=own.labels,
        train=answered(data.train),
        val=answered(data.val),
        test=answered(data.test),
    )


@torch.inference_mode()
def _answers(own: FloatSelf, samples: Sequence[Sample], recipe: Recipe) -> np.ndarray[Any, Any]:
    answers = [np.zeros(0, np.int64)]  # there may be no images
    for pixels, _ in pixel_batches(samples, own.preprocess, size=64, truncated=recipe.truncated):
        answers.append(own.module(torch.from_numpy(pixels)).argmax(dim=1).numpy())
    return np.concatenate(answers)


def quantized_network(
    own: FloatSelf, data: ImageData, recipe: Recipe, last: Path | None = None
) -> QuantizedNetwork:
    """Returns the int8 form of a network, as export makes it, or as far as a run has trained it.

    Args:
        own: the float32 network.
        data: its training images calibrate the ranges.
        recipe: bits of the weights.
        last: checkpoint of an unfinished run.

    Raises:
        UserError: this CPU cannot compute with such weights.
    """
    if last is not None:
        network = load_checkpoint(last).network()
        assert isinstance(network, QuantizedNetwork)
        return network.train()
    if recipe.weight_bits == 8 and not adds_in_32_bits():
        raise UserError(
            f"weight_bits is 8: {cpu_name()} has no VNNI, so its sums over 8-bit weights are "
            "clipped; use a CPU that has it, or 7"
        )
    make = resolve("export.quantization.learned:first_graph")  # a package above this one
    content, limit = make(own.module, own.preprocess, data, recipe)
    return QuantizedNetwork(content, limit=limit)
