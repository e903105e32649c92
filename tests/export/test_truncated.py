from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from core.errors import UserError
from export.network import load_network
from export.prover import Prover
from export.samples import stack
from training.__main__ import _load, _parse
from training.checkpoint import KEY, checkpoint_path, read_checkpoint, run_folder
from training.data import open_image
from training.datasets import load_data
from training.loader import Samples
from training.recipe import Recipe

Command = Callable[..., subprocess.CompletedProcess[str]]
MODEL = ("--model", "mobilenet_v3", "--data", "cut")


@pytest.fixture
def cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder of digits as JPEGs without their end marker; the work goes on beside it."""
    monkeypatch.chdir(tmp_path)
    digits = load_data("digits")
    for index, (image, label) in enumerate(digits.val[:100]):
        folder = tmp_path / "cut" / digits.labels[label]
        folder.mkdir(parents=True, exist_ok=True)
        open_image(image).save(folder / f"{index}.jpg")
    for file in (tmp_path / "cut").rglob("*.jpg"):
        file.write_bytes(file.read_bytes()[:-2])
    return tmp_path / "cut"


def test_export_takes_what_training_took(cut: Path, trained: Path) -> None:
    saved = read_checkpoint(trained / checkpoint_path(run_folder("mobilenet_v3", "digits")))
    saved[KEY]["recipe"]["truncated"] = "accept"
    path = checkpoint_path(run_folder("mobilenet_v3", "cut"))
    path.parent.mkdir(parents=True)
    torch.save(saved, path)
    network = load_network("mobilenet_v3", "cut")
    pixels = Prover(network, max_batch=8, macs=1).golden_pixels
    assert (pixels == stack(network.held_out, network.preprocess, "accept")[:8]).all()
    with pytest.raises(UserError, match=r"\.jpg: a JPEG that is cut short"):
        stack(network.calibration, network.preprocess)


def test_training_takes_them_where_the_flag_says_so(
    cut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["training", *MODEL, "--truncated", "accept"])
    args = _parse()
    assert args.recipe.truncated == "accept"
    data = _load(args)
    for augment in (True, False):
        pixels, label = Samples(data.train, args.recipe, augment=augment)[(0, 0)]
        assert label == data.train[0][1]
        assert pixels.shape == (args.recipe.crop, args.recipe.crop, 3)


def test_without_the_flag_the_file_is_named(cut: Path, command: Command) -> None:
    ran = command("training", *MODEL, "--recipe-name", "scratch", "--recipe.batch-size", "4")
    assert ran.returncode == 1
    assert ".jpg: a JPEG that is cut short: only its end marker is missing" in ran.stderr


def test_a_policy_that_is_none() -> None:
    recipe = Recipe(epochs=1, batch_size=1, learning_rate=1, truncated="x")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="truncated is 'x': it must be one of refuse, accept"):
        recipe.check()
