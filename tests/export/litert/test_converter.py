from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from small_graphs import NAMES, SIDE, pixels_of, run_onnx, small_graph, strange_graph
from torch import nn

from artifact.artifact import Artifact
from core.errors import UserError
from core.preprocess import Pixels
from export.litert.to_tflite import to_tflite
from export.quantization.calibration import measure_ranges
from export.quantization.qdq import prepare, to_int8
from export.to_onnx import to_onnx
from models.classifier import Classifier

litert = pytest.importorskip("ai_edge_litert.interpreter")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")


def run_tflite(file: bytes, pixels: Pixels) -> np.ndarray:
    interpreter = litert.Interpreter(model_content=file, num_threads=1)
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(source["index"], pixels.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(source["index"], pixels)
    interpreter.invoke()
    return interpreter.get_tensor(result["index"])


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


@pytest.mark.parametrize("name", NAMES)
def test_answers_as_the_graph_does(name: str) -> None:
    graph = small_graph(name)
    pixels = pixels_of(graph)
    expected = run_onnx(graph, pixels)
    file = to_tflite(graph)
    np.testing.assert_allclose(run_tflite(file, pixels), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run_tflite(file, pixels[:1]), expected[:1], rtol=1e-4, atol=1e-5)
    half = to_tflite(graph, half=True)
    np.testing.assert_allclose(run_tflite(half, pixels), expected, rtol=2e-2, atol=2e-2)


def test_a_shuffle_moves_no_more_than_its_channels() -> None:
    assert operators(to_tflite(small_graph("shuffle")))["TRANSPOSE", "FLOAT32"] == 1


def test_a_sigmoid_far_below_one_is_read_in_its_own_steps() -> None:
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, 8, 1), nn.Linear(8, 5)
    nn.init.constant_(first.bias, -2.0)  # sigmoids around 0.1, while TFLite's levels end at 1
    network = nn.Sequential(first, nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    prepared = prepare(to_onnx(Classifier(network.eval()), size=SIDE))
    pixels = pixels_of(prepared)
    graph = to_int8(prepared, measure_ranges(prepared, pixels, ["MinMax"])["MinMax"])
    expected = run_onnx(graph, pixels)
    logits = run_tflite(to_tflite(graph), pixels)
    np.testing.assert_allclose(logits, expected, atol=0.02 * np.abs(expected).max())


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


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gelu", "litert: TFLite has no form here of Erf, Shape$"),
        ("windows", "litert: the sizes of logits are known only as the graph runs"),
        ("attention", "litert: MatMul attention: its second input is computed"),
    ],
)
def test_refuses_what_it_has_no_form_of(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        to_tflite(strange_graph(name))
