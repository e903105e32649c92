"""The figures of a data set with a part for tests."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from core.errors import UserError
from core.preprocess import ImageError
from models.classifier import Classifier
from training.checkpoint import checkpoint_path, load_checkpoint, run_folder
from training.data import Sample
from training.datasets import load_data
from training.final import evaluate
from training.loader import Loaders
from training.recipe import Recipe

MakeImages = Callable[..., list[Path]]
RECIPE = Recipe(epochs=1, batch_size=4, learning_rate=1e-3, resize=8, crop=8)


class Brightness(torch.nn.Module):
    """Answers 1 for a bright image and 0 for a dark one."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        bright = pixels.float().mean(dim=(1, 2, 3)) * self.scale
        return torch.stack([255 - bright, bright], dim=1)


def grey(*levels: int) -> list[Sample]:
    return [(Image.new("RGB", (9, 9), (level,) * 3), 1) for level in levels]


def test_right_answers_are_counted_over_all_batches(tmp_path: Path) -> None:
    network: Classifier = Brightness()  # type: ignore[assignment]
    outputs = evaluate(network, grey(250, 240, 230, 220, 210, 9), RECIPE)
    assert outputs.answers == (5, 6)
    assert outputs.answers.top1 == pytest.approx(5 / 6)
    assert outputs.labels.tolist() == [1] * 6
    assert outputs.logits.shape == (6, 2)
    (tmp_path / "broken.png").write_bytes(b"no image")
    broken: Sample = (tmp_path / "broken.png", 1)
    with pytest.raises(ImageError, match=r"broken\.png: .*--skip-unreadable"):
        evaluate(network, [broken], RECIPE)
    reported: list[ImageError] = []
    some = evaluate(network, [broken, *grey(250)], RECIPE, report=reported.append)
    assert some.answers == (1, 1)
    assert len(reported) == 1
    with pytest.raises(UserError) as caught:
        evaluate(network, [broken], RECIPE, report=reported.append)
    assert not isinstance(caught.value, ImageError)  # no image is left, not this one alone
    assert len(reported) == 2


def test_a_run_is_tested_once_with_the_weights_it_kept(
    here: Path, make_images: MakeImages, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    for part, count in (("Training", 10), ("Testing", 4)):
        for label in ("cat", "dog"):
            make_images(here / "pets" / part / label, count)
    flags = (
        "--model resnet14 --data pets --recipe-name scratch --recipe.epochs 1 --recipe.crop 8 "
        "--recipe.resize 8 --recipe.batch-size 4 --recipe.workers 0"
    )
    ran = command("training", *shlex.split(flags))
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"pets: .*Training/, 20 %.* Testing/", ran.stderr)
    assert re.search(r"\b16 images .*\b4 .*\b8 .*\b2 classes", ran.stderr)
    run = run_folder("resnet14", "pets")
    checkpoint = load_checkpoint(checkpoint_path(run))
    data = load_data("pets")
    network, right = checkpoint.network(), 0
    for batch in Loaders(data, RECIPE).val_dataloader():
        assert len(batch.labels)
    for pixels, label in ((RECIPE.preprocess(Image.open(str(s))), label) for s, label in data.test):
        with torch.inference_mode():
            right += int(network(torch.from_numpy(pixels[None].copy())).argmax()) == label
    assert checkpoint.metrics["images"] == 4
    assert checkpoint.metrics["test_images"] == 8
    assert checkpoint.metrics["test_top1"] == right / 8
    assert f"test top-1 {right / 8:.1%} on 8" in ran.stdout
    assert "top-1 on 8 test images" in (run / "README.md").read_text().splitlines()[0]
    assert (run / "images.csv").read_text().count("test,") == 8
