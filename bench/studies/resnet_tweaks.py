"""The costs of ResNet-50's tweaks: ``python -m bench study resnet_tweaks``.

Bag of Tricks for Image Classification: https://arxiv.org/abs/1812.01187 (Section 4 and Table 5)
"""

from __future__ import annotations

from functools import partial

from bench.studies.measure import Study
from bench.studies.record import PAPER, Results
from bench.studies.variants import Platform, Variant
from bench.studies.verdict import Claim, Verdict, below, times
from models.registry import build_model

GROUP = "ResNet-50"
# Table 5: G MACs, top-1 %. The only time is that of D: 3 % less training throughput than A.
PRINTED = {
    "resnet50_a": (3.8, 76.21),
    "resnet50_b": (4.1, 76.66),
    "resnet50_c": (4.3, 76.87),
    "resnet50_d": (4.3, 77.16),
}
TIMES = {"resnet50_a": 1.0, "resnet50_d": 1 / 0.97}


def variants(platform: Platform) -> list[Variant]:
    """Returns ResNet-50 A (the original), B, C and D."""
    return [
        Variant(
            group=GROUP,
            name=name,
            build=partial(build_model, name),
            shape=(3, 224, 224),
            paper=TIMES.get(name),
            printed=f"{macs} G MACs, {top1} % top-1",
        )
        for name, (macs, top1) in PRINTED.items()
    ]


def judge(results: Results, source: str) -> Verdict | None:
    """Returns whether the time of D, relative to A, is below its MACs relative to A."""
    a, d = results.find(GROUP, "resnet50_a"), results.find(GROUP, "resnet50_d")
    ratio, limit = results.ratio(d, a, source), results.macs_ratio(d, a)
    if ratio is None:
        return None
    figures = f"{times(ratio)}; MACs {limit:.2f} times"
    return Verdict(below(ratio, limit), times(ratio) if source == PAPER else figures)


STUDY = Study(
    title="Tweaks of ResNet-50: MACs against time",
    question="The paper prints 13 % more MACs for resnet50_d than for resnet50_a, the original, "
    "and finds it only 3 % slower (arXiv 1812.01187, Section 4; training throughput). Is it?",
    paper={"CPU": "GPU training", "GPU": "GPU training"},
    variants=variants,
    claims=(Claim("resnet50_d takes less time than its MACs say", judge),),
)
