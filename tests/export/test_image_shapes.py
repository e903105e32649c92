"""Images that are not square, from a checkpoint or a graph to an answer over HTTP."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper
from PIL import Image

from artifact.artifact import Artifact
from artifact.runtimes.base import load_runtime
from core.preprocess import Preprocess
from predict.classifier import Classifier
from predict.evaluate import evaluate
from serving.app import create_app
from serving.predictor import Predictor
from serving.settings import Settings

CLASSES = ("left", "right")
HEIGHT, WIDTH = 16, 40
Command = Callable[..., Any]


def halves(path: str, height: int | str = HEIGHT, width: int | str = WIDTH) -> Path:
    """Returns a file with a graph whose logits are how bright the halves of an image are."""
    weights = np.zeros((2, 3 * HEIGHT * WIDTH), np.float32)
    for index, half in enumerate(weights.reshape(2, 3, HEIGHT, WIDTH)):
        half[..., index * WIDTH // 2 : (index + 1) * WIDTH // 2] = 6 / half.size
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, height, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return Path(path)


def photo(bright: str, *, width: int = 100, height: int = 40) -> bytes:
    """Returns a PNG that is bright in its left half, or in its right one."""
    pixels = np.full((height, width, 3), 60, np.uint8)
    half = slice(None, width // 2) if bright == "left" else slice(width // 2, None)
    pixels[:, half] = 190
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def over_http(path: Path, images: list[bytes]) -> list[Any]:
    """Returns what a service that runs an artifact answers to images, and to /model."""

    async def ask(app: Any) -> list[Any]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answers = [await client.post("/predict", content=image) for image in images]
            return [answer.json() for answer in (*answers, await client.get("/model"))]

    artifact = Artifact.load(path)
    settings = Settings(artifact=path, runtime=artifact.spec.proving_runtime)
    with Predictor(settings, artifact) as predictor:
        return asyncio.run(ask(create_app(predictor)))


FLAGS = ["--labels", "labels.txt", "--interpolation", "bilinear", "--mean", "0.5", "--std", "0.5"]


def test_a_wide_graph_to_every_answer(here: Path, command: Command) -> None:
    Path("labels.txt").write_text("\n".join(CLASSES))
    for name in CLASSES:
        Path("data", name).mkdir(parents=True)
        for number in range(12):
            data = photo(name, width=90 + number)
            Path("data", name, f"{number}.png").write_bytes(data)
    targets = ["onnx-fp32", "onnx-int8", "litert-fp32"]
    ended = command(
        "export", "run", "--model", "own", "--onnx", str(halves("net.onnx")), *FLAGS,
        "--resize", "18x44", "--data", "data", "--formats", *targets,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr + ended.stdout
    for target in targets:
        path = Path("artifacts/own-net", target)
        artifact = Artifact.load(path)
        assert artifact.input.shape == ("batch", HEIGHT, WIDTH, 3)
        assert artifact.preprocess == Preprocess(resize=(18, 44), crop=(HEIGHT, WIDTH))
        assert json.loads((path / "manifest.json").read_text())["preprocess"]["crop"] == [16, 40]
        assert "crop 16x40" in command("export", "show", str(path)).stdout
        with Classifier.open(path) as classify:
            found = [classify(photo(name)) for name in CLASSES]
        assert [each.label for each in found] == list(CLASSES)
        *answers, facts = over_http(path, [photo(name) for name in CLASSES])
        for answer, each in zip(answers, found, strict=True):
            best = answer["predictions"][0]
            assert (best["label"], best["score"]) == (each.label, pytest.approx(each.score))
        assert facts["preprocess"]["crop"] == [16, 40]
        evaluated = evaluate(path, "data")
        assert (evaluated.top1, evaluated.images) == (1, 24)
    again = command("export", "verify", str(path))
    assert "passed, against onnx" in again.stdout, again.stderr


@pytest.mark.parametrize(
    ("sides", "size", "reason"),
    [
        (("h", "w"), None, "give --size --resize"),
        ((HEIGHT, WIDTH), "40x16", "--size 40x16: net.onnx takes images of 16x40 pixels only"),
        ((HEIGHT, "w"), "40", "--size 40: net.onnx takes images of 16xany pixels only"),
        ((HEIGHT, "w"), "16x", "'16x' is no size in pixels"),
    ],
)
def test_a_size_that_a_graph_does_not_take_is_told(
    sides: tuple[Any, Any], size: str | None, reason: str, here: Path, command: Command
) -> None:
    Path("labels.txt").write_text("\n".join(CLASSES))
    given = ["--size", size] if size else []
    path = halves("net.onnx", *sides)
    ended = command("export", "run", "--model", "own", "--onnx", str(path), *FLAGS, *given)
    assert ended.returncode != 0
    assert reason in " ".join((ended.stderr + ended.stdout).replace("│", " ").split())


@pytest.mark.slow
def test_position_embeddings_of_a_checkpoint_are_resampled(here: Path, command: Command) -> None:
    network = timm.create_model("vit_tiny_patch16_224", num_classes=2, img_size=(64, 64)).eval()
    torch.save(network.state_dict(), "vit.pth")
    Path("labels.txt").write_text("\n".join(CLASSES))
    ended = command(
        "export", "run", "--model", "timm/vit_tiny_patch16_224", "--checkpoint", "vit.pth", *FLAGS,
        "--size", "48x80", "--formats", "onnx-fp32",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr + ended.stdout
    artifact = Artifact.load(Path("artifacts/timm/vit_tiny_patch16_224-vit/onnx-fp32"))
    assert artifact.input.shape == ("batch", 48, 80, 3)
    network.set_input_size((48, 80))
    pixels, _ = artifact.golden()
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with load_runtime("ort-cpu", artifact) as runtime, torch.inference_mode():
        np.testing.assert_allclose(runtime(pixels), network(images).numpy(), atol=1e-3)
