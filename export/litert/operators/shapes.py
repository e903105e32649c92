"""Operators that only move or rename numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from export.litert.converter import Converter, Value
from export.litert.layout import reshaped, transposed
from export.litert.operators.results import emit, int8
from export.litert.writer import BATCH
from export.node_attributes import attributes


def concat(c: Converter, node: Any) -> None:
    """Concat of tensors in one memory layout."""
    result = node.output[0]
    steps = int8(c, result, *node.input)
    parts = [c.value(name) if steps else c.real(name) for name in node.input]
    order = parts[0].order
    parts = [c.ordered(part, order) for part in parts]
    if steps:  # TFLite joins only what has the same steps
        parts = [c.rounded(f"{result}/{i}", part, steps) for i, part in enumerate(parts)]
    axis = attributes(node)["axis"] % len(order)
    emit(
        c,
        result,
        "CONCATENATION",
        [part.tensor for part in parts],
        order,
        steps,
        options="ConcatenationOptions",
        axis=order.index(axis),
        fusedActivationFunction=c.writer.enum("ActivationFunctionType", "NONE"),
    )


def split(c: Converter, node: Any) -> None:
    """Split into equal or unequal parts."""
    source = c.value(node.input[0])
    axis = attributes(node).get("axis", 0) % len(source.order)
    place = np.array(source.order.index(axis), np.int32)
    made = [c.new(name, c.shape(name), source.order, source.steps) for name in node.output]
    sizes = [value.shape[axis] for value in made]
    tensors = [value.tensor for value in made]
    where = c.writer.constant("axis", place)
    if len(set(sizes)) == 1:
        c.writer.operator(
            "SPLIT",
            [where, source.tensor],
            tensors,
            options="SplitOptions",
            numSplits=len(made),
        )
    else:
        lengths = c.writer.constant("sizes", np.array(sizes, np.int32))
        c.writer.operator(
            "SPLIT_V",
            [source.tensor, lengths, where],
            tensors,
            options="SplitVOptions",
            numSplits=len(made),
        )
    for name, value in zip(node.output, made, strict=True):
        c.give(name, value)


def reshape(c: Converter, node: Any) -> None:
    """Reshape, Flatten, Squeeze and Unsqueeze: the shapes say it all."""
    source, result = c.value(node.input[0]), node.output[0]
    shape = c.shape(result)
    found = reshaped(source.shape, shape, source.order)
    if found is None:
        raise c.refusal(node, "it mixes the images of a batch with another axis")
    wanted, order = found
    source = c.ordered(source, wanted)
    made = c.new(result, shape, order, source.steps)
    sizes = np.array([shape[axis] for axis in order], np.int32)
    assert BATCH == -1, "in a RESHAPE, too, -1 is what is left"
    c.writer.operator(
        "RESHAPE",
        [source.tensor, c.writer.constant("shape", sizes)],
        [made.tensor],
        options="ReshapeOptions",
        newShape=sizes.tolist(),
    )
    c.give(result, made)


def transpose(c: Converter, node: Any) -> None:
    """Transpose, which moves nothing: only the order of the axes is another."""
    source, result = c.value(node.input[0]), node.output[0]
    permutation = tuple(attributes(node)["perm"])
    order = transposed(source.order, permutation)
    c.give(result, Value(source.tensor, c.shape(result), order, source.steps))


def cast(c: Converter, node: Any) -> None:
    """Cast to float32."""
    import onnx

    if attributes(node)["to"] != onnx.TensorProto.FLOAT:
        raise c.refusal(node, "only casts to float32 are taken")
    c.give(node.output[0], c.real(node.input[0]))


def identity(c: Converter, node: Any) -> None:
    """Identity, and Dropout, which does nothing here."""
    c.give(node.output[0], c.value(node.input[0]))
