from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnxruntime import InferenceSession
from onnxruntime.quantization import quantize_dynamic
from PIL import Image
from several_labels import colours

from artifact.artifact import Artifact
from artifact.golden import relative_error
from artifact.runtimes.base import RuntimeUnavailable, load_runtime
from core.errors import UserError
from export.elsewhere import Elsewhere
from export.foreign import load_foreign, load_foreign_again
from predict.classifier import Classifier

SIDE, CLASSES = 16, ("cat", "dog", "eel")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
FLAGS = (
    "--labels labels.txt --resize 18 --interpolation bilinear --mean 0.5 0.4 0.3 --std 0.2 0.25 0.3"
)
Command = Callable[..., Any]


def convolution(images: str, out: str, *, channels: int = 3) -> tuple[list[Any], list[Any]]:
    """Returns nodes and constants from ``images`` (N, 3, H, W) to logits ``out`` (N, 3)."""
    random = np.random.default_rng(0)
    constants = {
        "w": random.normal(size=(8, channels, 3, 3)).astype(np.float32),
        "b": random.normal(size=8).astype(np.float32),
        "v": random.normal(size=(3, 8)).astype(np.float32),
        "c": random.normal(size=3).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", [images, "w", "b"], ["maps"], strides=[2, 2], name="conv"),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "shape"], ["flat"]),
        helper.make_node("Gemm", ["flat", "v", "c"], [out], transB=1, name="head"),
    ]
    return nodes, [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]


def save(
    path: str,
    *,
    batch: int | str = "n",
    last: bool = False,
    end: tuple[str, ...] = (),
    side: int | str = SIDE,
    dtype: int = TensorProto.FLOAT,
    outputs: int = 1,
    opset: int = 13,
) -> Path:
    """Returns a file with a small classifier; ``end`` are operators after its logits."""
    image = [batch, side, side, 3] if last else [batch, 3, side, side]
    nodes, constants = convolution("planes" if last else "x", "y0")
    if last:
        nodes.insert(0, helper.make_node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2]))
    for index, op in enumerate(end):
        nodes.append(helper.make_node(op, [f"y{index}"], [f"y{index + 1}"]))
    first = batch if isinstance(batch, int) else -1
    shape = np.array([first, 8], np.int64)
    constants.append(onnx.numpy_helper.from_array(shape, "shape"))
    names = [f"y{len(end)}", "maps"][:outputs]
    shapes: dict[str, Any] = {"maps": [batch, 8, "h", "w"]}
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes.get(name, [batch, 3]))
        for name in names
    ]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", dtype, image)], ends, constants
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return Path(path)


@pytest.fixture
def labels(here: Path) -> Path:
    path = here / "labels.txt"
    path.write_text("\n".join(CLASSES))
    return path


