from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.errors import UserError
from training.checkpoint import checkpoint_path, load_checkpoint, run_folder
from training.data import load_data, pixel_batches
from training.module import warmup_cosine
from training.recipe import RECIPES, default_recipe, digits

RUN = run_folder("mobilenet_v3", "digits")


def test_a_run_leaves_a_checkpoint_with_all_it_needs(in_trained: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_path(RUN))
    assert checkpoint.model == "mobilenet_v3_large"
    assert checkpoint.labels == tuple("0123456789")
    assert checkpoint.preprocess.crop == 32
    assert checkpoint.metrics["images"] == 359
    with (RUN / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val_top1"]]
    assert len(rows) == 2
    assert float(rows[-1]["val_top1"]) == pytest.approx(checkpoint.metrics["top1"])
    assert json.loads((RUN / "recipe.json").read_text())["epochs"] == 2
    assert sorted(path.name for path in RUN.parent.iterdir()) == [RUN.name]


def test_the_loaded_network_reaches_the_recorded_top1(in_trained: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_path(RUN))
    data = load_data("digits")
    pixels, labels = next(pixel_batches(data.val, checkpoint.preprocess, size=len(data.val)))
    with torch.inference_mode():
        predictions = checkpoint.network()(torch.from_numpy(pixels)).argmax(dim=1).numpy()
    # One image of 359 may sit on the fence between two orders of summation.
    assert (predictions == labels).mean() == pytest.approx(checkpoint.metrics["top1"], abs=1 / 359)


def test_a_damaged_checkpoint_is_said_in_one_line(in_trained: Path, tmp_path: Path) -> None:
    data = checkpoint_path(RUN).read_bytes()
    for name, content in (
        ("cut", data[: len(data) // 2]),
        ("text", b"hello"),
        ("empty", b""),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a checkpoint of this project, or damaged") as e:
            load_checkpoint(path)
        assert "\n" not in str(e.value)


def test_a_checkpoint_of_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(UserError, match="not a checkpoint of this project"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_trained_by(name: str) -> None:
    recipe = RECIPES[name]()
    assert recipe.preprocess.crop == recipe.crop
    assert default_recipe("digits") == "digits"
    assert default_recipe("some/folder") == "scratch"


def test_impossible_recipes() -> None:
    for changes, reason in (
        ({"epochs": 0}, "epochs is 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"min_scale": 0.0}, "min_scale is 0"),
        ({"crop": 65}, "crop must lie in 1..resize"),
    ):
        with pytest.raises(UserError, match=reason):
            dataclasses.replace(digits(), **changes).check()


@pytest.mark.parametrize("steps", [1, 2, 4, 132])
def test_the_learning_rate_rises_then_falls(steps: int) -> None:
    factors = [warmup_cosine(step, steps, 0.25) for step in range(steps)]
    peak = factors.index(max(factors))
    assert max(factors) == 1
    assert peak == int(0.25 * steps)
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert min(factors) > 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model", "mobilenet", "--data", "digits"], "unknown model 'mobilenet': did you mean"),
        (["--model", "mobilenet_v3", "--data", "digit"], "unknown data 'digit'"),
        (["--model", "mobilenet_v3", "--data", "digits", "--recipe-name", "x"], "unknown recipe"),
        (
            ["--model", "mobilenet_v3", "--data", "digits", "--recipe.epochs", "0"],
            "epochs is 0: it must be at least 1",
        ),
    ],
)
def test_a_mistake_on_the_command_line_ends_in_one_line(
    here: Path, arguments: list[str], reason: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "training", *arguments], capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert ran.stdout == ""
    (line,) = ran.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert reason in line
    assert not list(here.iterdir())


def test_help_shows_the_fields_of_the_recipe() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "training", "--help"], capture_output=True, text=True, check=True
    )
    assert "--recipe.learning-rate" in ran.stdout
    assert str(digits().learning_rate) in ran.stdout
