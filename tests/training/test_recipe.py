from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from core.errors import UserError
from training.optimizer import make_optimizer, rate_factor
from training.recipe import Recipe
from training.recipes import RECIPES, default_recipe, digits, efficientnet_v2, find_recipe


def plain(**fields: Any) -> Recipe:
    """Returns a recipe of 10 epochs with some fields of its own."""
    return Recipe(**{"epochs": 10, "batch_size": 8, "learning_rate": 0.1, **fields})


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_trained_by(name: str) -> None:
    for size in (224, 300):
        recipe = RECIPES[name](size)
        recipe.check()
        for epoch in (0, recipe.epochs - 1):
            recipe.at(epoch).check()
    assert "make train" in (RECIPES[name].__doc__ or "")
    assert "easured" in (RECIPES[name].__doc__ or "")


def test_default_recipes() -> None:
    assert default_recipe("resnet14", "digits") == "digits"
    assert default_recipe("resnet14", "cifar10") == "small"
    assert default_recipe("mobilenet_v3", "some/folder") == "finetune"
    assert find_recipe("finetune", "mobilenet_v3").keep_statistics
    assert default_recipe("shufflenet_v1_g3", "some/folder") == "scratch"
    assert default_recipe("mobilenet_v3", "imagenet") == "scratch"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"epochs": 0}, r"epochs is 0: .*\b1$"),
        ({"learning_rate": -1.0}, r"learning_rate is -1\.0: .*\b0$"),
        ({"warmup": 1.0}, r"warmup is 1\.0: .*\b0 .*0\.99$"),
        ({"min_scale": 0.0}, r"min_scale is 0\.0: .*\b0\b"),
        ({"crop": 65}, r"crop .*1\.\.resize"),
        ({"accumulate": 3}, r"accumulate is 3: .*batch_size, 64"),
        ({"optimizer": "lamb"}, r"optimizer is 'lamb': .*adam, adamw, rmsprop, sgd"),
        ({"randaugment": 31}, r"randaugment is 31: .*\b0 .*\b30$"),
        ({"stages": 7}, r"stages is 7: .*\b6 epochs"),
        ({"ema": 1.5}, r"ema is 1\.5: .*\b0 .*\b1$"),
        ({"learning_rate": float("nan")}, r"learning_rate is nan"),
    ],
)
def test_impossible_recipes(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        dataclasses.replace(digits(), **changes).check()


def test_progressive_learning_goes_from_start_to_end() -> None:
    recipe = efficientnet_v2()
    stages = [recipe.at(epoch) for epoch in (0, 87, 88, 262, 263, 349)]
    assert [stage.train_crop for stage in stages] == [128, 128, 185, 243, 300, 300]
    assert [stage.randaugment for stage in stages] == [5, 5, 8, 12, 15, 15]
    assert [stage.dropout for stage in stages] == pytest.approx([0.1, 0.1, 1 / 6, 7 / 30, 0.3, 0.3])
    assert {stage.crop for stage in stages} == {384}
    assert digits().at(3) == digits()


@pytest.mark.parametrize("steps", [1, 2, 4, 132])
def test_the_learning_rate_rises_then_falls(steps: int) -> None:
    factors = [rate_factor(plain(warmup=0.25), step, steps) for step in range(steps)]
    peak = factors.index(max(factors))
    assert max(factors) == 1
    assert peak == int(0.25 * steps)
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert min(factors) > 0


def test_other_schedules_by_hand() -> None:
    linear = plain(schedule="linear", warmup=0.0)
    assert [rate_factor(linear, step, 4) for step in range(4)] == [1, 0.75, 0.5, 0.25]
    stairs = plain(schedule="exponential", decay_rate=0.5, decay_epochs=4.0, warmup=0.0)
    assert [rate_factor(stairs, step, 10) for step in range(10)] == [1] * 4 + [0.5] * 4 + [0.25] * 2
    assert rate_factor(plain(schedule="constant", warmup=0.0), 9, 10) == 1


def test_vectors_keep_out_of_weight_decay_when_told() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    all_in = make_optimizer(network, plain(weight_decay=0.5))
    assert [len(group["params"]) for group in all_in.param_groups] == [4]
    groups = make_optimizer(network, plain(weight_decay=0.5, decay_vectors=False)).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(1, 0.5), (3, 0)]


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "sgd"])
def test_every_optimiser_goes_downhill(name: str) -> None:
    torch.manual_seed(0)
    network = nn.Linear(4, 1)
    optimizer = make_optimizer(network, plain(optimizer=name, learning_rate=0.01))
    inputs, targets = torch.randn(64, 4), torch.randn(64, 1)
    losses = []
    for _ in range(20):
        loss = (network(inputs) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_rmsprop_has_the_epsilon_of_its_recipe_inside_the_root() -> None:
    """One step on a gradient g from zero: rate * g / sqrt(0.1 * g^2 + epsilon), as TensorFlow's."""
    for name, epsilon in (("mobilenet", 1.0), ("efficientnet", 1e-3)):
        recipe = dataclasses.replace(find_recipe(name, "mobilenet_v2"), weight_decay=0.0)
        layer = nn.Linear(1, 1, bias=False)
        before = layer.weight.item()
        optimizer = make_optimizer(layer, recipe)
        layer.weight.grad = torch.tensor([[1e-3]])  # next to the root of either, nothing
        optimizer.step()
        expected = recipe.learning_rate * 1e-3 / epsilon**0.5
        assert before - layer.weight.item() == pytest.approx(expected, rel=0.02)
