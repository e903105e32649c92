from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from training.data import Sample
from training.datasets import load_data
from training.fit import fit
from training.options import FolderOptions
from training.recipe import Recipe
from training.summary.mistakes import mistake_lines, mistakes_png, names_of, worst_mistakes

LABELS = ("cat", "d|g", "eel")
COLOURS = ("red", "lime", "blue", "white", "black")


def samples() -> list[Sample]:
    return [(Image.new("RGB", (40, 20), colour), place % 3) for place, colour in enumerate(COLOURS)]


def test_the_surest_wrong_answers_come_first() -> None:
    answers, scores = np.array([1, 1, 0, 0, 2]), np.array([0.4, 0.99, 0.9, 1.0, 0.6])
    names = [f"{colour}.png" for colour in COLOURS]
    found = worst_mistakes(samples(), names, answers, scores, LABELS, 2)
    assert [(each.image, each.label, each.answer, each.score) for each in found] == [
        ("blue.png", "eel", "cat", 0.9),
        ("black.png", "d|g", "eel", 0.6),
    ]
    with Image.open(io.BytesIO(found[0].thumbnail)) as picture:
        assert max(picture.size) >= 96
        red, green, blue = picture.convert("RGB").resize((1, 1)).getpixel((0, 0))
    assert (red < 40, green < 40, blue > 200) == (True, True, True)

    rows = [line for line in mistake_lines(found) if line.startswith("| ") and "---" not in line]
    assert rows[1:] == [
        "| 1 | blue.png | eel | cat | 90.0 % |",
        "| 2 | black.png | d\\|g | eel | 60.0 % |",
    ]
    with Image.open(io.BytesIO(mistakes_png(found))) as sheet:
        assert sheet.width > 2 * 192
    assert mistake_lines(()) == []


def test_images_are_called_by_their_place_in_the_data(tmp_path: Path) -> None:
    inside: list[Sample] = [(tmp_path / "cat" / "1.png", 0), (Path("/elsewhere/2.png"), 1)]
    assert names_of(inside, str(tmp_path)) == ["cat/1.png", "/elsewhere/2.png"]
    assert names_of(samples()[:2], None) == ["held-out image 0", "held-out image 1"]


def test_a_run_shows_its_mistakes_and_skips_what_cannot_be_read(here: Path) -> None:
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (here / "pets" / label).mkdir(parents=True)
        for number in range(12):  # noise, which nothing can tell apart
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(here / "pets" / label / f"{number}.png")
    options = FolderOptions(skip_unreadable=True)
    data = load_data("pets", options)
    first = data.val[0][0]
    assert isinstance(first, Path)
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])  # its header is that of an image
    recipe = Recipe(
        epochs=1,
        batch_size=8,
        learning_rate=1e-3,
        resize=32,
        crop=32,
        min_scale=1.0,
        calibrate=False,
    )
    try:
        run = fit("resnet14", data, recipe, options=options).parent
    except UserError as error:
        pytest.fail(str(error))
    text = (run / "README.md").read_text()
    shown = re.findall(r"^\| \d+ \| (\S+) \| (cat|dog) \| (cat|dog) \| ", text, flags=re.MULTILINE)
    assert shown
    held_out = {str(path.relative_to("pets")) for path, _ in data.val[1:]}  # type: ignore[union-attr]
    assert {name for name, _, _ in shown} <= held_out
    assert all(name.startswith(label) and label != answer for name, label, answer in shown)
    assert (run / "mistakes.png").is_file()
