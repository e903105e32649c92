from __future__ import annotations

from typing import Any

import pytest
import torch

from core.errors import UserError
from models.classifier import Classifier
from models.residual import zero_last_gammas
from models.weights import load_imagenet_weights
from training.networks import first_network
from training.recipe import Recipe


def plan(**fields: Any) -> Recipe:
    return Recipe(**{"epochs": 1, "batch_size": 4, "learning_rate": 1e-3, **fields})


@pytest.mark.parametrize("labels", [("a", "b", "c"), tuple(f"k{index}" for index in range(1000))])
def test_imagenet_weights_but_a_head_of_its_own(labels: tuple[str, ...]) -> None:
    weights = load_imagenet_weights("efficientnet_lite0")
    network, origin = first_network("efficientnet_lite0", labels, plan(weights="imagenet"))
    assert origin == weights.origin
    mine = network.backbone.state_dict()
    differing = {key for key, value in weights.state_dict.items() if not _same(mine[key], value)}
    assert differing == {"classifier.weight", "classifier.bias"}
    assert mine["classifier.bias"].shape == (len(labels),)
    assert not mine["classifier.weight"].any()  # all classes begin with the same score
    assert not mine["classifier.bias"].any()
    assert network.scale.flatten()[0] == pytest.approx(1 / (255 * weights.std[0]))


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def test_all_weights_for_imagenets_own_classes() -> None:
    weights = load_imagenet_weights("efficientnet_lite0")
    network, _ = first_network("efficientnet_lite0", weights.labels, plan(weights="imagenet"))
    state_dict = network.backbone.state_dict()
    assert all(torch.equal(state_dict[key], value) for key, value in weights.state_dict.items())


def test_what_a_recipe_asks_of_the_network() -> None:
    wishes = plan(zero_gamma=True, bn_momentum=0.3, channels_last=True)
    network, origin = first_network("resnet14", ("a", "b"), wishes)
    assert origin == "random, seed 0"
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert sum(bool((norm.weight == 0).all()) for norm in norms) == zero_last_gammas(network) == 6
    assert {norm.momentum for norm in norms} == {0.3}
    conv = network.backbone.stages[1][0].branch[0][0]
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    plain, _ = first_network("resnet14", ("a", "b"), plan(channels_last=False))
    assert isinstance(plain, Classifier)
    assert plain.backbone.stages[1][0].branch[0][0].weight.is_contiguous()


def test_no_published_weights() -> None:
    with pytest.raises(UserError, match=r"shufflenet_v1_g3: nobody .*--recipe-name scratch"):
        first_network("shufflenet_v1_g3", ("a", "b"), plan(weights="imagenet"))
