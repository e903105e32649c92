from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from core.errors import UserError
from training.checkpoint import checkpoint_path, load_checkpoint, run_folder
from training.data import pixel_batches
from training.datasets import load_data
from training.recipes import RECIPES

Command = Callable[..., subprocess.CompletedProcess[str]]

RUN = run_folder("mobilenet_v3", "digits")


def test_a_run_leaves_a_checkpoint_with_all_it_needs(in_trained: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_path(RUN))
    assert checkpoint.model == "mobilenet_v3_large"
    assert checkpoint.labels == tuple("0123456789")
    assert checkpoint.preprocess.crop == 32
    assert checkpoint.metrics["images"] == 359
    assert int(checkpoint.confusion.sum()) == 359
    top1 = float(checkpoint.confusion.trace()) / 359
    assert checkpoint.metrics["top1"] == pytest.approx(top1)
    assert [epoch.epoch for epoch in checkpoint.history] == [1, 2]
    with (RUN / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert float(rows[-1]["val_top1"]) == pytest.approx(checkpoint.metrics["top1"])
    assert json.loads((RUN / "run.json").read_text())["recipe"]["epochs"] == 2
    assert sorted(path.name for path in RUN.parent.iterdir()) == [RUN.name]
    assert not list(RUN.glob("*last*"))


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
        with pytest.raises(UserError, match=f"{path}: ") as e:
            load_checkpoint(path)
        assert "\n" not in str(e.value)


def test_a_checkpoint_of_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(UserError, match=f"{path}: "):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model", "mobilenet", "--data", "digits"], r"'mobilenet': .*mobilenet_v"),
        (["--model", "mobilenet_v3", "--data", "digit"], r"'digit': .*digits"),
        (["--model", "mobilenet_v3", "--data", "digits", "--recipe-name", "x"], r"'x': .*scratch"),
        (
            ["--model", "mobilenet_v3", "--data", "digits", "--recipe.epochs", "0"],
            r"epochs is 0: .*\b1$",
        ),
        (["--model", "vgg16", "--data", "digits", "--recipe.zero-gamma"], r"zero_gamma is true: "),
        (
            ["--model", "resnet14", "--data", "digits", "--recipe.weights", "imagenet"],
            r"resnet14: .*--recipe-name scratch",
        ),
        (
            ["--model", "resnet14", "--data", "digits", "--recipe.teacher", "efficientnet_lite0"],
            r"efficientnet_lite0 .*\b1000\b.*\(tench, \.\.\.\).*\b10\b",
        ),
        (
            ["--model", "resnet14", "--data", "digits", "--recipe.batch-size", "1439"],
            r"batch_size is 1439, .*\b1438\b.*digits",
        ),
        (["--model", "resnet14", "--data", "digits", "--resume"], r"runs/.*resnet14-digits"),
    ],
)
def test_a_mistake_on_the_command_line_ends_in_one_line(
    here: Path, command: Command, arguments: list[str], reason: str
) -> None:
    ran = command("training", *arguments)
    assert ran.returncode == 1
    assert ran.stdout == ""
    line = ran.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert re.search(reason, line)
    assert "Traceback" not in ran.stderr
    assert not list(here.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        ("--model resnet14 --recipe.epoch 3", "--recipe.epoch"),
        ("--modle resnet14", "--modle"),
        ("--model resnet14 --recipe.epochs three", "three"),
        ("--model resnet14 --recipe-name scrach", "error: .*'scrach': .*scratch"),
        ("--model resnet14 --recipe.epochs 0", "error: epochs is 0: "),
        ("--model resnet14 --recipe.learning-rate nan", "error: learning_rate is nan: "),
    ],
)
@pytest.mark.parametrize("more", [[], ["--fresh"]])
def test_a_mistyped_flag_is_told_before_any_image_is_read(
    here: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    mistake: str,
    reason: str,
    more: list[str],
) -> None:
    run_folder("resnet14", "digits").mkdir(parents=True)
    monkeypatch.setattr("training.__main__.load_data", lambda *_: pytest.fail("it reads images"))
    ran = command("training", *mistake.split(), "--data", "digits", *more)
    assert ran.returncode != 0
    assert re.search(reason, ran.stderr)
    assert "finished run" not in ran.stderr


def test_help_shows_the_fields_of_the_recipe(command: Command) -> None:
    ran = command("training", "--help")
    assert "--recipe.learning-rate" in ran.stdout
    assert str(RECIPES["scratch"](224).learning_rate) in ran.stdout
