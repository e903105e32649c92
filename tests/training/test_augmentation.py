"""The picture of what augmentation does."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from few_digits import few_digits
from PIL import Image

from training.checkpoint import load_checkpoint
from training.fit import fit
from training.recipe import Recipe
from training.summary.augmentation import AUGMENTATION, augmentation_png

WIDTH, HEIGHT = 16 + 4 * (2 * 112 + 4 + 16), 16 + 4 * (112 + 16)


def recipe(**fields: Any) -> Recipe:
    shape = {"resize": 8, "crop": 8, "min_scale": 1.0, "flip": False}
    return Recipe(**{"epochs": 1, "batch_size": 16, "learning_rate": 0.01, **shape, **fields})


def tiles(png: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Returns uint8 (images, 2, 112, 112, 3): each image plain and augmented."""
    sheet = np.asarray(Image.open(io.BytesIO(png)))
    assert sheet.shape[1:] == (WIDTH, 3)
    corners = [
        (top, left) for top in range(16, sheet.shape[0], 128) for left in range(16, WIDTH - 16, 244)
    ]
    pairs = [
        [sheet[top : top + 112, start : start + 112] for start in (left, left + 116)]
        for top, left in corners
    ]
    return np.array(pairs)


def test_pairs_differ_by_what_the_recipe_does() -> None:
    data = few_digits("written", train=96, val=32)
    state = torch.random.get_rng_state()
    same = tiles(augmentation_png(data, recipe()))
    assert same.shape[0] == 16
    assert np.array_equal(same[:, 0], same[:, 1])
    shifted = tiles(augmentation_png(data, recipe(pad=3)))
    assert np.array_equal(shifted[:, 0], same[:, 0])
    assert not np.array_equal(shifted[:, 0], shifted[:, 1])
    mixed = tiles(augmentation_png(data, recipe(mixup=1.0)))
    assert not np.array_equal(mixed[:, 0], mixed[:, 1])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_few_images_and_those_that_cannot_be_read(tmp_path: Path) -> None:
    data = few_digits("written", train=20, val=10)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    data = dataclasses.replace(data, train=[*data.train[:5], (broken, 0)])
    sheet = Image.open(io.BytesIO(augmentation_png(data, recipe(batch_size=6))))
    assert sheet.size == (WIDTH, 16 + 2 * 128)  # two rows


def test_a_run_has_the_picture_before_its_first_epoch(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training.fit.write_summary", lambda *_: None)
    path = fit("resnet14", few_digits("written", train=96, val=32), recipe(calibrate=False))
    assert load_checkpoint(path).metrics["images"] == 32
    said = capfd.readouterr().err
    assert said.index(AUGMENTATION) < said.index("epoch 1/1")
    with Image.open(path.parent / AUGMENTATION) as sheet:
        assert sheet.size == (WIDTH, HEIGHT)
