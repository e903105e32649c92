"""Pixels that are normalised and rounded before their channels are moved."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from small_graphs import NAMES, SIDE, pixels_of, run_onnx, small_graph, strange_graph

from export.one_image import for_one_image
from export.quantization.calibration import measure_ranges
from export.quantization.qdq import prepare, to_int8
from export.rewrites.pixel_order import normalise_before_transpose, restore

FLOATS = ["Cast", "Mul", "Add", "Transpose"]
LEVELS = ["Cast", "Mul", "Add", "QuantizeLinear", "DequantizeLinear", "Transpose"]


def graph_of(name: str, precision: str) -> Any:
    model = copy.deepcopy(small_graph(name))
    if precision == "fp32":
        return model
    prepared = prepare(model)
    ranges = measure_ranges(prepared, pixels_of(prepared), ["MinMax"])["MinMax"]
    return to_int8(prepared, ranges, symmetric=precision == "symmetric")


def first_kinds(model: Any, count: int) -> list[str]:
    """Returns what the pixels go through first."""
    kinds, name = [], model.graph.input[0].name
    for _ in range(count):
        (reader,) = [node for node in model.graph.node if name in node.input]
        kinds.append(reader.op_type)
        name = reader.output[0]
    return kinds


@pytest.mark.parametrize(
    ("name", "precision", "kinds"),
    [
        *((name, "fp32", FLOATS) for name in NAMES),
        ("shuffle", "int8", LEVELS),
        ("convolutions", "int8", LEVELS),
        ("pools", "int8", FLOATS),  # its first layer is a pool, in float32
    ],
)
def test_no_logit_changes(name: str, precision: str, kinds: list[str]) -> None:
    model = graph_of(name, precision)
    expected = run_onnx(model, pixels_of(model))
    before = first_kinds(model, 3)
    assert normalise_before_transpose(model) == 1
    onnx.checker.check_model(model, full_check=True)
    assert first_kinds(model, len(kinds)) == kinds
    shapes = {tuple(tensor.dims) for tensor in model.graph.initializer}
    assert (1, 1, SIDE, 3) in shapes  # factors for a whole row
    np.testing.assert_array_equal(run_onnx(model, pixels_of(model)), expected)

    assert normalise_before_transpose(model) == 0  # it is done
    restore(model)
    onnx.checker.check_model(model, full_check=True)
    assert first_kinds(model, 3) == before == ["Cast", "Transpose", "Mul"]
    np.testing.assert_array_equal(run_onnx(model, pixels_of(model)), expected)
    again = model.SerializeToString()
    restore(model)
    assert model.SerializeToString() == again


def test_one_image_with_channels_first_is_taken_from_it() -> None:
    model = graph_of("convolutions", "fp32")
    expected = run_onnx(model, pixels_of(model, 1))
    normalise_before_transpose(model)
    one = for_one_image(model, "ncnn")
    pixels = pixels_of(model, 1).astype(np.float32).transpose(0, 3, 1, 2)
    (logits,) = ReferenceEvaluator(one).run(None, {one.graph.input[0].name: pixels})
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("what", ["symmetric", "gelu", "attention"])
def test_leaves(what: str) -> None:
    symmetric = what == "symmetric"
    model = graph_of("convolutions", what) if symmetric else strange_graph(what)
    before = model.SerializeToString()
    assert normalise_before_transpose(model) == 0
    restore(model)
    assert model.SerializeToString() == before
