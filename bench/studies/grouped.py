"""ResNeXt's cardinality at equal MACs: ``python -m bench study grouped``.

Aggregated Residual Transformations for Deep Neural Networks: https://arxiv.org/abs/1611.05431
(Table 2: the widths; Table 3: top-1 errors; Section 5.1: a training step on eight M40 takes 0.95 s
for ResNeXt-101, 32x4d, and 0.70 s for ResNet-101)
"""

from __future__ import annotations

from functools import partial

from torch import nn

from bench.studies.measure import Study
from bench.studies.record import Results
from bench.studies.variants import Platform, Variant
from bench.studies.verdict import Claim, Pairs, faster
from models.resnext_forms import GroupedForm

BLOCKS = 2
STEP = {"1x64d": 0.70, "32x4d": 0.95}  # seconds
# cardinality and channels of a branch at 256 channels -> top-1 error of the ResNe(X)t-50, %
CARDINALITIES = {(1, 64): 23.9, (2, 40): 23.0, (4, 24): 22.6, (8, 14): 22.3, (32, 4): 22.2}
DEPTHWISE = 134  # branches of one channel, for equal MACs; not in the paper
# stage -> channels and side; the width of a branch is proportional to the channels
STAGES = {"conv2": (256, 56), "conv3": (512, 28), "conv4": (1024, 14), "conv5": (2048, 7)}


def bottlenecks(width: int, cardinality: int, d: int) -> nn.Module:
    """Returns two bottlenecks; the 3x3 convolution has ``cardinality`` groups of ``d`` channels."""
    blocks = [GroupedForm(width, cardinality=cardinality, d=d) for _ in range(BLOCKS)]
    return nn.Sequential(*blocks)


def variants(platform: Platform) -> list[Variant]:
    """Returns the paper's five cardinalities and depthwise, at the shapes of all stages."""
    found = []
    for stage, (width, side) in STAGES.items():
        factor = width // 256
        for (cardinality, d), error in CARDINALITIES.items():
            name = f"{cardinality}x{d}d"
            found.append(
                Variant(
                    group=stage,
                    name=name,
                    build=partial(bottlenecks, width, cardinality, d * factor),
                    shape=(width, side, side),
                    paper=STEP[name] / STEP["1x64d"] if name in STEP else None,
                    printed=f"{error} % top-1 error",
                )
            )
        found.append(
            Variant(
                group=stage,
                name="depthwise",
                build=partial(bottlenecks, width, DEPTHWISE * factor, 1),
                shape=(width, side, side),
            )
        )
    return found


def _pairs(name: str) -> Pairs:
    def pairs(results: Results) -> list[tuple[Variant, Variant]]:
        return [(group[0], results.find(stage, name)) for stage, group in results.groups.items()]

    return pairs


STUDY = Study(
    title="ResNeXt: what cardinality costs at equal MACs",
    question="More and narrower branches are more accurate at equal MACs, but a training step "
    "takes 1.36 times as long (arXiv 1611.05431, Section 5.1). What do groups cost here?",
    paper={
        "CPU": "a training step of the 101-layer networks on eight M40",
        "GPU": "a training step of the 101-layer networks on eight M40",
    },
    variants=variants,
    claims=tuple(
        Claim(f"1x64d takes less time per MAC than {name}", faster(_pairs(name), per_mac=True))
        for name in ("32x4d", "depthwise")
    ),
    tolerance=0.03,
    notes=(
        "Two bottlenecks of each stage's shape. Names are those of conv2: with each stage "
        "branches are twice as wide, and of depthwise ones, 134 in conv2, there are twice as many.",
    ),
)
