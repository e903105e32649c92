"""Images that are not square, or not RGB, from weights or a graph to an answer over HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
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
from core.errors import UserError
from core.preprocess import Preprocess
from export.build import Options, build_artifacts
from export.elsewhere import Elsewhere
from export.foreign import load_foreign
from export.foreign_form import foreign_form
from models.imagenet import PublishedForm
from models.registry import build_model
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


def means(path: str, channels: int, *, last: bool = False) -> Path:
    """Returns a file with a graph whose two logits are the mean of the last channel, and 0.2."""
    weights = np.zeros((2, channels, 1, 1), np.float32)
    weights[0, -1] = 5
    shape = ["n", 24, 16, channels] if last else ["n", channels, 24, 16]
    nodes = [
        helper.make_node("GlobalAveragePool", ["planes" if last else "x"], ["pooled"]),
        helper.make_node("Conv", ["pooled", "w", "b"], ["maps"]),
        helper.make_node("Flatten", ["maps"], ["y"]),
    ]
    if last:
        nodes.insert(0, helper.make_node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2]))
    constants = {"w": weights, "b": np.array([0, 1], np.float32)}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return Path(path)


def plain(colour: tuple[int, ...], format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new({3: "RGB", 4: "RGBA"}[len(colour)], (40, 50), colour).save(file, format)
    return file.getvalue()


MEAN_OF_LAST = [
    "--labels",
    "labels.txt",
    "--resize",
    "28",
    "--interpolation",
    "bilinear",
    "--mean",
    "0",
    "--std",
    "1",
]
# Images whose last channel is bright and dark, in each number of channels.
GREY = plain((200, 200, 200), "JPEG"), plain((0, 20, 250))  # to the eye blue is dark
ALPHA = plain((0, 0, 0)), plain((255, 255, 255, 10))


@pytest.mark.parametrize(
    ("channels", "last", "images"), [(1, False, GREY), (2, True, ALPHA), (4, False, ALPHA)]
)
def test_images_are_in_the_channels_of_a_graph(
    channels: int, last: bool, images: tuple[bytes, bytes], here: Path, command: Command
) -> None:
    Path("labels.txt").write_text("bright\ndark")
    for name, image in zip(("bright", "dark"), images, strict=True):
        Path("data", name).mkdir(parents=True)
        Path("data", name, "a.png").write_bytes(image)
    targets = ["onnx-fp32", "onnx-int8", "litert-fp32", *(["ncnn-fp32"] if channels != 2 else [])]
    ended = command(
        "export", "run", "--model", "own", "--onnx", str(means("net.onnx", channels, last=last)),
        *MEAN_OF_LAST, "--formats", *targets,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr + ended.stdout
    for target in targets:
        path = Path("artifacts/own-net", target)
        artifact = Artifact.load(path)
        assert artifact.input.shape == ("batch", 24, 16, channels)
        assert artifact.preprocess.channels == channels
        with Classifier.open(path) as classify:
            found = [classify(image) for image in images]
            assert [each.label for each in found] == ["bright", "dark"]
            pixels = np.full((30, 30, channels), 255, np.uint8)
            assert classify(pixels).label == "bright"
            with pytest.raises(UserError, match=rf"uint8 \[height, width, {channels}\], "):
                classify(pixels[..., [0] * (channels % 4 + 1)])
        *answers, facts = over_http(path, list(images))
        for answer, each in zip(answers, found, strict=True):
            best = answer["predictions"][0]
            assert (best["label"], best["score"]) == (each.label, pytest.approx(each.score))
        assert facts["preprocess"]["channels"] == channels
        assert evaluate(path, "data").top1 == 1


def test_ncnn_has_no_grey_with_alpha(here: Path, command: Command) -> None:
    Path("labels.txt").write_text("bright\ndark")
    ended = command(
        "export", "run", "--model", "own", "--onnx", str(means("net.onnx", 2)), *MEAN_OF_LAST,
        "--formats", "ncnn-fp32",
    )  # fmt: skip
    assert ended.returncode == 1
    assert "no pixels of 2 channels" in " ".join(ended.stdout.replace("│", " ").split())


@pytest.mark.parametrize(("model", "channels"), [("resnet14", 1), ("timm/test_resnet", 4)])
def test_a_checkpoint_tells_its_channels(
    model: str, channels: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.fit_weights.closest_network", lambda *_: "")  # takes seconds
    network = build_model(model, num_classes=2, channels=channels).eval()
    torch.save(network.state_dict(), "net.pth")
    Path("labels.txt").write_text("\n".join(CLASSES))
    given = Elsewhere(
        checkpoint=Path("net.pth"),
        labels="labels.txt",
        size=(32, 48),
        resize=48,
        interpolation="bilinear",
        mean=(0.4,) * channels,
        std=(0.3,),
    )
    found = load_foreign(model, None, given)
    (outcome,) = build_artifacts(found, ["onnx-fp32"], Options(max_batch=2))
    assert outcome.artifact is not None, outcome.reason
    pixels, _ = outcome.artifact.golden()
    assert pixels.shape[1:] == (32, 48, channels)
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.4) / 0.3
    with load_runtime("ort-cpu", outcome.artifact) as runtime, torch.inference_mode():
        np.testing.assert_allclose(runtime(pixels), network(images).numpy(), rtol=1e-3, atol=1e-4)
    with load_runtime("torch", outcome.artifact) as runtime:
        assert runtime(pixels).shape == (len(pixels), 2)
    for changes, reason in (
        ({"channels": 5}, r"--channels 5: it must be 1 \(grey\)"),
        ({"mean": (0.4,) * 3}, f"--mean has 3 numbers: .* give one, or {channels}"),
        ({"channels": 3, "mean": (0.4,)}, "do not fit"),
    ):
        with pytest.raises(UserError, match=reason):
            load_foreign(model, None, dataclasses.replace(given, **changes))


def test_three_means_are_not_those_of_grey() -> None:
    known = PublishedForm(Preprocess(resize=36, crop=32), (0.4, 0.5, 0.6), (0.2,) * 3)
    given = Elsewhere(size=24)
    with pytest.raises(UserError, match=r"nothing says .* give --mean, as in training"):
        foreign_form(given, known, "", "for a network", 1)
    given = dataclasses.replace(given, mean=(0.5,))
    form = foreign_form(given, known, "", "for a network", 1).published
    assert (form.mean, form.std) == ((0.5,), (0.2,))
    assert form.preprocess == Preprocess(resize=27, crop=24, channels=1)


def test_weights_for_rgb_are_added_up_for_grey_as_timm_does(here: Path) -> None:
    rgb = timm.create_model("test_resnet", num_classes=2).eval()
    torch.save(rgb.state_dict(), "net.pth")
    Path("labels.txt").write_text("\n".join(CLASSES))
    given = Elsewhere(
        checkpoint=Path("net.pth"),
        labels="labels.txt",
        size=32,
        mean=(0.5,),
        std=(0.5,),
        channels=1,
    )
    grey = load_foreign("timm/test_resnet", None, given)
    pixels = torch.randint(256, (3, 32, 32, 1), dtype=torch.uint8)
    images = (pixels.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        torch.testing.assert_close(grey.module(pixels), rgb(images.expand(3, 3, 32, 32)))
    torch.save(build_model("resnet14", num_classes=2).state_dict(), "own.pth")
    own = dataclasses.replace(
        given, checkpoint=Path("own.pth"), resize=32, interpolation="bilinear"
    )
    reading = load_foreign("resnet14", None, own).source.reading
    assert reading is not None
    assert "the three colours are summed" in reading.assumed[0]
