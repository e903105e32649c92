"""ShuffleNetV2's four guidelines: ``python -m bench study guidelines``.

ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design:
https://arxiv.org/abs/1807.11164 (Section 2, Tables 1 to 4)

Each guideline is tested with stacks of ten blocks with equal MACs on 56x56 inputs, at three widths.
The paper mentions neither batch norm nor activations, except in G4's bottleneck, so there are none
here, only convolutions with bias. Other details that the paper does not specify:

- G2 on the phone has 180 channels in 8 groups, which is not divisible; 176 are used here.
- G3's parallel convolutions are summed. Concatenated, they would have equal MACs without changing
  the number of channels, but the paper says that it was adjusted. It is c, c/sqrt(2) and c/2.
- G4's bottleneck is that of ResNet, c, c/4, c/4, c. With c channels throughout, the phone's printed
  images/s would be 20 G MACs/s, four times those of Tables 1 to 3.

The captions give no batch size. The GPU's batches/s are plausible for batch size 1 only: with 8,
Table 3's c = 512 would exceed the 1080Ti's peak by a factor of five.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from bench.studies.measure import Study
from bench.studies.record import Results
from bench.studies.variants import Platform, Variant
from bench.studies.verdict import Claim, Pairs, faster

SIDE, STACK = 56, 10
FACTORS = (1, 2)  # multiples of the channels; the paper's x4 takes longer than both together

Speeds = tuple[float, float]  # as printed, for FACTORS: batches/s on the GPU, images/s on the CPU
# c1:c2 -> c1, c2 and speeds (Table 1)
G1: dict[Platform, dict[str, tuple[int, int, Speeds]]] = {
    "GPU": {
        "1:1": (128, 128, (1480, 723)),
        "1:2": (90, 180, (1296, 586)),
        "1:6": (52, 312, (876, 489)),
        "1:12": (36, 432, (748, 392)),
    },
    "CPU": {
        "1:1": (32, 32, (76.2, 21.7)),
        "1:2": (22, 44, (72.9, 20.5)),
        "1:6": (13, 78, (69.1, 17.9)),
        "1:12": (9, 108, (57.6, 15.1)),
    },
}
# groups -> c and speeds (Table 2)
G2: dict[Platform, dict[int, tuple[int, Speeds]]] = {
    "GPU": {
        1: (128, (2451, 1289)),
        2: (180, (1725, 873)),
        4: (256, (1026, 644)),
        8: (360, (634, 445)),
    },
    "CPU": {
        1: (64, (40.0, 10.2)),
        2: (90, (35.0, 9.5)),
        4: (128, (32.9, 8.7)),
        8: (180, (27.8, 7.5)),
    },
}
# (fragments, whether parallel) -> speeds (Table 3); c is that of one group in Table 2
G3: dict[Platform, dict[tuple[int, bool], Speeds]] = {
    "GPU": {
        (1, False): (2446, 1274),
        (2, False): (1790, 909),
        (4, False): (752, 745),
        (2, True): (1537, 803),
        (4, True): (691, 572),
    },
    "CPU": {
        (1, False): (40.2, 10.1),
        (2, False): (38.6, 10.1),
        (4, False): (38.4, 10.1),
        (2, True): (33.4, 9.1),
        (4, True): (35.0, 8.4),
    },
}
# (name, ReLU, shortcut) -> speeds at c = 32 and 64 (Table 4)
G4: dict[Platform, dict[tuple[str, bool, bool], Speeds]] = {
    "GPU": {
        ("both", True, True): (2427, 2066),
        ("ReLU", True, False): (2647, 2256),
        ("shortcut", False, True): (2672, 2121),
        ("neither", False, False): (2842, 2376),
    },
    "CPU": {
        ("both", True, True): (56.7, 16.9),
        ("ReLU", True, False): (61.9, 18.8),
        ("shortcut", False, True): (57.3, 18.2),
        ("neither", False, False): (66.3, 20.2),
    },
}
G4_CHANNELS = 32


class Parallel(nn.Module):
    """The sum of 1x1 convolutions of the same input: (N, width, H, W) -> the same shape."""

    def __init__(self, width: int, fragments: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(fragments))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the sum of all branches."""
        first, *others = self.branches
        total: torch.Tensor = first(x)
        for branch in others:
            total = total + branch(x)
        return total


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, width / 4 inside: (N, width, H, W) -> the same shape."""

    def __init__(self, width: int, relu: bool, shortcut: bool) -> None:
        super().__init__()
        inner = width // 4
        self.relu = nn.ReLU() if relu else nn.Identity()
        self.shortcut = shortcut
        self.first = nn.Conv2d(width, inner, 1)
        self.second = nn.Conv2d(inner, inner, 3, padding=1)
        self.third = nn.Conv2d(inner, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the output of the branch, plus ``x`` if there is a shortcut."""
        branch = self.third(self.relu(self.second(self.relu(self.first(x)))))
        output: torch.Tensor = self.relu(branch + x if self.shortcut else branch)
        return output


