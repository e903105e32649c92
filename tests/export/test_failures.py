"""What cannot be made is a row with its reason, and what is wrong never becomes an artifact."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array, to_array
from PIL import Image
from rich.console import Console
from torch import nn

from artifact.artifact import Artifact
from artifact.formats import FORMATS
from artifact.records import Source
from core.errors import UserError, is_of_library
from core.preprocess import Preprocess
from export import graphs
from export.build import Options, Outcome, build_artifacts
from export.network import Network
from export.quantization.probe import activations, logits_of
from export.quantization.qdq import prepare, to_int8
from export.table import outcome_table
from export.to_onnx import to_onnx
from models.classifier import Classifier
from training.data import Sample

SIDE = 16
ONNX = ("onnx-fp32", "onnx-fp16", "onnx-int8")


def backbone(norm: type[nn.Module] = nn.Identity) -> nn.Sequential:
    torch.manual_seed(0)
    first, second, third = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
    for layer in (first, second, third):
        nn.init.zeros_(layer.bias)
    layers = [first, norm(4, 8), nn.GELU(), second, norm(4, 8), nn.GELU(), third, nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


def network(layers: nn.Module) -> Network:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (24, SIDE, SIDE, 3), dtype=np.uint8)
    samples: list[Sample] = [(Image.fromarray(image), 0) for image in images]
    return Network(
        model="tiny",
        data="random",
        weights="random",
        module=Classifier(layers).eval(),
        labels=tuple("abcde"),
        preprocess=Preprocess(resize=SIDE, crop=SIDE),
        source=Source(origin="this test"),
        calibration=samples[:16],
        held_out=samples[16:],
        labelled=False,
    )


def build(layers: nn.Module, *targets: str) -> list[Outcome]:
    return list(build_artifacts(network(layers), targets or ONNX, Options(max_batch=2)))


def raising(error: str, module: str) -> Callable[..., Any]:
    """Returns a function of ``module`` that raises what the expression ``error`` makes."""
    scope: dict[str, Any] = {"__name__": module}
    exec(f"def fail(*_, **__):\n    raise {error}", scope)
    function: Callable[..., Any] = scope["fail"]
    return function


@pytest.mark.parametrize("error", ["ValueError('not\\nyet')", "AssertionError()", "KeyError('x')"])
def test_what_a_library_raises_is_the_reason_of_one_format(
    here: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    monkeypatch.setattr(graphs, "int8_candidates", raising(error, "onnxruntime.quantization.x"))
    fp32, fp16, int8 = build(backbone())
    assert (fp32.reason, fp16.reason) == (None, None)
    assert int8.failed
    assert int8.artifact is None
    assert int8.reason is not None
    assert int8.reason.startswith(error.partition("(")[0])
    assert "\n" not in int8.reason
    assert sorted(path.name for path in (here / "artifacts/tiny-random").iterdir()) == [
        "onnx-fp16",
        "onnx-fp32",
    ]


@pytest.mark.parametrize("error", ["AssertionError('ours')", "KeyError('ours')"])
def test_an_error_of_ours_is_no_row(
    here: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    monkeypatch.setattr(graphs, "int8_candidates", raising(error, "export.quantization.int8"))
    with pytest.raises((AssertionError, KeyError), match="ours"):
        build(backbone(), "onnx-int8")


def test_whose_an_error_is() -> None:
    def caught(make: Callable[[], Any]) -> BaseException:
        with pytest.raises(Exception) as error:  # noqa: PT011
            make()
        return error.value

    assert is_of_library(caught(raising("ValueError('')", "torch.nn")))
    assert is_of_library(caught(lambda: onnx.checker.check_model(onnx.ModelProto())))
    assert not is_of_library(caught(raising("ValueError('')", "models.cost")))
    assert not is_of_library(UserError("a"))


def test_a_graph_that_fails_is_exported_once_and_its_reason_printed_once(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail, calls = raising("RuntimeError('no such operator')", "torch.onnx"), []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        fail()

    monkeypatch.setattr(graphs, "to_onnx", counted)
    outcomes = build(backbone(), *ONNX, "tensorrt_rtx-fp16")
    assert len(calls) == 1
    assert {outcome.reason for outcome in outcomes} == {"RuntimeError: no such operator"}
    printed = io.StringIO()
    Console(file=printed, width=200).print(outcome_table([("tiny", outcomes)]))
    assert printed.getvalue().count("no such operator") == 1
    assert printed.getvalue().count("failed: as onnx-fp32") == 3


def test_a_format_whose_package_is_gone_is_a_row_and_what_stands_stays(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = dataclasses.replace(FORMATS["onnx"], name="copy", packages=("pytest",))
    monkeypatch.setitem(FORMATS, "copy", spec)
    options, tiny = Options(max_batch=2, resume=True), network(backbone())
    (made,) = build_artifacts(tiny, ("copy-fp32",), options)
    assert made.artifact is not None
    assert made.artifact.versions["pytest"] == pytest.__version__
    (kept,) = build_artifacts(tiny, ("copy-fp32",), options)
    assert kept.kept
    monkeypatch.setitem(FORMATS, "copy", dataclasses.replace(spec, packages=("no-such-package",)))
    gone, other = build_artifacts(tiny, ("copy-fp32", "onnx-fp32"), options)
    assert (gone.artifact, gone.failed) == (None, False)
    assert gone.reason == "copy: no-such-package is not installed; pip install onnxruntime"
    assert other.reason is None
    assert (
        Artifact.load(here / "artifacts/tiny-random/copy-fp32").versions == made.artifact.versions
    )


def test_a_wrong_graph_of_random_weights_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*arguments: Any, **options: Any) -> Any:
        model = to_onnx(*arguments, **options)
        weights = next(t for t in model.graph.initializer if t.name.endswith("0.weight"))
        weights.CopyFrom(from_array(-to_array(weights), weights.name))
        return model

    (right,) = build(backbone(), "onnx-fp32")
    assert right.artifact is not None
    assert "error" in [gate.name for gate in right.artifact.gates]
    monkeypatch.setattr(graphs, "to_onnx", wrong)
    (outcome,) = build(backbone(), "onnx-fp32")
    assert outcome.failed
    assert outcome.reason is not None
    assert outcome.reason.startswith("relative error: ")
    assert outcome.reason.endswith("against torch on 8 images, must be at most 0.01")
    assert not (here / "artifacts/tiny-random").exists()


def test_parameters_do_not_depend_on_values(here: Path) -> None:
    layers = backbone()
    (outcome,) = build(layers, "onnx-fp32")
    assert outcome.artifact is not None
    assert outcome.artifact.parameters == sum(each.numel() for each in layers.parameters())


def test_norms_stay_in_float32_and_are_listed(here: Path) -> None:
    fp32, _, int8 = build(backbone(nn.GroupNorm))
    assert fp32.artifact is not None
    assert int8.artifact is not None, int8.reason
    norms = [
        node.name
        for node in onnx.load(fp32.artifact.graph_file).graph.node
        if node.op_type == "InstanceNormalization"
    ]
    assert len(norms) == 2
    assert list(int8.artifact.fp32_layers) == norms


@pytest.mark.parametrize("third", ["w2", "w1"])
def test_layers_may_share_constants(third: str) -> None:
    """All three have one bias: the quantizer called its copy val_11, an activation here."""
    weights = np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype(np.float32)
    ends = [
        helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", SIDE, SIDE, 3]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3]),
    ]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["images"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["images", "w0", "val_1"], ["a"], name="c0"),
        helper.make_node("Conv", ["a", "w1", "val_1"], ["b"], name="c1"),
        helper.make_node("Reshape", ["b", "shape"], ["val_11"], name="r"),
        helper.make_node("Conv", ["val_11", third, "val_1"], ["c"], name="c2"),
        helper.make_node("GlobalAveragePool", ["c"], ["d"], name="p"),
        helper.make_node("Flatten", ["d"], ["logits"], name="f"),
    ]
    constants = [from_array(weights * (1 + i), f"w{i}") for i in range(3)]
    constants.append(from_array(np.array([0.1, 0.2, 0.3], np.float32), "val_1"))
    constants.append(from_array(np.array([0, 3, SIDE, SIDE]), "shape"))
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    prepared = prepare(model)
    pixels = np.random.default_rng(1).integers(0, 256, (8, SIDE, SIDE, 3), dtype=np.uint8)
    expected = logits_of(prepared, pixels)
    assert np.array_equal(expected, logits_of(model, pixels))
    most = 10 * float(np.abs(expected).max())
    quantized = to_int8(prepared, dict.fromkeys(activations(prepared), (-most, most)))
    onnx.checker.check_model(quantized, full_check=True)
    assert np.abs(logits_of(quantized, pixels) - expected).max() < most / 20
