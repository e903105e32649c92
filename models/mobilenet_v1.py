"""MobileNetV1: https://arxiv.org/abs/1704.04861

The activation is ReLU as in the paper; slim and timm use ReLU6. The paper does not specify the
initialisation; it is slim's: https://github.com/tensorflow/models,
research/slim/nets/mobilenet_v1.py.
"""

from __future__ import annotations

import functools

import torch
from torch import nn

from core.errors import UserError
from models.registry import NETWORKS, Entry

# The paper's Table 1: n blocks of c channels, the first with stride s. The table prints stride 2
# for the last depthwise layer, but the same size for its input and output: the stride is 1.
_STEM = 32  # 112 x 112, stride 2
_BLOCKS = (
    # c, n, s      output of a 224 x 224 image
    (64, 1, 1),  #   112 x 112
    (128, 2, 2),  #   56 x 56
    (256, 2, 2),  #   28 x 28
    (512, 6, 2),  #   14 x 14
    (1024, 2, 2),  #   7 x 7
)


class ConvNormReLU(nn.Sequential):
    """A convolution without bias, batch norm and ReLU: (N, inputs, H, W) -> (N, outputs, H/s, W/s).

    Padding keeps the size at stride 1 and rounds it up at stride 2.
    """

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class DepthwiseSeparable(nn.Sequential):
    """A depthwise 3x3 convolution, then a pointwise 1x1 convolution (section 3.1).

    (N, inputs, H, W) -> (N, outputs, H/s, W/s).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(
            ConvNormReLU(inputs, inputs, kernel=3, stride=stride, groups=inputs),
            ConvNormReLU(inputs, outputs, kernel=1),
        )


class MobileNetV1(nn.Module):
    """MobileNetV1: float (N, 3, H, W) -> logits (N, num_classes), at any H and W.

    Args:
        width: the paper's width multiplier alpha: scales the channels of every layer (section 3.3).
        num_classes: number of logits.

    Raises:
        UserError: a width with which a layer has no whole number of channels.
    """

    def __init__(self, width: float = 1.0, num_classes: int = 1000) -> None:
        super().__init__()
        if width <= 0 or _STEM * width % 1:
            raise UserError(f"width is {width}: it must be a positive multiple of 1/{_STEM}")
        inputs = int(_STEM * width)
        layers: list[nn.Module] = [ConvNormReLU(3, inputs, kernel=3, stride=2)]
        for c, n, s in _BLOCKS:
            outputs = int(c * width)
            for stride in [s] + [1] * (n - 1):
                layers.append(DepthwiseSeparable(inputs, outputs, stride))
                inputs = outputs
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(inputs, num_classes)
        self.apply(_initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits (N, num_classes) of images (N, 3, H, W)."""
        x = self.features(x)  # N, 1024, 7, 7 at width 1 and 224 x 224
        x = self.pool(x).flatten(1)  # N, 1024
        logits: torch.Tensor = self.head(x)
        return logits


def _initialise(layer: nn.Module) -> None:
    """As slim's mobilenet_v1_arg_scope: truncated normal, std 0.09, cut at two std."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.09, a=-0.18, b=0.18)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


for _suffix, _width in {"": 1.0, "_x0_75": 0.75, "_x0_5": 0.5, "_x0_25": 0.25}.items():
    _build = functools.partial(MobileNetV1, _width)
    NETWORKS.register(Entry(name=f"mobilenet_v1{_suffix}", build=_build, family="mobilenet_v1"))
