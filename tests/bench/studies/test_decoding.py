"""What a study of decoding counts, and the page it makes; figures only of made-up networks."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.studies import decoding
from bench.studies.command import Study
from bench.studies.decoding import GAPS, changes_of, shipped_photos
from core.preprocess import GAP, Preprocess
from training.data import sample_photos

RESIZE = 32


def network(logits: Any) -> Any:
    return SimpleNamespace(preprocess=Preprocess(resize=RESIZE, crop=28), module=logits)


def brightness(pixels: torch.Tensor) -> torch.Tensor:
    means = pixels.float().mean(dim=(1, 2, 3))
    return torch.stack([means, 255 - means], dim=1) / 99


def exact_sum(pixels: torch.Tensor) -> torch.Tensor:
    """Answers another class for nearly every other change."""
    return torch.nn.functional.one_hot(pixels.long().sum(dim=(1, 2, 3)) % 97, 97).float()


def photo(side: int) -> bytes:
    return decoding.encode(sample_photos(1)[0].resize((side, side)), "JPEG", quality=95)


def test_a_gap_changes_what_is_twice_as_large_and_no_more() -> None:
    photos = [photo(int(2 * gap * RESIZE) + 8) for gap in GAPS]
    changes = changes_of(photos, network(brightness))
    shrunk = {gap: [change.most > 0 for change in changes[gap]] for gap in GAPS}
    assert shrunk == {gap: [other >= gap for other in GAPS] for gap in GAPS}
    for change in (change for gap in GAPS for change in changes[gap] if change.most):
        assert 0 < change.mean < 5
        assert 0 <= change.score < 0.02
        assert not change.other
    assert changes[3.0][0] == (0, 0, 0, False, 0)


def test_other_answers_are_counted() -> None:
    (small, large) = changes_of([photo(100), photo(300)], network(exact_sum))[GAP]
    assert (small.most, small.score, small.other) == (0, 0, False)
    assert large.other
    assert (small.points, large.points) == pytest.approx((0, -100 * large.score))
    assert large.score == pytest.approx((np.e - 1) / (np.e + 96), abs=1e-6)


def test_shipped_photos_are_repeatable_jpegs_of_many_sizes() -> None:
    photos = list(shipped_photos(4))
    assert photos == list(shipped_photos(4))
    sizes = {Image.open(io.BytesIO(data)).size for data in photos}
    assert len(sizes) == 4
    assert all(Image.open(io.BytesIO(data)).format == "JPEG" for data in photos)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(decoding, "PHOTOS", 4)
    monkeypatch.setattr(decoding, "TIMED", ((50, 40, "JPEG"), (200, 150, "PNG")))
    monkeypatch.setattr(decoding, "load_network", lambda *_: network(brightness))
    return monkeypatch


@pytest.mark.usefixtures("quick")
def test_the_page_holds_times_and_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Study(name="decoding", seconds=0.0, out=tmp_path)()
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == str(tmp_path / "study-decoding.md")
    assert "0 of 4 photos" in printed
    assert re.search(r"\b0\.00 %, within .*\b0\.5 %", printed)
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    timed = [row for row in rows if row[0].removeprefix("| ") in ("50x40 JPEG", "200x150 PNG")]
    assert [row[1] for row in timed] == 2 * ["all pixels", "1", "1.5", "2", "3"]
    assert all(float(cell) >= 0 for row in timed for cell in row[2:5])
    assert [row[1] for row in rows[-5:]] == ["4 of 4"] * 5
    assert rows[-1][0] == "| one pixel off"
    assert re.search(r"\b0 of 4 [a-z ]*: 0\.00 %", printed)
    assert "+0.00 points" in printed


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("p50", "ratio"), [(0.002, "1.00"), (0.0, "-")])  # 0: a coarse clock
def test_times_are_told_as_ratios_to_all_pixels(
    p50: float, ratio: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = SimpleNamespace(p50=p50)
    monkeypatch.setattr(decoding, "measure", lambda calls, *_, **__: dict.fromkeys(calls, times))
    found = decoding._times(Preprocess(resize=RESIZE, crop=28), 0.0)
    assert [row[-1] for row in found.rows] == [ratio] * 10


def test_images_of_a_folder_take_the_place_of_the_photos(
    quick: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick.setattr(decoding, "load_network", lambda *_: network(exact_sum))
    folder = tmp_path / "mine"
    folder.mkdir()
    for side in (100, 110, 300):
        (folder / f"{side}.jpg").write_bytes(photo(side))
    Study(name="decoding", images=folder, seconds=0.0, out=tmp_path)()
    printed = capsys.readouterr().out
    assert "1 of 3 photos" in printed
    assert re.search(r"\b33\.33 %, above .*\b0\.5 %", printed)
    assert re.search(r" -0\.\d+ points", printed)
    assert f"Photos: {folder}." in printed
