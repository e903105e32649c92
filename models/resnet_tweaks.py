"""ResNet-50 A, B, C and D, and SE-ResNet-50: one network with four options.

Bag of Tricks for Image Classification: https://arxiv.org/abs/1812.01187 (Section 4, Figure 2)
Squeeze-and-Excitation Networks: https://arxiv.org/abs/1709.01507 (Section 3, Figure 3)

    name         stride 2 in  stem         shortcut, stride 2  SE   params      M MACs at 224
    resnet50_a   first 1x1    7x7          1x1 s2              no   25,557,032  3,857.973
    resnet50_b   3x3          7x7          1x1 s2              no   25,557,032  4,089.184
    resnet50_c   3x3          three 3x3    1x1 s2              no   25,576,264  4,328.825
    resnet50_d   3x3          three 3x3    avg pool s2, 1x1    no   25,576,264  4,328.825
    se_resnet50  3x3          7x7          1x1 s2              yes  28,088,024  4,091.699

A is the original ResNet-50. B is called ``resnet50`` in torchvision and here. The SE paper puts the
stride in the first 1x1 (3,860.488 M MACs); here it is in the 3x3, as in timm's ``seresnet50``, so
that SE is the only difference from ``resnet50``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from core.errors import UserError
from models.registry import NETWORKS, Entry

_STAGES = (
    # width, n, s
    (64, 3, 1),
    (128, 4, 2),
    (256, 6, 2),
    (512, 3, 2),
)


def conv_norm(width_in: int, width: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Returns a padded convolution, which keeps the size at stride 1, and its batch norm."""
    return nn.Sequential(
        nn.Conv2d(width_in, width, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(width),
    )


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate in (0, 1), computed from all channel means.

    (N, C, H, W) -> (N, C, H, W).

    Args:
        width: number of channels C.
        reduction: the gate's hidden layer has ``width / reduction`` channels; r in the paper.

    Raises:
        UserError: ``reduction`` is below 1 or does not divide ``width``.

    Source: arXiv 1709.01507, Sections 3.1 and 3.2, with biases.
    """

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        if reduction < 1 or width % reduction:
            raise UserError(f"reduction is {reduction}: it must be at least 1 and divide {width}")
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),  # N, C, 1, 1
            nn.Conv2d(width, width // reduction, 1),
            nn.ReLU(),
            nn.Conv2d(width // reduction, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns ``x`` times the gate of each channel."""
        gated: torch.Tensor = x * self.gate(x)
        return gated


class Bottleneck(nn.Module):
    """The residual block: (N, width_in, H, W) -> (N, 4 width, H / stride, W / stride), rounded up.

    Args:
        width_in: input channels.
        width: channels of the 3x3; the output has four times as many.
        stride: 1 or 2.
        stride_in_1x1: variant A: the stride is in the first 1x1, which then skips 3/4 of its input.
        pool_shortcut: variant D: a shortcut of stride 2 is an average pool and a 1x1 of stride 1.
        reduction: of a :class:`SqueezeExcite` at the end of the branch; None for no such layer.
    """

    def __init__(
        self,
        width_in: int,
        width: int,
        stride: int,
        *,
        stride_in_1x1: bool = False,
        pool_shortcut: bool = False,
        reduction: int | None = None,
    ) -> None:
        super().__init__()
        width_out = 4 * width
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.branch = nn.Sequential(
            conv_norm(width_in, width, 1, first),
            nn.ReLU(),
            conv_norm(width, width, 3, second),
            nn.ReLU(),
            conv_norm(width, width_out, 1),
            nn.Identity() if reduction is None else SqueezeExcite(width_out, reduction),
        )

        self.shortcut: nn.Module = nn.Identity()
        if pool_shortcut and stride > 1:
            # ceil_mode: odd sizes are rounded up, as in the branch.
            pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
            self.shortcut = nn.Sequential(pool, conv_norm(width_in, width_out, 1))
        elif width_in != width_out:
            self.shortcut = conv_norm(width_in, width_out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns relu(branch + shortcut)."""
        return torch.relu(self.branch(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """ResNet-50 and its tweaks: float32 (N, 3, H, W), any H and W -> logits (N, num_classes).

    Args:
        num_classes: number of logits.
        deep_stem: variant C: three 3x3 convolutions instead of one 7x7.
        block: builds a :class:`Bottleneck` from width_in, width and stride.

    Convolutions are initialised as in arXiv 1512.03385, Section 3.4, and in torchvision (Kaiming
    normal), so that all networks here differ in structure only. Bag of Tricks, Section 2.1, uses
    Xavier.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        deep_stem: bool = False,
        block: Callable[[int, int, int], Bottleneck] = Bottleneck,
    ) -> None:
        super().__init__()
        if deep_stem:
            convs = [conv_norm(3, 32, 3, 2), nn.ReLU(), conv_norm(32, 32, 3), nn.ReLU()]
            stem = nn.Sequential(*convs, conv_norm(32, 64, 3))
        else:
            stem = conv_norm(3, 64, 7, 2)
        self.stem = nn.Sequential(stem, nn.ReLU(), nn.MaxPool2d(3, 2, padding=1))

        blocks, width_in = [], 64
        for width, n, s in _STAGES:
            for stride in [s] + [1] * (n - 1):
                blocks.append(block(width_in, width, stride))
                width_in = 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(width_in, num_classes)

        kaiming_(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits of normalised images."""
        x = self.stem(x)  # N, 64, 56, 56 at 224 x 224
        x = self.blocks(x)  # N, 2048, 7, 7
        x = self.pool(x).flatten(1)  # N, 2048
        logits: torch.Tensor = self.head(x)
        return logits


def kaiming_(module: nn.Module) -> None:
    """Initialises convolutions as in arXiv 1502.01852, Section 2.2, by fan-out; biases to 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            # Not torch's kaiming_normal_: its fan-out ignores groups.
            fan_out = layer.weight[0, 0].numel() * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, std=(2 / fan_out) ** 0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


_NETWORKS: dict[str, dict[str, Any]] = {
    "resnet50_a": {"block": functools.partial(Bottleneck, stride_in_1x1=True)},
    "resnet50_b": {},
    "resnet50_c": {"deep_stem": True},
    "resnet50_d": {"deep_stem": True, "block": functools.partial(Bottleneck, pool_shortcut=True)},
    "se_resnet50": {"block": functools.partial(Bottleneck, reduction=16)},
}
for _name, _tweaks in _NETWORKS.items():
    _build = functools.partial(ResNet50, **_tweaks)
    NETWORKS.register(Entry(name=_name, build=_build, family="resnet"))
