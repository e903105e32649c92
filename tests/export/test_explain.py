from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from artifact.artifact import Artifact, write_manifest
from core.errors import UserError
from core.preprocess import Pixels
from export.explain.command import Explain
from export.explain.gradcam import _form, grad_cam
from models.classifier import Classifier


def colours(stride: int, pool: int = 1) -> Classifier:
    """Returns a network whose logits are the means of red, green and blue, or of their maxima."""
    layers = nn.Sequential()
    layers.add_module("dots", nn.Conv2d(3, 3, stride, stride, bias=False))
    layers.add_module("pool", nn.MaxPool2d(pool))
    layers.add_module("active", nn.ReLU(inplace=True))
    layers.add_module("drop", nn.Dropout())  # answers what it gets
    layers.add_module("mean", nn.AdaptiveAvgPool2d(1))
    layers.add_module("flat", nn.Flatten())
    with torch.no_grad():
        weight = torch.eye(3)[:, :, None, None].expand(3, 3, stride, stride)
        layers[0].weight.copy_(weight / stride**2)
    return Classifier(layers, mean=(0, 0, 0), std=(1, 1, 1)).eval()


def dotted(rows: int, columns: int, **dots: tuple[int, int]) -> Pixels:
    """Returns a black image with a cell of 8x8 pixels of each colour."""
    pixels = np.zeros((8 * rows, 8 * columns, 3), dtype=np.uint8)
    for name, (row, column) in dots.items():
        pixels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8, "rgb".index(name)] = 255
    return pixels


def test_the_map_shows_where_a_class_is() -> None:
    pixels = dotted(4, 6, r=(1, 4), b=(3, 0))
    for index, place in ((0, (1, 4)), (2, (3, 0))):
        found = grad_cam(colours(8), pixels, index)
        expected = np.zeros((4, 6), dtype=np.float32)
        expected[place] = 1
        np.testing.assert_array_equal(found.heat, expected)
        assert found.layer == "active"
        np.testing.assert_allclose(found.logits, [1 / 24, 0, 1 / 24], rtol=1e-5)
    assert not grad_cam(colours(8), pixels, 1).heat.any()
    assert grad_cam(colours(8), dotted(4, 4, b=(0, 0))).heat[0, 0] == 1  # of the most likely one


def test_a_map_too_coarse_to_see_much_is_left_out() -> None:
    network = colours(2, pool=4)
    assert grad_cam(network, dotted(1, 1, r=(0, 0))).heat.shape == (4, 4)
    assert grad_cam(network, dotted(4, 4, r=(0, 0))).heat.shape == (4, 4)
    coarse = grad_cam(network, dotted(2, 2, r=(0, 1)), layer="active")
    np.testing.assert_array_equal(coarse.heat, [[0, 1], [0, 0]])


@pytest.mark.parametrize(
    ("name", "options", "layer", "cells"),
    [
        # A class token: the patches are last used by the attention of the last block.
        ("vit_tiny_patch16_224", {"depth": 2, "img_size": 96}, "blocks.1.norm1", (6, 6)),
        ("vit_tiny_patch16_224", {"depth": 1, "img_size": (64, 96)}, "blocks.0.norm1", (4, 6)),
        # Channels last.
        ("swin_tiny_patch4_window7_224", {"depths": (1, 1), "img_size": 64}, "norm", (8, 8)),
    ],
)
def test_attention(name: str, options: dict[str, Any], layer: str, cells: tuple[int, int]) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    size = options["img_size"]
    sizes = (size, size) if isinstance(size, int) else size
    if "depths" in options:
        options = {**options, "num_heads": (3, 6)}
    network = Classifier(timm.create_model(name, num_classes=3, **options)).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (*sizes, 3), dtype=np.uint8)
    found = grad_cam(network, pixels, 1)
    assert found.layer == layer
    assert found.heat.shape == cells
    assert found.heat.max() == 1
    assert found.heat.min() >= 0