def two_widths(c1: int, c2: int) -> nn.Module:
    """Returns G1's network."""
    convs = [(nn.Conv2d(c1, c2, 1), nn.Conv2d(c2, c1, 1)) for _ in range(STACK)]
    return nn.Sequential(*(conv for pair in convs for conv in pair))


def grouped(width: int, groups: int) -> nn.Module:
    """Returns G2's network."""
    return nn.Sequential(*(nn.Conv2d(width, width, 1, groups=groups) for _ in range(STACK)))


def fragmented(width: int, fragments: int, parallel: bool) -> nn.Module:
    """Returns G3's network."""
    if parallel:
        return nn.Sequential(*(Parallel(width, fragments) for _ in range(STACK)))
    return nn.Sequential(*(nn.Conv2d(width, width, 1) for _ in range(STACK * fragments)))


def bottlenecks(width: int, relu: bool, shortcut: bool) -> nn.Module:
    """Returns G4's network."""
    return nn.Sequential(*(Bottleneck(width, relu, shortcut) for _ in range(STACK)))


Block = tuple[str, Callable[[], nn.Module], int, Speeds]  # name, network, channels in, speeds


def variants(platform: Platform) -> list[Variant]:
    """Returns all networks of the paper's four tables for ``platform``."""
    return [
        Variant(
            group=f"{guideline} x{factor}",
            name=name,
            build=build,
            shape=(channels, SIDE, SIDE),
            paper=blocks(platform, factor)[0][3][index] / speeds[index],
            printed=f"{speeds[index]:g} {'batches' if platform == 'GPU' else 'images'}/s",
        )
        for guideline, blocks in _GUIDELINES.items()
        for index, factor in enumerate(FACTORS)
        for name, build, channels, speeds in blocks(platform, factor)
    ]


def _g1(platform: Platform, factor: int) -> Sequence[Block]:
    return [
        (name, partial(two_widths, c1 * factor, c2 * factor), c1 * factor, speeds)
        for name, (c1, c2, speeds) in G1[platform].items()
    ]


def _g2(platform: Platform, factor: int) -> Sequence[Block]:
    blocks = []
    for groups, (c, speeds) in G2[platform].items():
        width = c * factor // groups * groups
        blocks.append((f"g={groups}", partial(grouped, width, groups), width, speeds))
    return blocks


def _g3(platform: Platform, factor: int) -> Sequence[Block]:
    blocks = []
    for (count, parallel), speeds in G3[platform].items():
        width = int(G2[platform][1][0] * factor / count**0.5)
        name = f"{count} {'parallel' if parallel else 'in series'}" if count > 1 else "1 fragment"
        blocks.append((name, partial(fragmented, width, count, parallel), width, speeds))
    return blocks


def _g4(platform: Platform, factor: int) -> Sequence[Block]:
    width = G4_CHANNELS * factor
    return [
        (name, partial(bottlenecks, width, relu, shortcut), width, speeds)
        for (name, relu, shortcut), speeds in G4[platform].items()
    ]


_GUIDELINES = {"G1": _g1, "G2": _g2, "G3": _g3, "G4": _g4}


def _pairs(guideline: str) -> Pairs:
    def pairs(results: Results) -> list[tuple[Variant, Variant]]:
        return [
            # G4's first variant has both ReLU and shortcut, so it is the slow one.
            (variant, group[0]) if guideline == "G4" else (group[0], variant)
            for name, group in results.groups.items()
            if name.startswith(guideline)
            for variant in group[1:]
        ]

    return pairs


STUDY = Study(
    title="ShuffleNetV2's guidelines",
    question="At equal MACs, do channel widths, groups, fragments and element-wise operations "
    "decide how long a block takes (arXiv 1807.11164, Section 2)?",
    paper={
        "CPU": "Snapdragon 810, one thread, batch 1",
        "GPU": "GTX 1080Ti",
    },
    variants=variants,
    claims=(
        Claim("G1: equal channel widths are faster than unequal ones", faster(_pairs("G1"))),
        Claim("G2: one group is faster than several", faster(_pairs("G2"))),
        Claim("G3: one fragment is faster than several", faster(_pairs("G3"))),
        Claim("G4: without ReLU or shortcut a bottleneck is faster", faster(_pairs("G4"))),
    ),
    tolerance=0.06,
    notes=(
        "Ten blocks on 56x56 inputs, of convolutions with bias. x1 and x2 multiply the channels; "
        "the paper's x4 is left out, as it takes longer than both. No variant has more MACs than "
        "its group's first. The phone's 180 channels in 8 groups do not divide: 176 here. How G3's "
        "parallel convolutions are joined, and how wide G4's bottleneck is inside, the paper does "
        "not say: added up, and a quarter.",
    ),
)
