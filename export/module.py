"""Export of a torch module from Python, for :func:`pocketnets.export`."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from artifact.records import Source
from core.errors import UserError, in_words, spelled
from core.image_size import in_full
from core.names import canonical_name
from core.preprocess import Preprocess
from export.foreign_images import answering_for, load_images, with_images
from export.network import Network
from models.classifier import Classifier
from models.registry import list_models
from training.options import FolderLayout

_SCORES = ("sigmoid", "softmax")  # operators of aten, without underscores
_VIEWS = ("to", "to_copy", "contiguous", "flatten", "reshape", "squeeze", "view")
_MULTI = "with multi_label=True each label has a sigmoid of its own"
_ARGUMENTS = {"--data": "data", "--image-labels": "image_labels"}
_WITHOUT_DATA = "module"  # second part of the artifacts' folder name


def network_of(
    module: nn.Module,
    *,
    name: str | None,
    data: str | None,
    labels: Sequence[str] | None,
    preprocess: Preprocess | None,
    mean: Sequence[float],
    std: Sequence[float],
    multi_label: bool = False,
    image_labels: str | None = None,
) -> Network:
    """Returns a copy of ``module`` as a network to export; see :func:`pocketnets.export`.

    Raises:
        UserError: a required argument is missing, or the output is not logits (N, classes).
    """
    if not isinstance(module, nn.Module):
        raise UserError(
            f"network is a {type(module).__name__}: it must be a torch.nn.Module, or the name of a "
            "network"
        )
    if name is None or not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(
            f"name is {name!r}: a module needs one of letters, digits, dots, hyphens and "
            "underscores, which its artifacts are filed under"
        )
    if canonical_name(name) in list_models():
        raise UserError(f"name is {name!r}: that is a network of this project; take another")
    if preprocess is None:
        raise UserError(
            "a module needs preprocess, how images were prepared when it was validated, such as "
            "pocketnets.Preprocess(resize=256, crop=224)"
        )
    with spelled(_ARGUMENTS):
        images = load_images(data, FolderLayout(labels=image_labels, multi_label=multi_label))
    named = images.labels if images and images.task == "single" else ()
    names = tuple(labels) if labels is not None else named
    if not names or isinstance(labels, str):
        raise UserError(
            "a module needs labels, the class names in the order of its logits, or data with a "
            "folder for each"
        )
    for what, values in (("mean", mean), ("std", std)):
        inside = all(0 <= value <= 1 for value in values)
        if len(values) != preprocess.channels or not inside or (what == "std" and 0 in values):
            raise UserError(
                f"{what} is {list(values)}: it must be one number for each of the "
                f"{preprocess.channels} channels ({preprocess.mode}), of pixels in [0, 1], and no "
                "std of 0"
            )
    classifier = _classifier(module, mean, std)
    _check_logits(classifier, preprocess, len(names))
    network = Network(
        model=name,
        data=images.name if images else _WITHOUT_DATA,
        weights="trained",
        module=classifier,
        labels=names,
        preprocess=preprocess,
        source=Source(
            origin=f"a torch module of class {type(module).__name__}, given in Python",
            data=images.origin if images else None,
        ),
        calibration=(),
        held_out=(),
        labelled=images is not None,
        answering=answering_for(names, several=multi_label),
    )
    return with_images(network, images, data)


def _classifier(module: nn.Module, mean: Sequence[float], std: Sequence[float]) -> Classifier:
    try:
        backbone = copy.deepcopy(module)
    except Exception as error:  # any exception of the module's own code
        raise UserError(f"the module cannot be copied: {in_words(error)}") from error
    return Classifier(backbone.cpu().float(), mean=mean, std=std).eval()


def _check_logits(classifier: Classifier, preprocess: Preprocess, classes: int) -> None:
    """Raises UserError unless two black images give two rows of logits, which are no scores."""
    last = _Last()
    try:
        with torch.inference_mode(), last:
            logits = classifier(torch.zeros(2, *preprocess.shape, dtype=torch.uint8))
    except Exception as error:  # any exception of the module's own code
        raise UserError(
            f"the module cannot take two {in_full(preprocess.crop)} images: {in_words(error)}"
        ) from error
    if tuple(logits.shape) != (2, classes):
        raise UserError(
            f"the module gives {list(logits.shape)} for two images: with {classes} labels it must "
            f"be [2, {classes}]"
        )
    if last.name in _SCORES:
        raise UserError(
            f"the module ends in a {last.name}: it must give logits, of which scores are made "
            "later; leave that layer out" + f"; {_MULTI}" * (last.name == "sigmoid")
        )


class _Last(TorchDispatchMode):
    """Keeps the name of the operator that was computed last, but for views and casts."""

    name = ""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__.strip("_")
        self.name = self.name if name in _VIEWS else name
        return func(*args, **(kwargs or {}))
