"""ShuffleNetV1: https://arxiv.org/abs/1707.01083

The paper does not specify the initialisation and the stem's widths; they are those of the authors'
code: https://github.com/megvii-model/ShuffleNet-Series, ShuffleNetV1. Where paper and code differ
(the order of the shuffle, and its position right after the first 1x1 convolution), this follows the
paper. The last layer has a bias; in the authors' code it has none.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import nn

from core.errors import UserError
from models.registry import NETWORKS, Entry

# The paper's Table 1: stages of n units, the first with stride s; each stage has twice the channels
# of the previous one. A 3x3 convolution and a 3x3 max pool, both of stride 2, come first.
_STAGES = (
    # n, s   output of a 224 x 224 image
    (4, 2),  # 28 x 28
    (8, 2),  # 14 x 14
    (4, 2),  #  7 x 7
)
_CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # groups: channels of the first stage at 1x
_STEM = {0.5: 12, 1.0: 24, 1.5: 24, 2.0: 48}  # width: channels of the first convolution


def channel_shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Returns ``x`` (N, C, H, W) with the channels of all groups interleaved (section 3.1).

    12 channels in 3 groups: 0 1 2 3 | 4 5 6 7 | 8 9 10 11 becomes 0 4 8 1 | 5 9 2 6 | 10 3 7 11.
    """
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2) if groups > 1 else x


class ShuffleUnit(nn.Module):
    """Figure 2 b (stride 1) and c (stride 2): (N, inputs, H, W) -> (N, outputs, H/s, W/s).

    At stride 1 the input is added to the branch; at stride 2 it is average-pooled and concatenated
    with the branch, which has the other ``outputs - inputs`` channels. The input must not be
    negative. In the ``first`` unit of a network the first 1x1 convolution is not grouped, as its
    input has few channels.

    Raises:
        UserError: the channels are not divisible by the groups.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int, *, first: bool) -> None:
        super().__init__()
        if inputs % groups or outputs % (4 * groups):
            raise UserError(
                f"a unit from {inputs} to {outputs} channels: with {groups} groups they must be "
                f"multiples of {groups} and {4 * groups}"
            )
        self.stride, self.groups = stride, groups
        middle = outputs // 4  # the bottleneck (section 3.3)
        added = outputs - inputs if stride == 2 else outputs
        self.conv1 = nn.Conv2d(inputs, middle, 1, groups=1 if first else groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, padding=1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, added, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(added)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns (N, outputs, H/s, W/s) of (N, inputs, H, W)."""
        branch = torch.relu(self.bn1(self.conv1(x)))  # N, outputs / 4, H, W
        branch = channel_shuffle(branch, self.groups)
        branch = self.bn2(self.conv2(branch))  # N, outputs / 4, H/s, W/s; no ReLU (section 3.2)
        branch = self.bn3(self.conv3(branch))  # N, outputs or outputs - inputs, H/s, W/s
        if self.stride == 1:
            return torch.relu(x + branch)
        # In the paper ReLU follows the concatenation, where it does not change the non-negative x.
        pooled = nn.functional.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=True)
        return torch.cat((pooled, torch.relu(branch)), 1)


class ShuffleNetV1(nn.Module):
    """ShuffleNetV1: float (N, 3, H, W) -> logits (N, num_classes), at any H and W.

    Args:
        groups: groups of the 1x1 convolutions.
        width: factor on the channels of the stages (section 3.3).
        num_classes: number of logits.

    Raises:
        UserError: groups that are not in Table 1, or channels that are not divisible by them.
    """

    def __init__(self, groups: int, width: float = 1.0, num_classes: int = 1000) -> None:
        super().__init__()
        if groups not in _CHANNELS:
            raise UserError(f"groups is {groups}: it must be one of {[*_CHANNELS]}")
        widths = [w for w in _STEM if _CHANNELS[groups] * w % (4 * groups) == 0]
        if width not in widths:
            raise UserError(f"width is {width}: with {groups} groups it must be one of {widths}")
        # Rounded up to a multiple of the groups, as in the authors' code: at 0.5x, 12 for 3
        # groups and 16 for 8.
        inputs = math.ceil(_STEM[width] / groups) * groups
        self.stem = nn.Sequential(
            nn.Conv2d(3, inputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        units: list[nn.Module] = []
        outputs = int(_CHANNELS[groups] * width)
        for n, s in _STAGES:
            for stride in [s] + [1] * (n - 1):
                units.append(ShuffleUnit(inputs, outputs, stride, groups, first=not units))
                inputs = outputs
            outputs *= 2
        self.units = nn.Sequential(*units)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(inputs, num_classes)
        self._initialise()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits (N, num_classes) of images (N, 3, H, W)."""
        x = self.stem(x)  # N, 24, 56, 56 with 3 groups at 1x and 224 x 224
        x = self.units(x)  # N, 960, 7, 7
        x = self.pool(x).flatten(1)  # N, 960
        logits: torch.Tensor = self.head(x)
        return logits

    def _initialise(self) -> None:
        """Initialises as the authors' _initialize_weights."""
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Conv2d):
                inputs = layer.weight.shape[1]  # input channels per group
                nn.init.normal_(layer.weight, std=0.01 if name == "stem.0" else 1 / inputs)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.constant_(layer.bias, 1e-4)
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)


for _groups in _CHANNELS:
    for _suffix, _width in {"": 1.0, "_x0_5": 0.5, "_x1_5": 1.5, "_x2_0": 2.0}.items():
        if _width == 1 or _groups in (3, 8):
            _build = functools.partial(ShuffleNetV1, _groups, _width)
            NETWORKS.register(
                Entry(
                    name=f"shufflenet_v1_g{_groups}{_suffix}", build=_build, family="shufflenet_v1"
                )
            )
