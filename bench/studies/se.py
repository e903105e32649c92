"""The cost of squeeze-and-excitation: ``python -m bench study se``.

Squeeze-and-Excitation Networks: https://arxiv.org/abs/1709.01507 (Section 4, ResNet-50: 0.26 % more
MACs; 167 instead of 164 ms for one 224x224 image on a CPU, and 209 instead of 190 ms for a training
step of 256 images on eight Titan X)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn
from torchvision.ops import SqueezeExcitation

from bench.studies.measure import Study
from bench.studies.record import PAPER, Results
from bench.studies.variants import Platform, Variant
from bench.studies.verdict import Claim, Verdict, below, times
from models.registry import build_model
from report.format import percent

WITHOUT, WITH = "without SE", "with SE"
MS: dict[Platform, dict[str, int]] = {
    "CPU": {WITHOUT: 164, WITH: 167},
    "GPU": {WITHOUT: 190, WITH: 209},
}
LIMIT = 1.02  # the paper's 167 over 164, rounded up
NETWORKS = ("resnet50", "mobilenet_v3_large", "efficientnet_b0")


def without_se(name: str) -> nn.Module:
    """Returns one of torchvision's networks with its SE blocks replaced by identities."""
    network = build_model(name)
    for module in list(network.modules()):
        for child, layer in module.named_children():
            if isinstance(layer, SqueezeExcitation):
                setattr(module, child, nn.Identity())
    return network


def variants(platform: Platform) -> list[Variant]:
    """Returns three networks, each without and with SE."""
    ms = MS[platform]
    builds: dict[tuple[str, str], Callable[[], nn.Module]] = {
        ("resnet50", WITHOUT): partial(build_model, "resnet50_b"),
        ("resnet50", WITH): partial(build_model, "se_resnet50"),
    }
    for name in NETWORKS[1:]:
        builds[name, WITHOUT] = partial(without_se, name)
        builds[name, WITH] = partial(build_model, name)
    return [
        Variant(
            group=group,
            name=name,
            build=build,
            shape=(3, 224, 224),
            paper=ms[name] / ms[WITHOUT] if group == "resnet50" else None,
            printed=f"{ms[name]} ms" if group == "resnet50" else "",
        )
        for (group, name), build in builds.items()
    ]


def _judge(group: str) -> Callable[[Results, str], Verdict | None]:
    def judge(results: Results, source: str) -> Verdict | None:
        less, more = results.groups[group]
        ratio = results.ratio(more, less, source)
        if ratio is None:
            return None
        count = percent(results.macs_ratio(more, less) - 1, decimals=2)
        figures = times(ratio) if source == PAPER else f"{times(ratio)}; {count} more MACs"
        return Verdict(below(ratio, LIMIT), figures)

    return judge


STUDY = Study(
    title="What squeeze-and-excitation costs",
    question="SE adds next to no MACs; on a CPU the paper measures 2 % more time for ResNet-50 "
    "(arXiv 1709.01507, Section 4). What does it add here?",
    paper={"CPU": "a CPU it does not name", "GPU": "a training step on eight Titan X"},
    variants=variants,
    claims=tuple(
        Claim(f"SE adds less than 2 % to the time of {name}", _judge(name)) for name in NETWORKS
    ),
    notes=(
        "resnet50 without SE is resnet50_b, with it se_resnet50 (r = 16 in every block). Of the "
        "other two, which have SE in some or all blocks, the SE blocks were left out.",
    ),
)
