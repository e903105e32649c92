"""Quantization-aware fine-tuning, from a run to its artifact."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import tyro
from few_digits import few_digits, write_images
from onnx import TensorProto, helper
from onnx.numpy_helper import to_array

from artifact.answering import Answering
from artifact.runtimes.base import load_runtime
from core.errors import UserError
from core.preprocess import Preprocess
from export.__main__ import Run
from export.build import build_artifacts
from export.network import load_network
from export.quantization.int8 import Calibrated
from export.quantization.learned import learned_candidate
from export.quantization.qdq import LearnedInt8
from export.to_onnx import to_onnx
from export.trained_int8 import with_learned
from models.classifier import Classifier
from models.registry import build_model
from models.weights import settle_batch_norm
from training.checkpoint import Checkpoint, checkpoint_path, load_checkpoint, run_folder
from training.module import ClassifierModule
from training.options import FolderOptions
from training.qat.loss import OwnAnswers
from training.qat.names import qat_name
from training.qat.network import FakeQuantize, QuantizedNetwork
from training.qat.operators import OPERATORS
from training.qat.start import FloatSelf, with_own_labels
from training.recipe import Recipe
from training.recipes import RECIPES, find_recipe

Command = Callable[..., subprocess.CompletedProcess[str]]
RUN, QAT = run_folder("resnet14", "written"), run_folder("resnet14", "written-qat")
QAT_FLAGS = shlex.split("--model resnet14 --recipe-name qat --recipe.epochs 2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of digits."""
    return write_images(few_digits("written", train=512, val=120), tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a finished run, and one that began with it and trained int8."""
    from training.datasets import load_data
    from training.fit import fit

    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("training.fit.write_summary", lambda *_: None)  # as long as the trainings
        images = load_data(str(data))
        small = dataclasses.replace(
            RECIPES["small"](8), epochs=4, batch_size=32, crop=8, resize=8, pad=0, flip=False
        )
        fit("resnet14", images, small)
        recipe = dataclasses.replace(find_recipe("qat", "resnet14", "written"), epochs=2)
        fit("resnet14", images, recipe, recipe_name="qat")
    return folder


@pytest.fixture
def in_runs(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Runs the test in a copy of :func:`runs`."""
    shutil.copytree(runs / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def exact(content: bytes, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns the logits of a graph as it stands, which no runtime rounds in its own way."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    logits: np.ndarray[Any, Any] = onnxruntime.InferenceSession(content, options).run(
        None, {"pixels": pixels}
    )[0]
    return logits


def saved(run: Path) -> Checkpoint:
    return load_checkpoint(checkpoint_path(run))


def test_values_within_the_range_get_gradients_and_the_step_that_of_its_paper() -> None:
    values = torch.tensor([-3.0, 0.9, 1.6, 9.0], requires_grad=True)
    step = torch.tensor(0.5, requires_grad=True)
    rounded = FakeQuantize.apply(values, step, -2, 7)
    assert rounded.tolist() == [-1.0, 1.0, 1.5, 3.5]
    rounded.backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert values.grad is not None
    assert values.grad.tolist() == [0, 2, 3, 0]
    # Clipped: the level; else the level minus the exact quotient (equation 3).
    expected = 1 * -2 + 2 * (2 - 1.8) + 3 * (3 - 3.2) + 4 * 7
    assert step.grad is not None
    assert step.grad.item() == pytest.approx(expected, rel=1e-5)


def test_it_learns_its_own_answers_and_no_label() -> None:
    images, labels = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([0])
    loss = OwnAnswers(torch.nn.Flatten(), temperature=1.0)
    assert loss(images, labels, images).item() == pytest.approx(0, abs=1e-6)
    logits = torch.zeros(1, 3, requires_grad=True)
    loss(logits, labels, images).backward()
    expected = torch.full((1, 3), 1 / 3) - images.softmax(dim=1)
    torch.testing.assert_close(logits.grad, expected)


@pytest.mark.parametrize("model", ["mobilenet_v3_small", "shufflenet_v2_x1_0"])
def test_it_begins_with_the_answers_of_the_int8_graph_and_writes_what_it_learned(
    model: str,
) -> None:
    torch.manual_seed(0)
    classifier = Classifier(build_model(model, num_classes=5)).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    settle_batch_norm(classifier, [torch.from_numpy(pixels)])
    graph = Calibrated(to_onnx(classifier, size=32), pixels, None, judged=True).graph
    content = graph.SerializeToString()
    network = QuantizedNetwork(content, limit=64).eval()
    with torch.no_grad():
        first = network(torch.from_numpy(pixels)).numpy()
        assert np.allclose(first, exact(content, pixels), rtol=0.02, atol=0.02 * np.ptp(first))
        unchanged = onnx.ModelProto.FromString(network.trained()).graph.initializer
        for before, after in zip(graph.graph.initializer, unchanged, strict=True):
            assert np.array_equal(to_array(before), to_array(after)), before.name
        for correction in network.corrections:
            correction += 0.05 * torch.randn_like(correction)
        second = network(torch.from_numpy(pixels)).numpy()
    assert np.abs(second - first).max() > 0.05 * np.ptp(first)
    learned = exact(network.trained(), pixels)
    assert np.allclose(second, learned, rtol=0.02, atol=0.02 * np.ptp(second))


def single(op: str, inputs: int, constants: list[Any], outputs: int, **values: Any) -> bytes:
    """Returns a graph of one node that reads ``x`` (and ``y``), and constants."""
    names = ["x", "y"][:inputs]
    tensors = [onnx.numpy_helper.from_array(c, f"c{i}") for i, c in enumerate(constants)]
    results = [f"out{index}" for index in range(outputs)]
    node = helper.make_node(op, [*names, *(t.name for t in tensors)], results, **values)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in results],
        tensors,
    )
    opset = helper.make_opsetid("", 20)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString())


