"""EfficientNet's scaling: ``python -m bench study scaling``.

EfficientNet: https://arxiv.org/abs/1905.11946 (Section 3, Tables 1 and 7)

Table 7 scales B0 to 1.8 G MACs with d = 4, w = 2, r = 2, or d = 1.4, w = 1.2, r = 1.3 together.
Rounded to whole layers and multiples of 8 channels, as in torchvision and the paper's code, the
first three have only 1.58, 1.45 and 1.54 G MACs. Here they are scaled further, to 1.8 G MACs.
"""

from __future__ import annotations

from functools import partial

from torch import nn
from torchvision.models.efficientnet import EfficientNet, MBConvConfig

from bench.studies.measure import Study
from bench.studies.record import Results
from bench.studies.variants import Platform, Variant
from bench.studies.verdict import Claim, faster

COMPOUND = "compound"
_STAGES = (
    # expansion, kernel, stride, channels in, channels out, layers: B0, Table 1
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)
# group, name -> depth, width, pixels here; G MACs and top-1 % in Table 7
SCALED = {
    ("scaled B0", COMPOUND): (1.4, 1.2, 291, 1.8, 81.1),
    ("scaled B0", "depth"): (4.4, 1.0, 224, 1.8, 79.0),
    ("scaled B0", "width"): (1.0, 2.2, 224, 1.8, 78.9),
    ("scaled B0", "resolution"): (1.0, 1.0, 480, 1.9, 79.1),
    ("baseline", "B0"): (1.0, 1.0, 224, 0.4, 77.3),
}


def efficientnet(depth: float, width: float) -> nn.Module:
    """Returns B0 with ``depth`` times the layers and ``width`` times the channels."""
    stages = [MBConvConfig(*stage, width_mult=width, depth_mult=depth) for stage in _STAGES]
    network: nn.Module = EfficientNet(stages, dropout=0.2)
    return network


def variants(platform: Platform) -> list[Variant]:
    """Returns B0 scaled in four ways, and B0 itself."""
    return [
        Variant(
            group=group,
            name=name,
            build=partial(efficientnet, depth, width),
            shape=(3, side, side),
            printed=f"{macs} G MACs, {top1} % top-1",
        )
        for (group, name), (depth, width, side, macs, top1) in SCALED.items()
    ]


def _pairs(results: Results) -> list[tuple[Variant, Variant]]:
    compound, *others = results.groups["scaled B0"]
    return [(compound, other) for other in others]


STUDY = Study(
    title="EfficientNet: what compound scaling costs in time",
    question="At equal MACs, compound scaling is more accurate than depth, width or resolution "
    "alone (arXiv 1905.11946, Table 7; the paper prints no times). Is it as fast?",
    paper={"CPU": "MACs and top-1 only", "GPU": "MACs and top-1 only"},
    variants=variants,
    claims=(
        Claim(
            "Compound scaling takes less time per MAC than one dimension alone",
            faster(_pairs, per_mac=True),
        ),
    ),
    tolerance=0.03,
    notes=(
        "Depth x4.4, width x2.2, 480 pixels, and together x1.4, x1.2 and 291 pixels. Depth, width "
        "and resolution are scaled further than in Table 7 (4, 2, 448): rounded to whole layers "
        "and multiples of 8 channels, those have 1.45 to 1.58 G MACs, not the 1.8 printed.",
    ),
)
