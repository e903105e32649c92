"""Networks of timm down the road: random weights to every default format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from pages import ROOT

from core.errors import UserError
from export import prover, samples
from export.build import Options, Outcome, build_artifacts
from export.network import load_network

pytestmark = pytest.mark.slow

IMAGES = 16  # of each kind, where an export looks at 64
NAMES = (
    "mobileone_s0",
    "repvgg_a0",
    "repvit_m0_9",
    "fastvit_t8",
    "repghostnet_050",
    "ghostnetv2_100",
    "ghostnetv3_100",
    "edgenext_xx_small",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "efficientformerv2_s0",
    "mobilenetv4_hybrid_medium",
    "efficientvit_m0",
    "levit_128s",
    "tiny_vit_5m_224",
    "swiftformer_xs",
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "skresnet18",
    "lcnet_050",
    "tinynet_e",
    "mobilenetv3_small_050",
    "mnasnet_small",
    "regnetx_002",
    "mobilenetv4_conv_small",
    "hardcorenas_a",
    "mobilenetv3_large_100",
    "ghostnet_100",
    "lcnetv2_small",
    "mixnet_s",
    "mobilenetv2_100",
    "fbnetc_100",
    "rexnet_100",
    "starnet_s1",
    "shvit_s1",
    "iformer_t",
    "efficientvim_m1",
    "efficientvit_b0",
    "convnext_atto",
    "convnextv2_atto",
    "pit_ti_224",
    "pvt_v2_b0",
    "hgnetv2_b0",
    "levit_conv_128s",
    "efficientnet_b0",
    "mobilenetv1_100",
    "xcit_nano_12_p16_224",
    "deit_tiny_patch16_224",
    "tf_efficientnetv2_b0",
    "mambaout_femto",
    "inception_next_atto",
    "efficientformer_l1",
    "maxvit_nano_rw_256",
    "resnet50_clip",
    "coatnet_nano_rw_224",
    "visformer_tiny",
    "crossvit_tiny_240",
    "swin_tiny_patch4_window7_224",
    "regnety_002",
    "resnet10t",
    "mobilenetv1_100h",
)
# Part of the reason why a format is not made, by network and format; of all: no graph at all.
REASONS: dict[str, dict[str, str]] = {
    "levit_128s": {
        "onnx-fp16": "in float16 arithmetic, ",
        "tensorrt_rtx-fp16": "in float16 arithmetic, ",
    },
    "levit_conv_128s": {
        "onnx-fp16": "in float16 arithmetic, ",
        "tensorrt_rtx-fp16": "in float16 arithmetic, ",
    },
    "resnet50_clip": {
        "tensorrt_rtx-fp16": "Antialiasing is not supported",
    },
    "crossvit_tiny_240": {
        "onnx-int8": "ScalesValidation",
    },
}


@pytest.fixture(scope="module")
def table() -> Callable[[str], None]:
    """Returns what adds a row to a Markdown table in ``reports/timm.md``, which is begun anew."""
    file = ROOT / "reports" / "timm.md"
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        "| network | M MACs | M parameters | shape nodes | formats |\n|---|---:|---:|---:|---|\n"
    )

    def add(row: str) -> None:
        with file.open("a") as rows:  # each as it comes: an interrupted test keeps what it has
            rows.write(row + "\n")

    return add


@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_timm_comes_in_every_format(
    name: str, table: Callable[[str], None], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, constant in ((samples, "PHOTOS"), (prover, "IMAGES"), (prover, "FEW_IMAGES")):
        monkeypatch.setattr(module, constant, IMAGES)
    samples.photos.cache_clear()
    try:
        made_of = load_network(f"timm/{name}", None, "random")
        outcomes = list(build_artifacts(made_of, options=Options(max_batch=8)))
    except UserError as error:
        outcomes = [Outcome("all", reason=str(error), failed=True)]
    finally:
        samples.photos.cache_clear()
    table(row(name, outcomes))
    missing = {each.target: each.reason or "" for each in outcomes if each.artifact is None}
    expected = REASONS.get(name, {})
    assert missing.keys() == expected.keys(), missing
    for target, reason in missing.items():
        assert expected[target] in reason


def row(name: str, outcomes: list[Outcome]) -> str:
    """Returns what became of a network as a row of the table."""
    made = [each.artifact for each in outcomes if each.artifact]
    costs = ["", "", ""]
    if made:
        figures = (made[0].macs / 1e6, made[0].parameters / 1e6)
        costs = [*(f"{figure:,.1f}" for figure in figures), str(made[0].shape_nodes)]
    formats: dict[str, list[str]] = defaultdict(list)  # by why there are none
    for each in outcomes:
        if each.artifact is None:
            formats[each.reason or ""].append(each.target)
    reasons = [f"no {', '.join(targets)}: {reason}" for reason, targets in formats.items()]
    return f"| {' | '.join([name, *costs, '; '.join(reasons) or 'all'])} |"
