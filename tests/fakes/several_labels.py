"""Images with any number of labels, and a run that was trained on them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

LABELS = ("blue", "green", "red")
SHARES = {"red": 0.5, "green": 0.4, "blue": 0.25}
SIDE = 8


def mark_images(folder: Path, count: int, *, seed: int = 0) -> dict[str, tuple[str, ...]]:
    """Makes images whose bright channels are their labels, and returns these by file name."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    labels = {}
    for number in range(count):
        pixels = random.integers(0, 90, (SIDE, SIDE, 3))
        had = [name for name in SHARES if random.random() < SHARES[name]]
        for name in had:
            pixels[..., list(SHARES).index(name)] += 110
        name = f"{number:03}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
        labels[name] = tuple(sorted(had))
    return labels


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> Path:
    """Writes a CSV file."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def marked_folder(folder: Path, count: int) -> dict[str, tuple[str, ...]]:
    """Makes such images in ``folder``, with labels.csv beside them, and returns their labels."""
    labels = mark_images(folder / "images", count)
    rows = [(name, "|".join(had)) for name, had in labels.items()]
    write_csv(folder / "labels.csv", ("file", "labels"), rows)
    return labels


def colours(path: str, side: int = 16) -> Path:
    """Returns a file with a graph whose logits are how red, green and blue an image is."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return Path(path)


@pytest.fixture(scope="session")
def trained_several(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Returns a folder with ``marked``, images of several labels, and a run that learned them."""
    from training.datasets import load_data
    from training.fit import fit
    from training.options import FolderOptions
    from training.recipe import Recipe

    recipe = Recipe(
        epochs=6,
        batch_size=16,
        learning_rate=1e-2,
        bn_momentum=0.5,
        resize=SIDE,
        crop=SIDE,
        min_scale=1.0,
        label_smoothing=0.0,
        monitor="map",
    )

    def train(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            marked_folder(Path("marked"), 300)
            options = FolderOptions(labels="labels.csv", multi_label=True, test_fraction=0.2)
            fit("resnet14", load_data("marked", options), recipe, options=options)

    return made_once("several", train)


@pytest.fixture
def in_several(trained_several: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs the test inside the folder of :func:`trained_several`."""
    monkeypatch.chdir(trained_several)
    return trained_several