def test_tokens_are_a_map_only_if_they_make_a_grid() -> None:
    assert _form((1, 1, 8), (64, 64)) is None  # a class token alone
    assert _form((1, 17, 8), (64, 64)) == ("NLC", (4, 4))
    assert _form((1, 24, 8), (64, 96)) == ("NLC", (4, 6))
    assert _form((1, 13, 8), (64, 64)) == ("NLC", (3, 3))  # with four registers
    assert _form((4, 16, 8), (64, 64)) is None  # windows
    assert _form((1, 3, 17, 8), (64, 64)) is None  # queries of three heads


def test_a_network_without_a_map_is_refused_in_one_line() -> None:
    flat = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(192, 2))).eval()
    with pytest.raises(UserError, match="no layer of this network answers a map"):
        grad_cam(flat, dotted(1, 1))
    with pytest.raises(UserError, match=r"--layer dot: .*did you mean dots"):
        grad_cam(colours(8), dotted(4, 4, r=(0, 0)), layer="dot")
    with pytest.raises(UserError, match=r"the last of 3 are pool, active, dots; --layer list"):
        grad_cam(colours(8), dotted(4, 4, r=(0, 0)), layer="x")


@pytest.fixture
def digit(graphs: dict[str, Artifact], tmp_path: Path) -> Path:
    file = tmp_path / "digit.png"
    Image.fromarray(graphs["onnx-fp32"].golden()[0][0]).save(file)
    return file


def test_the_picture_of_an_artifact(
    graphs: dict[str, Artifact],
    in_trained: Path,
    digit: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    artifact = graphs["onnx-fp16"]
    out = digit.with_name("cam.png")
    Explain(artifact.path, digit, out=out)()
    said, path = capsys.readouterr().out.splitlines()
    assert path == str(out)
    reference = graphs["onnx-fp32"].golden()[1][0]  # the network's, in ONNX Runtime
    label, _, rest = said.partition(": ")
    assert label == artifact.labels[reference.argmax()]
    score = np.exp(reference).max() / np.exp(reference).sum()
    assert float(rest.split(" %")[0]) == pytest.approx(100 * score, abs=0.1)
    assert rest.endswith("4x4 cells")
    with Image.open(out) as picture:
        assert picture.mode == "RGB"
        shown = np.asarray(picture)
    left, top = 12, picture.height - 12 - 336
    np.testing.assert_array_equal(shown[top, left], graphs["onnx-fp32"].golden()[0][0, 0, 0])

    Explain(artifact.path.parent, digit, label="8", layer="features.3", out=out)()
    said, _ = capsys.readouterr().out.splitlines()
    assert said.startswith("8: ")
    assert f"most likely: {label}," in said or label == "8"
    assert "layer features.3, 8x8 cells" in said

    Explain(artifact.path, digit, layer="list", out=digit.with_name("none.png"))()
    listed = capsys.readouterr().out.splitlines()
    assert "features.3: 8x8 cells" in listed
    assert not digit.with_name("none.png").exists()


def test_mistakes_end_in_one_line(
    graphs: dict[str, Artifact],
    in_trained: Path,
    digit: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = graphs["onnx-fp32"].path
    with pytest.raises(UserError, match="unknown label 'eight'"):
        Explain(path, digit, label="eight")()
    with pytest.raises(UserError, match="there is no file"):
        Explain(path, Path("none.png"))()
    with pytest.raises(UserError, match="is a folder; pass the path of a PNG"):
        Explain(path, digit, out=digit.parent)()
    text = digit.with_suffix(".txt")
    text.write_text("no image")
    with pytest.raises(UserError, match=r"digit\.txt: "):
        Explain(path, text)()
    given = Artifact.load(shutil.copytree(path, digit.parent / "copy"))
    source = replace(given.source, checkpoint=None, sha256=None)
    without = write_manifest(replace(given, source=source))
    with pytest.raises(UserError, match="no file keeps it"):
        Explain(without.path, digit)()
    monkeypatch.chdir(digit.parent)
    with pytest.raises(UserError, match="run this where it was trained"):
        Explain(path, digit)()


def test_images_of_one_stem_have_pictures_of_their_own() -> None:
    pictures = {Explain(Path("artifact"), Path(name)).picture for name in ("a/p.gif", "a/p.png")}
    assert len(pictures) == 2
    assert Explain(Path("artifact"), Path("p.gif"), out=Path("x.png")).picture == Path("x.png")
