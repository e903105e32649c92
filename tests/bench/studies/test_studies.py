"""Every study: its variants, the papers' constraints and figures, and what it concludes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shapes import shapes_only
from torch import nn

import bench.studies
from bench.experiment import this_machine
from bench.measure.ratio import Ratio
from bench.measure.timing import Latency, Plan, overlap
from bench.studies import fused_mbconv, grouped, guidelines, scaling
from bench.studies.measure import find_study
from bench.studies.record import PAPER, Results, StudyRow
from bench.studies.registry import STUDIES, StudySpec
from bench.studies.variants import Platform, Variant, settle
from bench.studies.verdict import below

PAPERS = StudySpec(name="", summary="").run
NAMES = [spec.name for spec in STUDIES.values() if spec.run == PAPERS]
MACHINE = this_machine()
PLATFORMS: tuple[Platform, ...] = ("CPU", "GPU")
# Of the others, only what the papers print differs between platforms.
EACH = [*((name, "CPU") for name in NAMES), ("guidelines", "GPU")]


@cache
def variants(name: str, platform: Platform = "CPU") -> tuple[Variant, ...]:
    return tuple(find_study(name).variants(platform))


@cache
def macs(name: str, platform: Platform = "CPU") -> dict[tuple[str, str], int]:
    """Returns the MACs per image of all variants, counted by hooks, not from a graph."""
    return {(v.group, v.name): hooked_macs(v) for v in variants(name, platform)}


def hooked_macs(variant: Variant) -> int:
    counts: list[int] = []

    def count(layer: Any, _: Any, output: torch.Tensor) -> None:
        counts.append(output.numel() * layer.weight[0].numel())

    with shapes_only():
        network = variant.build().eval()
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(count)
        network(torch.empty(1, *variant.shape))
    return sum(counts)


def made_up(name: str, seconds: Callable[[Variant, float], float], spread: float) -> Results:
    """Returns results with the latency ``seconds(variant, MACs over the first's)``.

    Turns differ by ``spread``: equal latencies are a tie then.
    """
    counts = macs(name)
    first = {variant.group: variant for variant in reversed(variants(name))}
    rows = []
    for variant in variants(name):
        key = (variant.group, variant.name)
        top = first[variant.group]
        time = seconds(variant, counts[key] / counts[top.group, top.name])
        factors = np.linspace(1 - spread, 1 + spread, 7)
        row = StudyRow(
            group=variant.group,
            variant=variant.name,
            digest="",
            runtime="ort-cpu",
            batch=1,
            threads=1,
            macs=counts[key],
            bytes=1,
            latency=Latency(turns=tuple((time * float(f),) * 3 for f in factors), warmup=5),
            plan=Plan(),
            machine=MACHINE,
            when="2026-11-22T00:00:00+00:00",
        )
        rows.append(row)
    return Results(variants(name), rows)


def test_times_that_are_shown_are_of_the_cpu_if_all_have_them() -> None:
    results = made_up("resnet_tweaks", lambda _, x: x, 0.0)
    first, *others = results.rows
    cpu = tuple(tuple(sample / 4 for sample in turn) for turn in first.latency.turns)
    first = replace(first, latency=replace(first.latency, cpu=cpu))
    top = results.variants[0]
    assert Results(results.variants, [first, *others]).shown(top, "ort-cpu").p50 == 1.0
    alone = Results(results.variants[:1], [first])
    assert alone.shown(top, "ort-cpu").p50 == 0.25


def is_first(name: str, variant: Variant) -> bool:
    return next(v for v in variants(name) if v.group == variant.group) is variant


# study -> latency of a variant, by its MACs relative to the first of its group, such that all
# claims hold, such that none does, and such that nothing can be said.
Times = Callable[[Variant, float], float]


def slower_than_first(name: str, factor: float) -> Times:
    return lambda variant, x: x * (1.0 if is_first(name, variant) else factor)


def guideline(factor: float) -> Times:
    def time(variant: Variant, x: float) -> float:
        other = 1 / factor if variant.group.startswith("G4") else factor
        return 1.0 if is_first("guidelines", variant) else other

    return time


def fused(early: float, late: float) -> Times:
    def time(variant: Variant, x: float) -> float:
        factor = late if variant.group in ("stage 6", "stage 7") else early
        return factor if variant.name == fused_mbconv.FUSED else 1.0

    return time


def tweak(d: float | None) -> Times:
    return lambda variant, x: d if d and variant.name == "resnet50_d" else x


def with_se(factor: float) -> Times:
    return lambda variant, x: factor if variant.name == "with SE" else 1.0


MADE_UP: dict[str, tuple[Times, Times, Times]] = {
    "guidelines": (guideline(1.5), guideline(0.7), guideline(1.0)),
    "resnet_tweaks": (tweak(1.03), tweak(1.3), tweak(None)),
    "width_resolution": (lambda _, x: x**1.3, lambda _, x: x**0.6, lambda _, x: x),
    "scaling": tuple(slower_than_first("scaling", f) for f in (1.2, 0.8, 1.0)),  # type: ignore[dict-item]
    "se": (with_se(1.001), with_se(1.2), with_se(1.02)),
    "grouped": tuple(slower_than_first("grouped", f) for f in (1.4, 0.7, 1.0)),  # type: ignore[dict-item]
    "fused_mbconv": (fused(0.7, 2.0), fused(2.0, 0.7), fused(1.0, 1.0)),
}


def test_every_file_with_a_study_is_a_command() -> None:
    folder = Path(bench.studies.__path__[0])
    files = {f.stem for f in folder.glob("*.py") if "\nSTUDY = " in f.read_text()}
    assert files == set(NAMES) == set(MADE_UP)


@pytest.mark.parametrize(("name", "platform"), EACH)
def test_variants_compute_sane_numbers(name: str, platform: Platform) -> None:
    torch.manual_seed(0)
    for variant in variants(name, platform):
        channels, height, width = variant.shape
        example = torch.randn(1, channels, min(height, 32), min(width, 32))
        network = variant.build().eval()
        settle(network, example)
        with torch.inference_mode():
            output = network(example)
        assert torch.isfinite(output).all()
        assert 0.01 < output.std() < 100, f"{variant.group} {variant.name}"


@pytest.mark.parametrize(("name", "platform"), EACH)
def test_macs_are_as_equal_as_the_study_says(name: str, platform: Platform) -> None:
    tolerance = find_study(name).tolerance
    groups: dict[str, list[int]] = {}
    for (group, _), count in macs(name, platform).items():
        groups.setdefault(group, []).append(count)
    spread = max(abs(count / group[0] - 1) for group in groups.values() for count in group)
    if tolerance is None:
        assert spread > 0
    else:
        assert 0 < spread <= tolerance
        assert tolerance - spread < 0.01, "the tolerance is no larger than it must be"


def test_macs_of_the_papers() -> None:
    assert {name: count for (_, name), count in macs("resnet_tweaks").items()} == {
        "resnet50_a": 3_857_973_248,
        "resnet50_b": 4_089_184_256,
        "resnet50_c": 4_328_824_832,
        "resnet50_d": 4_328_824_832,
    }
    exact = [round(count / 1e6, 3) for count in macs("width_resolution").values()]
    assert exact == [568.740, 325.400, 149.497, 41.030, 568.740, 418.122, 290.675, 186.401]
    for variant in variants("scaling"):
        printed = scaling.SCALED[variant.group, variant.name][3]
        count = macs("scaling")[variant.group, variant.name] / 1e9
        assert abs(count / printed - 1) < 0.08  # 0.4 G for 0.386
    counts = macs("fused_mbconv")
    for stage in fused_mbconv.STAGES:
        group = f"stage {stage}"
        assert counts[group, fused_mbconv.FUSED] > 4 * counts[group, fused_mbconv.SEPARATE]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_no_block_of_the_guidelines_has_more_macs_than_the_first(platform: Platform) -> None:
    counts = macs("guidelines", platform)
    first = {v.group: v for v in reversed(variants("guidelines", platform))}
    for (group, name), count in counts.items():
        assert count <= counts[group, first[group].name], (group, name)
        if group.startswith("G4"):
            assert count == counts[group, first[group].name]


def test_every_printed_figure_has_its_variant() -> None:
    for platform, per_width in (("CPU", 4 + 4 + 5 + 4), ("GPU", 4 + 4 + 5 + 4)):
        found = variants("guidelines", platform)  # type: ignore[arg-type]
        assert len(found) == per_width * len(guidelines.FACTORS)
        assert all(variant.paper and variant.printed for variant in found)
    paper = {(v.group, v.name): v.paper for v in variants("guidelines")}
    assert paper["G1 x1", "1:12"] == pytest.approx(76.2 / 57.6)
    assert paper["G2 x2", "g=8"] == pytest.approx(10.2 / 7.5)
    assert paper["G3 x1", "2 parallel"] == pytest.approx(40.2 / 33.4)
    assert paper["G4 x2", "neither"] == pytest.approx(16.9 / 20.2)
    gpu = {(v.group, v.name): v.paper for v in variants("guidelines", "GPU")}
    assert gpu["G3 x1", "4 in series"] == pytest.approx(2446 / 752)
    width = {v.name: v.paper for v in variants("width_resolution") if v.group == "width"}
    assert width["0.25"] == pytest.approx(6.5 / 36.4)
    names = {v.name for v in variants("grouped") if v.group == "conv2"}
    assert names == {f"{c}x{d}d" for c, d in grouped.CARDINALITIES} | {"depthwise"}
    assert [v.paper for v in variants("grouped") if v.name == "32x4d"] == [0.95 / 0.70] * 4
    stages = [int(v.group[-1]) for v in variants("fused_mbconv") if v.name == fused_mbconv.FUSED]
    assert stages == list(fused_mbconv.STAGES)
    assert {v.paper for v in variants("se") if v.name == "with SE"} == {167 / 164, None}
    assert {(v.group, v.name) for v in variants("scaling")} == set(scaling.SCALED)
    assert {v.name: v.paper for v in variants("resnet_tweaks")}["resnet50_d"] == 1 / 0.97


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("which", "spread", "word"), [(0, 0.0, "holds"), (1, 0.0, "does not hold"), (2, 0.01, "a tie")]
)
def test_verdict_follows_from_the_latencies(
    name: str, which: int, spread: float, word: str
) -> None:
    results = made_up(name, MADE_UP[name][which], spread)
    for claim in find_study(name).claims:
        sentence = claim.sentence(results, {"ort-cpu": "here"})
        assert f" here: {word} (" in sentence


def test_papers_own_figures_are_judged_by_the_same_rule() -> None:
    def sentences(name: str) -> list[str]:
        results = made_up(name, MADE_UP[name][0], 0.0)
        return [c.sentence(results, {PAPER: "paper"}) for c in find_study(name).claims]

    g1, g2, g3, g4 = sentences("guidelines")
    assert g1.endswith("paper: holds (6 of 6; 1.05 to 1.44 times).")
    assert g2.endswith("paper: holds (6 of 6; 1.07 to 1.44 times).")
    assert g3.endswith("paper: holds in part (6 of 8, 2 tied; 1.00 to 1.20 times).")
    assert g4.endswith("paper: holds (6 of 6; 1.01 to 1.20 times).")
    assert sentences("resnet_tweaks")[0].endswith("paper: holds (1.03 times).")
    assert sentences("width_resolution")[0].endswith("paper: does not hold (exponent 0.64).")
    assert sentences("grouped")[0].endswith("paper: holds (4 of 4; 1.36 times).")
    early, middle, late = sentences("fused_mbconv")
    assert early.endswith("paper: holds (3 of 3; 1.39 times).")
    assert middle.endswith("paper: holds (2 of 2; 1.03 times).")
    assert late.endswith("paper: holds (2 of 2; 1.08 times).")


def test_mixed_outcomes_hold_in_part_and_name_the_exceptions() -> None:
    def time(variant: Variant, x: float) -> float:
        return x if is_first("grouped", variant) else x * (0.8 if variant.group == "conv5" else 1.4)

    results = made_up("grouped", time, 0.01)
    sentence = find_study("grouped").claims[0].sentence(results, {"ort-cpu": "here"})
    assert sentence.endswith(
        "here: holds in part (3 of 4, the other way: conv5 32x4d; 0.80 to 1.40 times)."
    )


def test_ratio_against_1_is_overlap() -> None:
    rng = np.random.default_rng(0)
    outcomes = set()
    for shift in np.linspace(0.9, 1.1, 21):
        one, other = (
            Latency(turns=tuple((float(x),) for x in scale * rng.normal(1, 0.03, 8)), warmup=5)
            for scale in (1.0, shift)
        )
        outcome = below(Ratio.of(one, other), 1.0)
        assert (outcome == "a tie") is overlap(one, other)
        assert outcome == "a tie" or (outcome == "holds") is (one.p50 < other.p50)
        outcomes.add(outcome)
    assert outcomes == {"holds", "does not hold", "a tie"}