def ints(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


IMAGES, ROWS = (2, 4, 7, 7), (3, 6)
CASES: list[tuple[str, list[tuple[int, ...]], list[Any], int, dict[str, Any]]] = [
    ("Add", [IMAGES, IMAGES], [], 1, {}),
    ("AveragePool", [IMAGES], [], 1, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}),
    ("Cast", [IMAGES], [], 1, {"to": TensorProto.FLOAT}),
    ("Clip", [IMAGES], [np.float32(-0.5), np.float32(0.5)], 1, {}),
    ("Concat", [IMAGES, IMAGES], [], 1, {"axis": 1}),
    (
        "Conv",
        [IMAGES],
        [floats(6, 2, 3, 3), floats(6)],
        1,
        {"group": 2, "pads": [0, 0, 1, 1], "strides": [2, 2], "dilations": [1, 1]},
    ),
    ("Div", [IMAGES], [np.float32(3)], 1, {}),
    ("Erf", [IMAGES], [], 1, {}),
    ("Flatten", [IMAGES], [], 1, {}),
    ("Gelu", [IMAGES], [], 1, {"approximate": "tanh"}),
    ("Gemm", [ROWS], [floats(6, 5)], 1, {}),
    ("Gemm", [ROWS], [floats(5, 6), floats(5)], 1, {"transB": 1}),
    ("GlobalAveragePool", [IMAGES], [], 1, {}),
    ("HardSigmoid", [IMAGES], [], 1, {"alpha": 1 / 6}),
    ("HardSwish", [IMAGES], [], 1, {}),
    ("Identity", [IMAGES], [], 1, {}),
    ("LayerNormalization", [ROWS], [floats(6), floats(6)], 1, {}),
    ("MatMul", [ROWS], [floats(6, 5)], 1, {}),
    ("MaxPool", [IMAGES], [], 1, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    ("Mul", [IMAGES, IMAGES], [], 1, {}),
    ("Pow", [IMAGES], [np.float32(2)], 1, {}),
    ("ReduceMean", [IMAGES], [ints(2, 3)], 1, {"keepdims": 0}),
    ("Relu", [IMAGES], [], 1, {}),
    ("Reshape", [IMAGES], [ints(0, 2, 2, -1)], 1, {}),
    ("Sigmoid", [IMAGES], [], 1, {}),
    ("Slice", [IMAGES], [ints(1), ints(9), ints(1), ints(2)], 1, {}),
    ("Softmax", [ROWS], [], 1, {"axis": 1}),
    ("Split", [IMAGES], [ints(1, 3)], 2, {"axis": 1}),
    ("Split", [IMAGES], [], 2, {"axis": 1, "num_outputs": 2}),
    ("Sqrt", [IMAGES], [], 1, {}),
    ("Squeeze", [(2, 4, 1, 1)], [ints(2, 3)], 1, {}),
    ("Sub", [IMAGES, IMAGES], [], 1, {}),
    ("Tanh", [IMAGES], [], 1, {}),
    ("Transpose", [IMAGES], [], 1, {"perm": [0, 2, 3, 1]}),
    ("Unsqueeze", [ROWS], [ints(1)], 1, {}),
]


def test_every_operator_has_a_case() -> None:
    assert {case[0] for case in CASES} == OPERATORS.keys()


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{index}-{case[0]}" for index, case in enumerate(CASES)]
)
def test_operators_do_as_in_onnx_runtime(case: tuple[Any, ...]) -> None:
    op, shapes, constants, outputs, values = case
    content = single(op, len(shapes), constants, outputs, **values)
    given = [np.abs(floats(*shape)) if op == "Sqrt" else floats(*shape) for shape in shapes]
    session = onnxruntime.InferenceSession(content)
    expected = session.run(None, dict(zip(("x", "y"), given, strict=False)))
    node = onnx.ModelProto.FromString(content).graph.node[0]
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    inputs = [torch.tensor(np.asarray(each)) for each in (*given, *constants)]
    result = OPERATORS[op](attributes, *inputs)
    for got, wanted in zip(result if outputs > 1 else [result], expected, strict=True):
        assert got.shape == wanted.shape
        assert np.allclose(got.numpy(), wanted, rtol=1e-5, atol=1e-5)


