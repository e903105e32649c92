"""The range test of learning rates."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from few_digits import few_digits

from core.errors import UserError
from training.rate_finder import find_rate
from training.recipe import Recipe

FLAGS = shlex.split(
    "--model resnet14 --data digits --recipe.crop 8 --recipe.resize 8 --find-learning-rate"
)


def test_a_rate_is_suggested_and_nothing_is_written(
    here: Path,
    command: Callable[..., subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.rate_finder.STEPS", 60)
    ran = command("training", *FLAGS)
    assert ran.returncode == 0, ran.stderr[-500:]
    *rows, last = ran.stdout.splitlines()
    rates = [float(row.split()[0]) for row in rows]
    assert rates == sorted(rates)
    assert rates[0] < 1e-4 < 1e-1 < rates[-1]
    found = re.search(r"--recipe\.learning-rate (\S+)$", last)
    assert found
    assert 1e-4 < float(found[1]) < 0.5  # below it learns nothing
    assert not list(here.iterdir())


def test_a_loss_that_never_falls_is_an_error(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = "training.module.ClassifierModule.training_step"
    monkeypatch.setattr(
        step, lambda module, batch, index: module.network(batch.pixels).sum() * 0 + 1.0
    )
    monkeypatch.setattr("training.rate_finder.STEPS", 15)
    recipe = Recipe(epochs=1, batch_size=32, learning_rate=1e-3, resize=8, crop=8)
    data = few_digits("written", train=96, val=32)
    with pytest.raises(UserError, match=r"no learning rate from 1e-06 to 1 makes the loss fall"):
        find_rate("resnet14", data, recipe, "cpu")
