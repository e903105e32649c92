from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.estimate import seconds_left
from training.recipe import Recipe

FIELDS: dict[str, Any] = {"epochs": 10, "batch_size": 10, "learning_rate": 1e-3}


def left(recipe: Recipe, **changes: Any) -> float:
    given = {"epoch": 0, "batches": 20, "done": 5, "per_batch": 1.0, "held_out": 0, **changes}
    return seconds_left(recipe, **given)


def test_time_left_counts_steps_and_forward_passes() -> None:
    # 20 steps in each of ten epochs, but five are done, and 200 images for batch norm.
    assert left(Recipe(**FIELDS)) == pytest.approx(195 + 10 * 20 / 3)
    held_out = left(Recipe(**FIELDS), held_out=60) - left(Recipe(**FIELDS))
    assert held_out == pytest.approx(10 * 6 / 3)
    assert left(Recipe(**FIELDS), epoch=9) == pytest.approx(15 + 20 / 3)


def test_parts_of_a_batch_are_counted_as_such() -> None:
    parts = Recipe(**FIELDS, accumulate=2)
    assert left(parts, batches=40, done=10, per_batch=0.5) == pytest.approx(left(Recipe(**FIELDS)))
    two = left(Recipe(**FIELDS), held_out=30, world=2)
    assert two == pytest.approx(left(Recipe(**FIELDS), held_out=60))


def test_larger_images_take_longer() -> None:
    growing = Recipe(**FIELDS, crop=100, resize=100, stages=2, train_crop=100, start_train_crop=50)
    # Five epochs at 50 px, five at 100 px, and validation always at 100 px.
    assert left(growing) == pytest.approx(95 + 5 * 20 * 4 + 10 * 4 * 20 / 3)


def test_a_run_says_how_long_it_takes(
    here: Path, command: Callable[..., subprocess.CompletedProcess[str]], monkeypatch: Any
) -> None:
    monkeypatch.setattr("training.fit.write_summary", lambda *_: None)
    flags = ("--recipe.epochs", "1", "--recipe.crop", "8", "--recipe.resize", "8")
    ran = command("training", "--model", "resnet14", "--data", "digits", *flags)
    assert ran.returncode == 0, ran.stderr
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("after ")]
    assert re.search(r"^after \d+ steps: about .* for 1 epoch, until .*memory \d\S* GiB", line)
