"""Frozen backbones, and learning rates by stage."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from few_digits import few_digits

from core.errors import UserError
from models.classifier import Classifier
from models.registry import build_model
from training.checkpoint import load_checkpoint
from training.estimate import seconds_left
from training.finetuning import Frozen
from training.fit import fit
from training.optimizer import make_optimizer
from training.recipe import Recipe
from training.recipes import RECIPES
from training.stages import find_stages

HEAD = {"backbone.head.weight", "backbone.head.bias"}


def recipe(**fields: Any) -> Recipe:
    shape = {"resize": 8, "crop": 8, "min_scale": 1.0, "flip": False, "weights": "imagenet"}
    return Recipe(**{"epochs": 2, "batch_size": 32, "learning_rate": 0.01, **shape, **fields})


def stages_of(model: str, side: int) -> dict[str, int]:
    """Returns the stage of each parameter, by name."""
    network = Classifier(build_model(model, num_classes=10))
    stages = find_stages(network, side)
    assert network.training
    placed = {each: place for place, stage in enumerate(stages) for each in stage}
    assert len(placed) == sum(map(len, stages)) == len(list(network.parameters()))
    return {name: placed[each] for name, each in network.named_parameters()}


def test_stages_are_layers_of_one_resolution() -> None:
    stages = stages_of("resnet14", 32)
    assert stages["backbone.stages.0.0.branch.0.0.weight"] == 0
    assert stages["backbone.stages.1.0.branch.0.0.weight"] == 1
    assert stages["backbone.stages.2.1.branch.2.1.bias"] == 2
    assert {stages[name] for name in HEAD} == {3}


def test_squeeze_and_excitation_is_of_the_stage_that_it_scales() -> None:
    stages = stages_of("mobilenet_v3_small", 64)
    assert stages["backbone.features.0.0.weight"] == 0
    assert stages["backbone.features.1.block.1.fc1.weight"] == 1
    assert stages["backbone.features.1.block.2.0.weight"] == 1
    assert stages["backbone.features.12.0.weight"] == 4
    assert stages["backbone.classifier.0.weight"] == stages["backbone.classifier.3.bias"] == 5


def test_earlier_stages_have_lower_learning_rates() -> None:
    network = Classifier(build_model("resnet14", num_classes=10))
    wanted = recipe(layer_decay=0.5, decay_vectors=False, weight_decay=0.1)
    groups = make_optimizer(network, wanted).param_groups
    assert groups[0]["lr"] == 0.01
    assert [group["lr"] for group in groups[::2]] == [0.01, 5e-3, 2.5e-3, 1.25e-3]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0] * 4
    rates = {each: group["lr"] for group in groups for each in group["params"]}
    names = dict(network.named_parameters())
    assert rates.keys() == set(names.values())
    assert rates[names["backbone.head.weight"]] == 0.01
    assert rates[names["backbone.stages.0.0.branch.0.0.weight"]] == 1.25e-3


@pytest.mark.parametrize(("ema", "keep"), [(None, True), (0.9, True), (None, False)])
@pytest.mark.parametrize("epochs", [1, 2])
def test_the_backbone_learns_only_after_its_frozen_epochs(
    here: Path, monkeypatch: pytest.MonkeyPatch, ema: float | None, keep: bool, epochs: int
) -> None:
    torch.manual_seed(1)
    published = Classifier(build_model("resnet14", num_classes=10))
    before = {name: value.clone() for name, value in published.state_dict().items()}
    monkeypatch.setattr("training.fit.first_network", lambda *_: (published, "published"))
    monkeypatch.setattr("training.fit.write_summary", lambda *_: None)
    wanted = recipe(epochs=epochs, freeze_epochs=1, ema=ema, keep_statistics=keep)
    after = load_checkpoint(
        fit("resnet14", few_digits("written", train=96, val=32), wanted)
    ).state_dict
    weights = {name for name, _ in published.named_parameters()}
    moved = {name for name in weights if not torch.equal(before[name], after[name])}
    assert moved == (HEAD if epochs == 1 else weights)
    statistics = [name for name in before if "running_" in name]
    assert statistics
    assert all(torch.equal(before[name], after[name]) == keep for name in statistics)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"freeze_epochs": 3}, r"freeze_epochs is 3: more than the 2 epochs"),
        (
            {"freeze_epochs": 1, "weights": "random"},
            r"weights is random.*--recipe.weights imagenet",
        ),
        ({"keep_statistics": True, "weights": "random"}, r"keep_statistics is True and weights"),
        ({"layer_decay": 0.0}, r"layer_decay is 0\.0: "),
        ({"layer_decay": 1.5}, r"layer_decay is 1\.5: .* to 1"),
    ],
)
def test_mistakes(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        recipe(**fields).check()


def test_a_frozen_epoch_counts_as_a_forward_pass() -> None:
    given = {"batches": 10, "done": 0, "per_batch": 1.0, "held_out": 0, "epoch": 0}
    frozen, whole = (
        seconds_left(recipe(epochs=4, freeze_epochs=count), **given)
        for count in (4, 0)  # type: ignore[arg-type]
    )
    assert frozen == pytest.approx(4 * (10 + 10))  # training and statistics, each forward
    assert whole == pytest.approx(4 * (10 + 10 / 3))
    mixed = seconds_left(recipe(epochs=4, freeze_epochs=1), **given)  # type: ignore[arg-type]
    assert mixed == pytest.approx((10 + 10) + 3 * (30 + 10))


def test_a_probe_is_frozen_to_its_end() -> None:
    probe = RECIPES["probe"](224)
    assert probe.freeze_epochs == probe.epochs
    assert probe.weights == "imagenet"
    probe.check()
    assert dataclasses.replace(probe, freeze_epochs=0) != probe


def test_stages_learn_one_after_the_other() -> None:
    network = Classifier(build_model("resnet14", num_classes=10))
    stages = find_stages(network, 32)
    wanted = recipe(epochs=9, freeze_epochs=1, unfreeze_every=2, resize=32, crop=32)
    frozen = Frozen("resnet14", wanted)
    head = {id(each) for name, each in network.named_parameters() if name in HEAD}
    for epoch, count in enumerate((0, 2, 2, 3, 3, 4, 4, 4)):
        frozen.apply(network, epoch)
        learning = {id(each) for each in network.parameters() if each.requires_grad}
        expected = {id(each) for stage in stages[len(stages) - count :] for each in stage}
        assert learning == expected | head, epoch


def test_gradual_unfreezing_trains_what_it_reaches(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = Classifier(build_model("resnet14", num_classes=10))
    before = {name: value.clone() for name, value in published.named_parameters()}
    placed = stages_of("resnet14", 8)
    monkeypatch.setattr("training.fit.first_network", lambda *_: (published, "published"))
    monkeypatch.setattr("training.fit.write_summary", lambda *_: None)
    wanted = recipe(epochs=2, unfreeze_every=1, keep_statistics=True)
    path = fit("resnet14", few_digits("written", train=64, val=32), wanted)
    after = load_checkpoint(path).state_dict
    last = max(placed.values())
    moved = {placed[name] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {last, last - 1, last - 2}
    said = capsys.readouterr().err
    assert "epoch 1: the last 2 of" in said
    assert "epoch 2: the last 3 of" in said


def test_random_weights_are_not_unfrozen() -> None:
    with pytest.raises(UserError, match="unfreeze_every is 1 and weights is random"):
        recipe(unfreeze_every=1, weights="random").check()
