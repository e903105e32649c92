"""Training on classes of different sizes: losses, draws, and the figures that tell."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from core.errors import UserError
from training.checkpoint import checkpoint_path, load_checkpoint, run_folder
from training.loader import TrainingOrder
from training.losses import class_weights, make_loss
from training.recipe import Recipe
from training.records import MONITORS
from training.run import PartialRun
from training.summary.confusion import balanced_accuracy, chance, class_results, macro_f1

Command = Callable[..., subprocess.CompletedProcess[str]]


def recipe(**fields: Any) -> Recipe:
    return Recipe(**{"epochs": 1, "batch_size": 4, "learning_rate": 1e-3, **fields})


def test_weights_of_classes_by_hand() -> None:
    images = [90, 10, 0]
    balanced = class_weights(recipe(class_weights="balanced"), images)
    assert balanced == pytest.approx([100 / (2 * 90), 100 / (2 * 10), 0])
    effective = class_weights(recipe(class_weights="effective", effective_beta=0.9), images)
    numbers = [(1 - 0.9**n) / (1 - 0.9) for n in (90, 10)]
    assert effective[1] / effective[0] == pytest.approx(numbers[0] / numbers[1])
    for weights in (balanced, effective):
        assert weights @ images / 100 == pytest.approx(1)
    plain = class_weights(recipe(class_weights="effective", effective_beta=0.0), images)
    assert plain[:2] == pytest.approx([1, 1])


def test_without_weights_and_focus_the_loss_is_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, classes = torch.randn(8, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])
    shares = torch.rand(8, 3)
    shares /= shares.sum(dim=1, keepdim=True)
    plain = make_loss(recipe(), [1, 1, 1])
    assert isinstance(plain, torch.nn.CrossEntropyLoss)
    ones = make_loss(recipe(class_weights="balanced"), [5, 5, 5])
    for targets in (classes, shares):
        torch.testing.assert_close(ones(logits, targets), plain(logits, targets))


def test_focal_loss_by_hand() -> None:
    logits, classes = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    loss = make_loss(
        recipe(class_weights="balanced", focal_gamma=2.0, label_smoothing=0.2), [30, 10]
    )
    scores = logits.softmax(dim=1)[:, 0]
    smoothed = functional.cross_entropy(logits, classes, label_smoothing=0.2, reduction="none")
    expected = (40 / 60 * (1 - scores) ** 2 * smoothed).mean()
    torch.testing.assert_close(loss(logits, classes), expected)
    # Of an image that was mixed, as of its two, by their shares.
    mixed, other = torch.tensor([[0.7, 0.3]] * 2), torch.tensor([1, 1])
    both = 0.7 * loss(logits, classes) + 0.3 * loss(logits, other)
    torch.testing.assert_close(loss(logits, mixed), both)
    certain = torch.tensor([[200.0, 0.0]], requires_grad=True)
    make_loss(recipe(focal_gamma=0.5), [1, 1])(certain, torch.tensor([0])).backward()
    assert certain.grad is not None
    assert certain.grad.isfinite().all()


def test_balanced_draws_are_of_each_class_alike() -> None:
    labels = np.array([0] * 40 + [1] * 4 + [2] * 2)
    plan = recipe(sampler="balanced")
    order = TrainingOrder(46, plan, 0, 1, labels)
    order.set_epoch(3)
    draws = [number for _, number in order]
    assert len(draws) == 44
    assert [number for _, number in order] == draws  # of an epoch that is resumed, too
    assert len(set(draws)) == 44  # repeated images have numbers of their own, for augmentation
    counts = Counter(labels[number % 46] for number in draws)
    assert max(counts.values()) - min(counts.values()) <= 3
    times = Counter(number % 46 for number in draws)
    assert max(times[index] for index in range(40)) == 1
    assert max(times[index] for index in (44, 45)) - min(times[index] for index in (44, 45)) <= 1
    order.set_epoch(4)
    assert [number for _, number in order] != draws
    shared = [TrainingOrder(46, plan, rank, 2, labels) for rank in (0, 1)]
    for each in shared:
        each.set_epoch(3)
    together = [[number for _, number in each] for each in shared]
    steps = [
        a + b
        for i in range(0, 22, 2)
        for a, b in [(together[0][i : i + 2], together[1][i : i + 2])]
    ]
    assert [number for step in steps for number in step] == draws


def test_macro_figures_are_those_of_torchmetrics() -> None:
    random = np.random.default_rng(0)
    truth = random.choice(4, 200, p=[0.7, 0.2, 0.06, 0.04])
    answers = np.where(random.random(200) < 0.7, truth, random.integers(0, 4, 200))
    confusion = np.zeros((4, 4), dtype=np.int64)
    np.add.at(confusion, (truth, answers), 1)
    results = class_results(confusion, tuple("abcd"))
    tensors = torch.from_numpy(answers), torch.from_numpy(truth)
    f1, recall = MulticlassF1Score(4, average="macro"), MulticlassAccuracy(4, average="macro")
    assert macro_f1(results) == pytest.approx(f1(*tensors).item())
    assert balanced_accuracy(results) == pytest.approx(recall(*tensors).item())


def test_a_network_that_tells_small_classes_is_no_chance() -> None:
    # The same answer every time would get 100 of 110.
    assert chance(np.array([[93, 7], [0, 10]])) is None
    assert chance(np.array([[100, 0], [10, 0]])) is not None


def test_two_corrections_of_one_imbalance_are_refused() -> None:
    with pytest.raises(UserError, match=r"class_weights is effective .*sampler is balanced"):
        recipe(class_weights="effective", sampler="balanced").check()


def test_a_plan_of_an_earlier_version_is_resumed(here: Path) -> None:
    partial = PartialRun(here / "runs" / "a")
    old = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
    plan = {"model": "a", "data": "b", "labels": ["c"], "recipe_name": "d", "recipe": old}
    partial.start(plan, b"")
    saved = partial.saved_plan()["recipe"]
    assert Recipe(**saved) == recipe()
    assert saved["monitor"] == "none"


@pytest.fixture
def imbalanced(here: Path) -> Path:
    """Returns a folder of 36 dark images and of 6 in each of eleven classes of other shades."""
    random = np.random.default_rng(0)
    for label in range(12):
        (here / "shades" / f"{label:02}").mkdir(parents=True)
        for number in range(6 if label else 36):
            pixels = random.integers(20 * label, 20 * label + 20, (9, 9, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(here / "shades" / f"{label:02}" / f"{number}.png")
    return here / "shades"


@pytest.mark.parametrize(
    "flags",
    [
        "--recipe.class-weights balanced --recipe.focal-gamma 2 --recipe.mixup 0.2",
        "--recipe.sampler balanced --recipe.patience 3",
    ],
)
def test_a_run_on_imbalanced_classes_tells_what_they_get(
    imbalanced: Path, command: Command, flags: str
) -> None:
    ran = command(
        "training",
        *shlex.split(
            "--model resnet14 --data shades --recipe-name small --recipe.epochs 2 --recipe.crop 8 "
            "--recipe.resize 8 --recipe.pad 0 --recipe.batch-size 16 --recipe.workers 0 "
            f"--recipe.monitor macro_f1 {flags}"
        ),
    )
    assert ran.returncode == 0, ran.stderr
    run = run_folder("resnet14", "shades")
    checkpoint = load_checkpoint(checkpoint_path(run))
    results = class_results(checkpoint.confusion.numpy(), checkpoint.labels)
    metrics = checkpoint.metrics
    assert metrics["macro_f1"] == pytest.approx(macro_f1(results))
    assert metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy(results))
    assert metrics["top1"] <= metrics["top5"] <= 1
    kept = checkpoint.history[-1]
    assert kept.val_macro_f1 == max(MONITORS["macro_f1"].better(e) for e in checkpoint.history)
    assert re.search(rf"epoch {kept.epoch}/2, .*macro-F1: .*macro-F1 [\d.]+%", ran.stdout)
    page = (run / "README.md").read_text()
    assert f"macro-F1 {metrics['macro_f1']:.1%}".replace("%", " %") in page
    assert f"Epoch {kept.epoch} was kept" in page
    header = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"val_macro_f1", "val_balanced_accuracy", "val_top5"} < set(header)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--recipe.focal-gamma -1", r"focal_gamma is -1\.0: .*\b0$"),
        ("--recipe.effective-beta 1", r"effective_beta is 1\.0: "),
        ("--recipe.class-weights balanced --recipe.sampler balanced", r"use one of them"),
    ],
)
def test_a_mistake_ends_in_one_line(
    imbalanced: Path, command: Command, flags: str, reason: str
) -> None:
    ran = command("training", "--model", "resnet14", "--data", "shades", *shlex.split(flags))
    assert ran.returncode == 1
    assert re.search(reason, ran.stderr.strip().splitlines()[-1])
    assert "Traceback" not in ran.stderr
