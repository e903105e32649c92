"""What is validated and kept of a short run: averaged weights, and statistics that fit them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.weights import settle_batch_norm
from training import fit as fitting
from training.averaging import warm_decay
from training.checkpoint import load_checkpoint
from training.data import ImageData, pixel_batches
from training.datasets import load_data
from training.fit import fit
from training.loader import STATISTICS_IMAGES, Loaders
from training.recipe import Recipe
from training.recipes import finetune


def few(images: int, classes: int) -> ImageData:
    """Returns handwritten digits: ``images`` to learn from, and up to half as many held out."""
    data = load_data("digits")
    train, val = (
        [sample for sample in samples if sample[1] < classes] for samples in (data.train, data.val)
    )
    return dataclasses.replace(
        data, labels=data.labels[:classes], train=train[:images], val=val[: images // 2]
    )


def small(**fields: Any) -> Recipe:
    return Recipe(
        batch_size=32, resize=8, crop=8, min_scale=1.0, flip=False, workers=0,
        **{"learning_rate": 0.01, "label_smoothing": 0.0, "warmup": 0.0} | fields,
    )  # fmt: skip


def test_the_decay_rises_with_the_steps() -> None:
    steps = torch.tensor([0, 1, 90, 10**6])
    assert warm_decay(steps, 0.99).tolist() == pytest.approx([0.1, 2 / 11, 0.91, 0.99])
    assert warm_decay(torch.tensor(3), 0.0).item() == 0


def test_the_default_recipe_of_a_small_folder_learns(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts: list[Any] = []
    monkeypatch.setattr(fitting, "write_summary", lambda _, told, *__: facts.append(told))
    recipe = finetune(8)
    assert recipe.ema is not None
    # Without published weights, it learns from scratch: faster.
    recipe = dataclasses.replace(
        recipe,
        weights="random",
        keep_statistics=False,
        resize=8,
        learning_rate=0.02,
        workers=0,
    )
    checkpoint = load_checkpoint(fit("resnet14", few(90, 2), recipe))
    assert checkpoint.metrics["top1"] > 0.9  # at chance without a warm-up
    assert facts[0].weights_top1 == pytest.approx(checkpoint.metrics["top1"], abs=0.1)


@pytest.mark.parametrize("ema", [None, 0.9999])
def test_a_few_steps_are_validated_by_the_weights_that_are_kept(
    here: Path, capfd: pytest.CaptureFixture[str], ema: float | None
) -> None:
    data, recipe = few(128, 2), small(epochs=3, ema=ema, bn_momentum=0.01)
    path = fit("resnet14", data, recipe)
    checkpoint = load_checkpoint(path)
    assert checkpoint.metrics["top1"] > 0.9  # at chance by the running statistics of 12 steps
    pixels, labels = next(pixel_batches(data.val, recipe.preprocess, size=len(data.val)))
    with torch.inference_mode():
        answers = checkpoint.network()(torch.from_numpy(pixels)).argmax(dim=1).numpy()
    assert (answers == labels).mean() == pytest.approx(checkpoint.metrics["top1"])
    assert "warning" not in capfd.readouterr().err


def test_a_run_at_chance_says_so_and_is_not_called_overfitting(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = few(64, 2)
    shuffled = np.random.default_rng(0).integers(0, 2, len(data.train))
    train = [(image, int(at)) for (image, _), at in zip(data.train, shuffled, strict=True)]
    data = dataclasses.replace(data, train=train, val=data.val)
    path = fit("resnet14", data, small(epochs=8))
    assert "cannot be told from chance" in capfd.readouterr().err
    readme = (path.parent / "README.md").read_text()
    assert "cannot be told from chance" in readme
    assert "It overfits" not in readme


class Noisy(nn.Module):
    """Batch norm behind dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.norm = nn.Dropout(0.9), nn.BatchNorm1d(2, momentum=0.3)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = self.norm(self.dropout(values))
        return values


def test_statistics_are_the_mean_over_all_batches_as_evaluation_sees_them() -> None:
    network = Noisy()
    batches = [torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([[4.0, 1.0], [8.0, 5.0]])]
    for _ in range(2):  # nothing is left of the first time
        settle_batch_norm(network, batches)
        assert network.norm.running_mean is not None
        assert network.norm.running_var is not None
        assert network.norm.running_mean.tolist() == [3.5, 2.0]
        assert network.norm.running_var.tolist() == [5.0, 4.0]  # of 2 and 8, and of 0 and 8
        assert network.norm.momentum == 0.3
        assert not any(layer.training for layer in network.modules())


def test_statistics_are_of_the_same_plain_images_every_time() -> None:
    data, recipe = few(100, 3), small(epochs=1)
    first, second = (list(Loaders(data, recipe).statistics_dataloader()) for _ in range(2))
    assert [len(batch.labels) for batch in first] == [32, 32, 32]
    for mine, theirs in zip(first, second, strict=True):
        assert torch.equal(mine.pixels, theirs.pixels)
        assert len(mine.labels.unique()) == 3  # mixed, as in training
    pixels, _ = next(pixel_batches(data.train, recipe.preprocess, size=100))
    plain = {image.tobytes() for image in pixels}
    assert {image.numpy().tobytes() for batch in first for image in batch.pixels} <= plain
    many = dataclasses.replace(data, train=data.train * 20)
    assert len(Loaders(many, recipe).statistics_dataloader()) == STATISTICS_IMAGES // 32