def probabilities(path: Path, pixels: Any, *, last: bool, softmax: bool) -> Any:
    """Returns the scores that the graph itself gives for ``pixels``."""
    images = (pixels / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    images = images if last else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    step = session.get_inputs()[0].shape[0]
    step = step if isinstance(step, int) else len(images)
    parts = [
        session.run(None, {"x": images[start : start + step]})[0]
        for start in range(0, len(images), step)
    ]
    answers = torch.from_numpy(np.concatenate(parts))
    return (answers if softmax else answers.softmax(1)).numpy()


@pytest.mark.usefixtures("labels")
@pytest.mark.parametrize(
    ("options", "assumed"),
    [
        ({}, ""),
        ({"batch": 1}, ""),
        ({"batch": 2, "opset": 11}, ""),
        ({"last": True}, ""),
        ({"end": ("Softmax",)}, "what the Softmax"),
        ({"end": ("Softmax", "Identity"), "batch": 1}, "what the Softmax"),
        ({"end": ("LogSoftmax",)}, ""),
        ({"end": ("LogSoftmax", "Exp")}, "probabilities, and their logarithm"),
    ],
)
def test_scores_are_those_of_the_graph(
    options: dict[str, Any], assumed: str, here: Path, command: Command
) -> None:
    path = save("net.onnx", **options)
    ended = command(
        "export", "run", "--model", "own", "--onnx", str(path), *FLAGS.split(),
        "--formats", "onnx-fp32",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert (assumed in ended.stderr) if assumed else ("assumed" not in ended.stderr)
    artifact = Artifact.load(Path("artifacts/own-net/onnx-fp32"))
    assert artifact.parity is not None
    assert artifact.parity.reference == "onnx"
    assert artifact.input.shape == ("batch", SIDE, SIDE, 3)
    pixels = np.random.default_rng(1).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    ends = options.get("end", ("",))
    scored = "Softmax" in ends or "Exp" in ends
    expected = probabilities(path, pixels, last=options.get("last", False), softmax=scored)
    with load_runtime("ort-cpu", artifact) as runtime:
        scores = torch.from_numpy(runtime(pixels)).softmax(1).numpy()
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.usefixtures("labels")
def test_it_goes_to_int8_and_fp16_is_verified_again_and_torch_does_not_run_it(
    here: Path, command: Command
) -> None:
    path = save("net.onnx", end=("Softmax",))
    flags = ["--model", "own", "--onnx", str(path), *FLAGS.split(), "--name", "pets"]
    targets = ("onnx-fp32", "onnx-fp16", "onnx-int8")
    ended = command("export", "run", *flags, "--formats", *targets)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    for target in targets:
        artifact = Artifact.load(Path("artifacts/own-pets") / target)
        verified = command("export", "verify", str(artifact.path))
        assert "passed, against onnx, the graph net.onnx" in verified.stdout, verified.stderr
        pixels, logits = artifact.golden()
        with load_runtime("ort-cpu", artifact) as runtime:
            assert relative_error(runtime(pixels), logits) < 1e-3
    with pytest.raises(RuntimeUnavailable, match="which torch does not run"):
        load_runtime("torch", artifact)


@pytest.mark.parametrize(
    ("names", "warned"), [(("red", "green", "blue"), False), (("blue", "red", "green"), True)]
)
def test_labels_in_another_order_are_a_warning(
    names: tuple[str, ...], warned: bool, here: Path, command: Command
) -> None:
    Path("labels.txt").write_text("\n".join(names))
    for channel, name in enumerate(("red", "green", "blue")):
        Path("data", name).mkdir(parents=True)
        for shade in range(40):  # no two the same
            pixels = np.full((SIDE, SIDE, 3), shade, np.uint8)
            pixels[..., channel] = 200
            Image.fromarray(pixels).save(Path("data", name, f"{shade}.png"))
    flags = ["--model", "own", "--onnx", str(colours("net.onnx")), *FLAGS.split()]
    ended = command("export", "run", *flags, "--data", "data", "--formats", "onnx-fp32")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    metrics = Artifact.load(Path("artifacts/own-net/onnx-fp32")).metrics
    assert metrics is not None
    assert metrics.top1 == (0 if warned else 1)
    assert ("cannot be told from chance" in ended.stderr) == warned


def mixing(path: str) -> Path:
    """Returns a file with a graph whose answers depend on the other image of two."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("ReduceMean", ["pooled"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["pooled", "mean"], ["centred"]),
        helper.make_node("Reshape", ["centred", "shape"], ["y"]),
    ]
    shapes = {"shape": np.array([2, 3])}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [onnx.numpy_helper.from_array(value, name) for name, value in shapes.items()],
    )
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return Path(path)


@pytest.mark.usefixtures("labels")
@pytest.mark.parametrize("end", [("Sigmoid",), ("Sigmoid", "Identity"), ()])
def test_a_graph_of_several_labels(end: tuple[str, ...], here: Path, command: Command) -> None:
    path = save("net.onnx", end=end)
    words = ["export", "run", "--model", "own", "--onnx", str(path), *FLAGS.split()]
    words += ["--formats", "onnx-fp32", "onnx-fp16"]
    ended = command(*words, *["--multi-label"] * (not end))
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert ("an image has any number of labels" in ended.stderr) == bool(end)
    folder = Path("artifacts/own-net/onnx-fp32")
    artifact = Artifact.load(folder)
    assert (artifact.task, artifact.thresholds) == ("multi", (0.5, 0.5, 0.5))
    pixels = np.random.default_rng(1).integers(0, 256, (4, 18, 18, 3), dtype=np.uint8)
    images = (
        (pixels[:, 1:-1, 1:-1] / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    ).transpose(0, 3, 1, 2)
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": np.ascontiguousarray(images)})
    expected = expected if end else 1 / (1 + np.exp(-expected))
    with Classifier.open(folder) as classify:
        for each, scores in zip(pixels, expected, strict=True):
            found = classify(each)
            own = dict(zip(CLASSES, scores.tolist(), strict=True))
            assert dict(found.top) == pytest.approx(own, abs=1e-5)
            assert sorted(found.labels) == [label for label in own if own[label] > 0.5]
    again = load_foreign_again(artifact, None)
    assert (again.answering.task, again.labelled) == ("multi", False)
    if not end:
        other = command(*words)
        assert (other.returncode, "read with --multi-label" in other.stderr) == (1, True)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no file": (lambda: Path("net.onnx"), "there is no file"),
    "text": (lambda: Path("net.onnx").write_text("hello"), "not a whole ONNX graph"),
    "cut": (
        lambda: Path("net.onnx").write_bytes(save("net.onnx").read_bytes()[:-200]),
        "not a whole ONNX graph",
    ),
    "two outputs": (lambda: save("net.onnx", outputs=2), "one input and one output"),
    "bytes": (lambda: save("net.onnx", dtype=TensorProto.FLOAT16), "FLOAT16|not a whole"),
    "sigmoids": (lambda: save("net.onnx", end=("Sigmoid", "Sigmoid")), "ends in a Sigmoid"),
    "mixing": (lambda: mixing("net.onnx"), "batch cannot be freed"),
    "free size": (lambda: save("net.onnx", side="side"), "give --size, as in training"),
    "labels": (lambda: Path("labels.txt").write_text("cat") and save("net.onnx"), "1 names"),
    "int8": (lambda: quantize_dynamic(save("net.onnx"), "net.onnx"), "is quantized.*in float"),
}


@pytest.mark.usefixtures("labels")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_classifier_is_one_line(name: str, here: Path) -> None:
    make, reason = REFUSED[name]
    make()
    given = Elsewhere(
        onnx=Path("net.onnx"),
        labels="labels.txt",
        resize=18,
        interpolation="bilinear",
        mean=MEAN,
        std=STD,
    )
    with pytest.raises(UserError, match=reason) as error:
        load_foreign("own", None, given)
    assert "\n" not in str(error.value)
