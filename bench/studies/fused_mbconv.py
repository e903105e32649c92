"""EfficientNetV2's Fused-MBConv: ``python -m bench study fused_mbconv``.

EfficientNetV2: https://arxiv.org/abs/2104.00298 (Section 3.2, Figure 2, Table 3)

In Table 3, MBConv is replaced in EfficientNet-B4. The images/s of training on a V100 are 155 (none
fused), 216 (stages 1-3), 223 (1-5) and 206 (1-7), at 4.5, 7.5, 21.3 and 34.4 G MACs. Here the
repeated block (stride 1) of each stage is measured alone, at B4's widths and 380 pixels. As in
torchvision, MBConv has SE, Fused-MBConv has none, and both have the stage's kernel size. B4 then
has 20.9, 43.5 and 132.1 M parameters with stages 1-3, 1-5 and 1-7 fused; Table 3 prints 20.0, 43.4
and 132.0.
"""

from __future__ import annotations

from functools import partial

from torch import nn
from torchvision.models.efficientnet import FusedMBConv, FusedMBConvConfig, MBConv, MBConvConfig

from bench.studies.measure import Study
from bench.studies.record import Results
from bench.studies.variants import Platform, Variant
from bench.studies.verdict import Claim, Pairs, faster

SEPARATE, FUSED = "MBConv", "Fused-MBConv"
# stage -> expansion, kernel, channels, side (EfficientNet-B4: width 1.4, 380 pixels)
STAGES = {
    1: (1, 3, 24, 190),
    2: (6, 3, 32, 95),
    3: (6, 5, 56, 48),
    4: (6, 3, 112, 24),
    5: (6, 5, 160, 24),
    6: (6, 5, 272, 12),
    7: (6, 3, 448, 12),
}
# stages -> images/s of the network before and after MBConv was replaced in them
SPEEDS = {(1, 2, 3): (155, 216), (4, 5): (216, 223), (6, 7): (223, 206)}
WHERE = {155: "none", 216: "1-3", 223: "1-5", 206: "1-7"}


def block(stage: int, fused: bool) -> nn.Module:
    """Returns the repeated block of a stage: (N, C, H, W) -> the same shape."""
    expansion, kernel, channels, _ = STAGES[stage]
    shape = (expansion, kernel, 1, channels, channels, 1)
    network: nn.Module = (
        FusedMBConv(FusedMBConvConfig(*shape), 0.0, nn.BatchNorm2d)
        if fused
        else MBConv(MBConvConfig(*shape), 0.0, nn.BatchNorm2d)
    )
    return network


def variants(platform: Platform) -> list[Variant]:
    """Returns both blocks at the shape of each stage."""
    found = []
    for stages, (before, after) in SPEEDS.items():
        for stage in stages:
            _, _, channels, side = STAGES[stage]
            for name in (SEPARATE, FUSED):
                found.append(
                    Variant(
                        group=f"stage {stage}",
                        name=name,
                        build=partial(block, stage, name == FUSED),
                        shape=(channels, side, side),
                        paper=before / after if name == FUSED else 1.0,
                        printed=_printed(before if name == SEPARATE else after),
                    )
                )
    return found


def _printed(speed: int) -> str:
    return f"{speed} images/s, {WHERE[speed]} fused"


def _pairs(first: int, last: int, *, fused_first: bool) -> Pairs:
    def pairs(results: Results) -> list[tuple[Variant, Variant]]:
        found = []
        for stage in range(first, last + 1):
            separate, fused = results.groups[f"stage {stage}"]
            found.append((fused, separate) if fused_first else (separate, fused))
        return found

    return pairs


STUDY = Study(
    title="Fused-MBConv: more MACs, less time?",
    question="Fused-MBConv has a full convolution in place of MBConv's depthwise and first 1x1 "
    "ones: more MACs. In EfficientNet-B4 it trains faster in early stages, and slower in late ones "
    "(arXiv 2104.00298, Table 3). And here?",
    paper={
        "CPU": "training the whole network on a V100",
        "GPU": "training the whole network on a V100",
    },
    variants=variants,
    claims=(
        Claim(
            "Fused-MBConv is faster than MBConv in stages 1 to 3",
            faster(_pairs(1, 3, fused_first=True)),
        ),
        Claim(
            "Fused-MBConv is faster than MBConv in stages 4 and 5",
            faster(_pairs(4, 5, fused_first=True)),
        ),
        Claim(
            "Fused-MBConv is slower than MBConv in stages 6 and 7",
            faster(_pairs(6, 7, fused_first=False)),
        ),
    ),
    notes=(
        "The repeated block of each stage, stride 1, at EfficientNet-B4's widths and 380 pixels. "
        "MBConv has SE, Fused-MBConv has none, and both have the stage's kernel, which comes "
        "closest to the paper's numbers of parameters. The paper's x is of the whole network: "
        "images/s before these stages were replaced, over those after.",
    ),
)