def test_an_unknown_operator_is_named() -> None:
    with pytest.raises(UserError, match="Selu"):
        QuantizedNetwork(single("Selu", 1, [], 1), limit=64)


def test_the_recipe_takes_the_images_of_the_run(in_runs: Path) -> None:
    recipe = find_recipe("qat", "resnet14", "written")
    assert (recipe.crop, recipe.flip, recipe.batch_size) == (8, False, 32)
    assert recipe.qat
    with pytest.raises(UserError, match="runs/resnet14-others/"):
        find_recipe("qat", "resnet14", "others")
    with pytest.raises(UserError, match="nobody published"):
        find_recipe("qat_imagenet", "resnet14", "written")


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": "random"},
        {"teacher": "resnet50"},
        {"freeze_epochs": 1},
        {"train_crop": 4},
        {"precision": "bf16"},
        {"qat": False},
    ],
    ids=str,
)
def test_what_an_int8_graph_does_not_have_is_refused(changes: dict[str, Any]) -> None:
    RECIPES["qat"](8).check()
    wrong = dataclasses.replace(RECIPES["qat"](8), **changes)
    with pytest.raises(UserError, match=r"qat"):
        wrong.check()


def test_a_stopped_run_resumes_to_the_same_weights(
    in_runs: Path, data: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = saved(QAT)
    shutil.rmtree(QAT)
    step = ClassifierModule.training_step

    def stopped(module: ClassifierModule, batch: Any, index: int) -> torch.Tensor:
        if module.current_epoch == 1:
            raise KeyboardInterrupt
        return step(module, batch, index)

    flags = [*QAT_FLAGS, "--data", str(data)]
    with monkeypatch.context() as patch:
        patch.setattr(ClassifierModule, "training_step", stopped)
        assert command("training", *flags).returncode != 0
    assert QAT.with_name(f"{QAT.name}.partial").exists()
    refused = command("training", *flags)
    assert refused.returncode == 1
    assert "--resume" in refused.stderr
    assert command("training", *flags, "--resume").returncode == 0
    resumed = saved(QAT).state_dict
    assert resumed.keys() == whole.state_dict.keys()
    for key, tensor in whole.state_dict.items():
        assert torch.equal(resumed[key], tensor), key
    assert "--recipe-name qat" in (QAT / "README.md").read_text()
    assert f"DATA={data} ARGS=--qat" in (QAT / "README.md").read_text()


def test_the_artifact_answers_as_the_network_of_the_run(in_runs: Path, data: Path) -> None:
    network = with_learned(load_network("resnet14", str(data)))
    (outcome,) = build_artifacts(network, ["onnx-int8"])
    artifact = outcome.artifact
    assert artifact is not None, outcome.reason
    assert artifact.path == Path("artifacts/resnet14-written-qat/onnx-int8")
    assert artifact.fp32_layers == ()
    made, run = artifact.quantization, artifact.source.qat
    assert made is not None
    assert (made.calibration, made.weight_bits) == ("QAT", 7)
    assert run is not None
    assert run.epochs == 2
    assert tyro.cli(Run, args=shlex.split(artifact.rebuild_command)[4:]).qat

    card = (artifact.path / "README.md").read_text()
    assert "(QAT) then trained the int8 form for 2 epochs" in card
    assert "written-qat," not in card
    assert saved(QAT).recipe_name == "qat"

    quantized = saved(QAT).network()
    assert isinstance(quantized, QuantizedNetwork)
    assert sum(float(each.detach().abs().sum()) for each in quantized.corrections) > 0
    images = few_digits("written", train=1, val=32).val
    pixels = np.stack([network.preprocess(image) for image, _ in images])  # type: ignore[arg-type]
    with torch.no_grad():
        logits = quantized(torch.from_numpy(pixels)).numpy()
    assert network.learned is not None
    answers = exact(network.learned.content, pixels)
    # Sums in another order can be on the other side of a tie, which is one level.
    assert np.allclose(logits, answers, atol=0.02 * np.ptp(logits))
    assert np.mean(answers.argmax(axis=1) == logits.argmax(axis=1)) > 0.95
    with load_runtime("ort-cpu", artifact) as runtime:
        assert np.mean(runtime(pixels).argmax(axis=1) == logits.argmax(axis=1)) > 0.95


def test_int8_of_other_weights_or_bits_is_refused(in_runs: Path, data: Path) -> None:
    network = load_network("resnet14", str(data))
    learned = LearnedInt8(b"", 7)
    with pytest.raises(UserError, match="8 bits"):
        learned_candidate(learned, None, np.zeros((1, 8, 8, 3), np.uint8), None, 8)
    with torch.no_grad():
        next(network.module.parameters()).add_(1)
    with pytest.raises(UserError, match="other weights"):
        with_learned(network)
    shutil.rmtree(QAT)
    with pytest.raises(UserError, match="--recipe-name qat"):
        with_learned(network)
    assert network.run is not None
    options = FolderOptions(labels="a b.csv", labels_columns=("x", "y"), skip_unreadable=True)
    given = dataclasses.replace(network, run=dataclasses.replace(network.run, options=options))
    words = "--recipe-name qat --labels 'a b.csv' --labels-columns x y --skip-unreadable"
    with pytest.raises(UserError, match=words):
        with_learned(given)
    several = dataclasses.replace(
        network, answering=Answering(task="multi", thresholds=(0.5,) * 10)
    )
    with pytest.raises(UserError, match="several labels"):
        with_learned(several)


def test_photos_of_other_classes_are_labelled_by_the_network_itself() -> None:
    class Brightness(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            level = images.mean(dim=(1, 2, 3))
            return torch.stack([-level, level], dim=1)

    own = FloatSelf(
        module=Classifier(Brightness(), mean=(0.5,) * 3, std=(1.0,) * 3),
        labels=("dark", "light"),
        preprocess=Preprocess(resize=8, crop=8),
        origin="made by hand",
        recipe={},
    )
    data = few_digits("written", train=20, val=10)
    recipe: Recipe = RECIPES["qat_imagenet"](8)
    relabelled = with_own_labels(data, own, recipe)
    assert relabelled.labels == ("dark", "light")
    assert relabelled.name == "imagenet-qat"
    for image, label in relabelled.val:
        assert label == (np.asarray(image).mean() > 127.5)
    with pytest.raises(UserError, match="dark, light"):
        with_own_labels(data, own, RECIPES["qat"](8))


def test_names_of_runs_are_those_of_their_artifacts() -> None:
    assert qat_name("digits", "run") == "digits-qat"
    assert qat_name("photos", "imagenet") == "imagenet-qat"
    assert qat_name("imagenet", "run") == "imagenet_run-qat"
