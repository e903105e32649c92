"""A folder of 200 mixed files: each has one top-1, in training, in the artifact and over HTTP."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from artifact.artifact import Artifact
from artifact.runtimes.base import load_runtime, run_batches
from core.preprocess import FORMATS, Pixels
from export.build import build_artifacts
from export.network import load_network
from export.verify import verify
from serving.app import create_app
from serving.predictor import Predictor
from serving.settings import Settings
from training.checkpoint import load_checkpoint
from training.data import pixel_batches, pixels_of
from training.datasets import load_data
from training.fit import fit
from training.recipe import Recipe

FILES = 200
Write = Callable[[Image.Image], bytes]


def saved(format: str, mode: str = "RGB", **options: Any) -> Write:
    def write(image: Image.Image) -> bytes:
        file = io.BytesIO()
        image.convert(mode).save(file, format, **options)
        return file.getvalue()

    return write


def turned(orientation: int) -> Write:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved("JPEG", exif=exif)


def deep(image: Image.Image) -> bytes:
    grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    return file.getvalue()


# Name of the file -> how it is written: suffixes that say too little, or something else.
FORMS: dict[str, Write] = {
    "photo.jpg": saved("JPEG", quality=85),
    "progressive.JPEG": saved("JPEG", progressive=True),
    "printer.jfif": saved("JPEG", "CMYK"),
    "grey.jpe": saved("JPEG", "L"),
    **{f"turned-{n}.jpg": turned(n) for n in range(2, 9)},
    "alpha.png": saved("PNG", "RGBA"),
    "palette.png": saved("PNG", "P"),
    "deep.png": deep,
    "download": saved("PNG"),
    "wrong.jpg": saved("WEBP"),
    "lossless.webp": saved("WEBP", "RGBA", lossless=True),
    "web.gif": saved("GIF"),
    "paint.bmp": saved("BMP"),
    "scan.tif": saved("TIFF", compression="tiff_lzw"),
    "new.avif": saved("AVIF"),
    "cinema.jp2": saved("JPEG2000"),
    "unix.ppm": saved("PPM"),
    **({"phone.heic": saved("HEIF")} if "HEIF" in FORMATS else {}),
}


def picture(number: int) -> Image.Image:
    """Returns a noisy image that is bright at its top, or at its left, by turns."""
    dice = np.random.default_rng(number)
    height, width = (int(side) for side in dice.integers(40, 90, 2))
    slope = np.linspace(200, 20, width if number % 2 else height)
    shade = slope[None, :, None] if number % 2 else slope[:, None, None]
    pixels = shade + dice.normal(0, 25, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture
def mixed(here: Path) -> Path:
    """Returns a folder of :data:`FILES` images of two classes."""
    for number in range(FILES):
        name, write = list(FORMS.items())[number // 2 % len(FORMS)]
        file = here / "mixed" / ("left" if number % 2 else "top") / f"{number:03}-{name}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(write(picture(number)))
    return here / "mixed"


def over_http(artifact: Artifact, files: list[Path]) -> list[int]:
    """Returns the top-1 of each file that a service answers."""
    predictor = Predictor(Settings(artifact=artifact.path), artifact)

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(create_app(predictor))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answers = [await client.post("/predict", content=file.read_bytes()) for file in files]
        assert {answer.status_code for answer in answers} == {200}
        return [answer.json()["predictions"][0]["index"] for answer in answers]

    with predictor:
        return asyncio.run(ask())


def test_each_file_has_one_answer(mixed: Path) -> None:
    recipe = Recipe(
        epochs=3,
        batch_size=32,
        learning_rate=3e-3,
        resize=32,
        crop=32,
        min_scale=1.0,
        flip=False,
    )
    data = load_data(str(mixed))
    assert len(data.train) + len(data.val) == FILES
    checkpoint = load_checkpoint(fit("resnet14", data, recipe))
    assert checkpoint.metrics["top1"] > 0.8

    network = load_network("resnet14", "mixed")
    (outcome,) = build_artifacts(network, ("onnx-fp32",))
    assert outcome.artifact is not None, outcome.reason
    verify(outcome.artifact)

    samples = [*data.train, *data.val]
    files = [file for file, _ in samples if isinstance(file, Path)]
    pixels: Pixels = np.stack([pixels_of(file, recipe.preprocess) for file in files])
    with torch.inference_mode():
        torch_logits = checkpoint.network()(torch.from_numpy(pixels)).numpy()
    batches = pixel_batches(samples, outcome.artifact.preprocess, size=FILES)
    with load_runtime("ort-cpu", outcome.artifact) as runtime:
        logits = run_batches(runtime, next(iter(batches))[0], 8)
    expected = torch_logits.argmax(axis=1)
    np.testing.assert_array_equal(logits.argmax(axis=1), expected)
    np.testing.assert_array_equal(over_http(outcome.artifact, files), expected)
    assert set(expected) == {0, 1}
