from __future__ import annotations

import numpy as np
import pytest

from core.image_statistics import STATISTICS, image_statistics


def plain(*colour: int, side: int = 32) -> np.ndarray:
    return np.full((1, side, side, len(colour)), colour, np.uint8)


def test_an_even_colour_has_its_luma_and_no_contrast() -> None:
    found = image_statistics(plain(255, 0, 51))
    assert tuple(found) == STATISTICS
    assert found["brightness"][0] == pytest.approx(0.299 + 0.114 * 0.2, abs=1e-5)
    assert found["saturation"][0] == pytest.approx(1.0)
    assert found["contrast"][0] == pytest.approx(0.0, abs=1e-6)
    assert found["sharpness"][0] == pytest.approx(0.0, abs=1e-6)


def test_stripes_have_contrast_and_half_the_sharpness_of_a_chessboard() -> None:
    rows = np.arange(32) % 2
    stripes = np.broadcast_to(rows[:, None], (32, 32))
    board = stripes ^ rows[None, :]
    batch = np.repeat(np.stack([stripes, board])[..., None] * np.uint8(255), 3, axis=-1)
    found = image_statistics(batch)
    assert found["contrast"] == pytest.approx([0.5, 0.5])
    assert found["sharpness"] == pytest.approx([0.5, 1.0])


@pytest.mark.parametrize("colour", [(90,), (90, 7), (90, 90, 90), (90, 90, 90, 7)])
def test_grey_has_no_saturation_and_alpha_does_not_count(colour: tuple[int, ...]) -> None:
    found = image_statistics(plain(*colour))
    assert found["saturation"][0] == 0
    assert found["brightness"][0] == pytest.approx(90 / 255)


def test_a_large_image_has_about_the_statistics_of_a_small_one() -> None:
    gradient = np.linspace(0, 255, 512, dtype=np.uint8)
    large = np.broadcast_to(gradient[:, None, None], (512, 512, 3))[None]
    found, all_of_it = image_statistics(large)["brightness"], large.mean() / 255
    assert found[0] == pytest.approx(all_of_it, abs=0.01)
    assert image_statistics(large[:, :1, :1])["sharpness"][0] == 0  # one pixel has no neighbour
