from __future__ import annotations

import pytest
import torch
from torch import nn

from core.errors import UserError
from models.registry import build_model
from models.residual import zero_last_gammas
from models.resnet_tweaks import Bottleneck


# Residual branches that meet a shortcut, counted in the papers' tables.
@pytest.mark.parametrize(
    ("name", "branches"),
    [
        ("resnet50", 16),
        ("resnet50_d", 16),
        ("se_resnet50", 16),
        ("resnext50_32x4d", 16),
        ("resnet14_se", 6),
        ("mobilenet_v2", 10),
        ("mobilenet_v3_large", 10),
        ("efficientnet_b0", 9),
        ("efficientnet_v2_s", 35),
    ],
)
def test_each_residual_branch_starts_at_zero(name: str, branches: int) -> None:
    with torch.device("meta"):
        assert zero_last_gammas(build_model(name)) == branches


@pytest.mark.parametrize("name", ["resnet50_d", "se_resnet50"])
def test_a_block_then_is_its_shortcut(name: str) -> None:
    network = build_model(name, num_classes=2)
    zero_last_gammas(network)
    blocks = [block for block in network.modules() if isinstance(block, Bottleneck)]
    for block in (blocks[1], blocks[3]):  # identity, and stride 2
        images = torch.randn(2, 256, 6, 6)
        for mode in (True, False):
            block.train(mode)
            assert torch.equal(block(images), torch.relu(block.shortcut(images)))


def test_a_network_starts_with_gammas_of_one_unless_asked() -> None:
    norms = [m for m in build_model("resnet50_d").modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)


def test_a_network_without_residual_branches() -> None:
    with pytest.raises(UserError, match="zero_gamma is true: this network has no residual branch"):
        zero_last_gammas(build_model("shufflenet_v2_x0_5"))
