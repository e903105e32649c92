"""ResNet-14 for images of 32x32 pixels, and five variations of its convolutions.

Deep Residual Learning for Image Recognition: https://arxiv.org/abs/1512.03385 (Section 4.2, n = 2)

    name                variation                               source            params, 10 classes
    resnet14            none                                    arXiv 1512.03385  195,738
    resnet14_g2         2 groups                                arXiv 1611.05431   98,970
    resnet14_g4         4 groups                                arXiv 1611.05431   50,586
    resnet14_dense      each stage one densely connected block  arXiv 1608.06993  340,890
    resnet14_separable  3x3 depthwise, then 1x1                 arXiv 1704.04861   27,738
    resnet14_se         squeeze and excite, reduction 4         arXiv 1709.01507  201,394

The same rules apply to all six:

1. A convolution has no bias and is followed by one batch norm. A separable convolution counts as
   one: its norm follows the 1x1, with nothing between the depthwise and the 1x1.
2. The shortcut of a block that changes the width is a 3x3 convolution with its norm (the paper
   pads with zeros instead); every other shortcut is the identity.
3. A variation applies to every convolution of the stages, shortcuts included, but not to the stem
   and the head.
4. Squeeze and excite, with biases, is the last layer of each block's branch, before the sum.
5. The dense block replaces a stage's two blocks. It has their four convolutions and one shortcut
   around all four, and concatenates only its own outputs, not its input.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from core.errors import UserError
from models.registry import NETWORKS, Entry
from models.resnet_tweaks import SqueezeExcite, kaiming_

Conv = Callable[[int, int, int], nn.Module]  # width_in, width, stride -> convolution with its norm
Stage = Callable[[Conv, int, int, int, int], nn.Module]  # conv, width_in, width, n, stride

_STAGES = (
    # width, n, s
    (16, 2, 1),
    (32, 2, 2),
    (64, 2, 2),
)


def conv3x3(width_in: int, width: int, stride: int, *, groups: int = 1) -> nn.Module:
    """Returns a 3x3 convolution and its norm: (N, width_in, H, W) -> (N, width, H / s, W / s).

    Raises:
        UserError: ``groups`` is below 1 or does not divide both widths.
    """
    if groups < 1 or width_in % groups or width % groups:
        raise UserError(
            f"groups is {groups}: it must be at least 1 and divide {width_in} and {width}"
        )
    return nn.Sequential(
        nn.Conv2d(width_in, width, 3, stride, padding=1, groups=groups, bias=False),
        nn.BatchNorm2d(width),
    )


def separable3x3(width_in: int, width: int, stride: int) -> nn.Module:
    """Returns a depthwise 3x3 and a 1x1 convolution with one norm; shapes as :func:`conv3x3`."""
    return nn.Sequential(
        nn.Conv2d(width_in, width_in, 3, stride, padding=1, groups=width_in, bias=False),
        nn.Conv2d(width_in, width, 1, bias=False),
        nn.BatchNorm2d(width),
    )


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut: (N, width_in, H, W) -> (N, width, H / s, W / s)."""

    def __init__(
        self, conv: Conv, width_in: int, width: int, stride: int, reduction: int | None
    ) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv(width_in, width, stride),
            nn.ReLU(),
            conv(width, width, 1),
            nn.Identity() if reduction is None else SqueezeExcite(width, reduction),
        )
        self.shortcut = _shortcut(conv, width_in, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns relu(branch(x) + shortcut(x))."""
        return torch.relu(self.branch(x) + self.shortcut(x))


class DenseBlock(nn.Module):
    """Four convolutions, each on all previous outputs; shapes as :class:`BasicBlock`."""

    def __init__(self, conv: Conv, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(width_in, width, stride)
        self.conv2 = conv(width, width, 1)
        self.conv3 = conv(2 * width, width, 1)
        self.conv4 = conv(3 * width, width, 1)
        self.shortcut = _shortcut(conv, width_in, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns relu(branch(x) + shortcut(x))."""
        one = torch.relu(self.conv1(x))  # N, width, H / s, W / s
        two = torch.relu(self.conv2(one))
        both = torch.cat((one, two), dim=1)  # N, 2 width, ...
        three = torch.relu(self.conv3(both))
        four = self.conv4(torch.cat((both, three), dim=1))  # from N, 3 width, ...
        return torch.relu(four + self.shortcut(x))


def _shortcut(conv: Conv, width_in: int, width: int, stride: int) -> nn.Module:
    return nn.Identity() if width_in == width else conv(width_in, width, stride)


def basic_stage(
    conv: Conv, width_in: int, width: int, n: int, stride: int, *, reduction: int | None = None
) -> nn.Module:
    """Returns ``n`` basic blocks, the first with ``stride``.

    Raises:
        UserError: ``reduction`` is below 1 or does not divide ``width``.
    """
    first = BasicBlock(conv, width_in, width, stride, reduction)
    return nn.Sequential(
        first, *(BasicBlock(conv, width, width, 1, reduction) for _ in range(n - 1))
    )


def dense_stage(conv: Conv, width_in: int, width: int, n: int, stride: int) -> nn.Module:
    """Returns one dense block, which replaces ``n`` = 2 basic blocks."""
    assert n == 2, "a dense block has the four convolutions of two basic blocks"
    return DenseBlock(conv, width_in, width, stride)


class ResNet14(nn.Module):
    """ResNet-14: float32 (N, 3, H, W), any H and W, made for 32x32 -> logits (N, num_classes).

    Args:
        num_classes: number of logits.
        conv: builds a convolution of the stages; it raises UserError for impossible widths.
        stage: builds a stage from ``conv``.

    Convolutions are initialised as in arXiv 1512.03385, Section 4.2: Kaiming normal, by fan-out.
    """

    def __init__(
        self, num_classes: int = 10, *, conv: Conv = conv3x3, stage: Stage = basic_stage
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv3x3(3, 16, 1), nn.ReLU())
        stages, width_in = [], 16
        for width, n, s in _STAGES:
            stages.append(stage(conv, width_in, width, n, s))
            width_in = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(width_in, num_classes)
        kaiming_(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits of normalised images."""
        x = self.stem(x)  # N, 16, 32, 32 at 32 x 32
        x = self.stages(x)  # N, 64, 8, 8
        x = self.pool(x).flatten(1)  # N, 64
        logits: torch.Tensor = self.head(x)
        return logits


_NETWORKS: dict[str, dict[str, Any]] = {
    "resnet14": {},
    "resnet14_g2": {"conv": functools.partial(conv3x3, groups=2)},
    "resnet14_g4": {"conv": functools.partial(conv3x3, groups=4)},
    "resnet14_dense": {"stage": dense_stage},
    "resnet14_separable": {"conv": separable3x3},
    "resnet14_se": {"stage": functools.partial(basic_stage, reduction=4)},
}
for _name, _variation in _NETWORKS.items():
    _build = functools.partial(ResNet14, **_variation)
    NETWORKS.register(
        Entry(name=_name, build=_build, family="resnet14", native_size=32, native_classes=10)
    )
