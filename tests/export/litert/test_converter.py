from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array
from torch import nn

from artifact.artifact import Artifact
from core.errors import UserError
from core.preprocess import Pixels
from export.litert.to_tflite import to_tflite
from export.to_onnx import to_onnx
from models.classifier import Classifier

litert = pytest.importorskip("ai_edge_litert.interpreter")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

SIDE = 22  # neither its halves nor theirs are even


def pixels_of(model: Any, count: int = 3) -> Pixels:
    sizes = [each.dim_value for each in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    return np.random.default_rng(0).integers(0, 256, (count, *sizes), dtype=np.uint8)


def run_tflite(file: bytes, pixels: Pixels) -> np.ndarray:
    interpreter = litert.Interpreter(model_content=file, num_threads=1)
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(source["index"], pixels.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(source["index"], pixels)
    interpreter.invoke()
    return interpreter.get_tensor(result["index"])


def run_onnx(model: Any, pixels: Pixels) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"pixels": pixels})[0]


def operators(file: bytes) -> Counter[tuple[str, str]]:
    """Returns how often each operator stands in a file, with the type of what it makes."""
    kinds = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    types = {value: name for name, value in vars(schema.TensorType).items()}
    model = schema.ModelT.InitFromPackedBuf(file, 0)
    (graph,) = model.subgraphs
    return Counter(
        (
            kinds[model.operatorCodes[each.opcodeIndex].builtinCode],
            types[graph.tensors[each.outputs[0]].type],
        )
        for each in graph.operators
    )


class Shuffle(nn.Module):
    """ShuffleNet's unit: halves, a shuffle of channels, a sum of unequal parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, 2, 1)
        self.pool = nn.MaxPool2d(3, 2, 1)  # of what is never negative
        self.grouped = nn.Conv2d(12, 12, 1, groups=3)
        self.last = nn.Linear(12, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = self.pool(torch.relu(self.first(images)))
        left, right = values.chunk(2, dim=1)
        values = torch.cat([right, torch.tanh(left)], dim=1)
        batch, channels, height, width = values.shape
        values = values.view(batch, 3, channels // 3, height, width).transpose(1, 2).flatten(1, 2)
        small, large = self.grouped(values).split([4, 8], dim=1)
        values = torch.cat([torch.sigmoid(small), large - 0.5], dim=1)
        return self.last(values.mean([2, 3]))


def settled(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    for name in ("weight", "bias", "running_mean", "running_var"):
        nn.init.uniform_(getattr(norm, name), 0.5, 2.0)
    return norm


def backbones() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "shuffle": Shuffle(),
        "convolutions": nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.ReLU6(),
            nn.Conv2d(8, 16, 3, 1, 1, groups=8),  # depthwise, two for each channel
            nn.Hardswish(),
            nn.Conv2d(16, 8, 5, 2, 2, bias=False),
            nn.Hardtanh(-0.3, 0.4),
            nn.Conv2d(8, 8, (3, 1), 1, (2, 0), dilation=(2, 1)),
            nn.Hardsigmoid(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5, bias=False),
        ),
        "pools": nn.Sequential(
            nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(3, 6, 3, 1, 1),
            nn.MaxPool2d(2, 2, ceil_mode=True),
            settled(nn.BatchNorm2d(6)),  # after no convolution that it could be folded into
            nn.GELU(),
            nn.AvgPool2d(3, 1, 1),
            nn.AvgPool2d(3, 1, 1, count_include_pad=False),
            nn.Hardtanh(0, 1),
            nn.Flatten(),  # as VGG: of many pixels
            nn.Linear(6 * 6 * 6, 5),
            nn.ReLU(),
        ),
    }


@pytest.mark.parametrize("name", list(backbones()))
def test_answers_as_the_graph_does(name: str) -> None:
    graph = to_onnx(Classifier(backbones()[name].eval()), size=SIDE)
    pixels = pixels_of(graph)
    expected = run_onnx(graph, pixels)
    file = to_tflite(graph)
    np.testing.assert_allclose(run_tflite(file, pixels), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run_tflite(file, pixels[:1]), expected[:1], rtol=1e-4, atol=1e-5)
    half = to_tflite(graph, half=True)
    np.testing.assert_allclose(run_tflite(half, pixels), expected, rtol=2e-2, atol=2e-2)


def test_a_shuffle_moves_no_more_than_its_channels() -> None:
    graph = to_onnx(Classifier(Shuffle().eval()), size=SIDE)
    assert operators(to_tflite(graph))["TRANSPOSE", "FLOAT32"] == 1


def test_int8_layers_stay_int8(artifacts: dict[str, Artifact]) -> None:
    artifact = artifacts["onnx-int8"]
    file = to_tflite(onnx.load(artifact.graph_file))
    pixels, golden = artifact.golden()
    logits = run_tflite(file, pixels)
    assert (logits.argmax(axis=1) == golden.argmax(axis=1)).all()
    assert np.abs(logits - golden).max() <= 0.1 * np.abs(golden).max()
    found = operators(file)
    assert found["CONV_2D", "FLOAT32"] == found["DEPTHWISE_CONV_2D", "FLOAT32"] == 0
    assert found["CONV_2D", "INT8"] > 20
    # To the first convolution, and from the last one to the logits.
    assert found["QUANTIZE", "INT8"] == 1
    assert sum(found[kind, "FLOAT32"] for kind in ("DEQUANTIZE", "HARD_SWISH")) <= 3


def graph_of(nodes: Sequence[Any], constants: dict[str, np.ndarray], shape: Sequence[Any]) -> Any:
    """Returns a graph of uint8 pixels ("batch", 4, 4, 3) whose node ``logits`` comes last."""
    graph = helper.make_graph(
        [helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT), *nodes],
        "made",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 4, 4, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    ("nodes", "constants", "reason"),
    [
        (
            [helper.make_node("Erf", ["floats"], ["logits"], name="gelu")],
            {},
            "litert: Erf gelu: TFLite has no form of it here",
        ),
        (
            [helper.make_node("Reshape", ["floats", "sizes"], ["logits"], name="windows")],
            {"sizes": np.array([-1, 4, 3])},
            "litert: the sizes of logits are known only as the graph runs",
        ),
        (
            [
                helper.make_node("Transpose", ["floats"], ["turned"], perm=[0, 1, 3, 2]),
                helper.make_node("MatMul", ["turned", "floats"], ["logits"], name="attention"),
            ],
            {},
            "litert: MatMul attention: its second input is computed",
        ),
    ],
)
def test_refuses_what_it_has_no_form_of(
    nodes: Sequence[Any], constants: dict[str, np.ndarray], reason: str
) -> None:
    sizes = {"Reshape": ["rows", 4, 3], "MatMul": ["batch", 4, 3, 3]}
    shape = sizes.get(nodes[-1].op_type, ["batch", 4, 4, 3])
    with pytest.raises(UserError, match=reason):
        to_tflite(graph_of(nodes, constants, shape))
