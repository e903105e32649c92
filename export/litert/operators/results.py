"""How handlers give their results, and what several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from export.litert.converter import Converter, Value
from export.litert.layout import Order
from export.litert.writer import Array, Steps

_FUSED = {(0.0, np.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}


def emit(
    c: Converter,
    name: str,
    kind: str,
    inputs: Sequence[int],
    order: Order,
    steps: Steps | None = None,
    **options: Any,
) -> None:
    """Adds an operator whose result is the graph's tensor ``name``: int8 if ``steps`` are given."""
    made = c.new(name, c.shape(name), order, steps)
    c.writer.operator(kind, inputs, [made.tensor], **options)
    _give(c, name, made)


def _give(c: Converter, name: str, made: Value) -> None:
    """Makes ``made`` the tensor ``name``, or what rounds it if it is int8."""
    if made.steps is None:
        c.give(name, made)
    else:
        c.give_rounded(name, made)


def int8(c: Converter, result: str, *names: str) -> Steps | None:
    """Returns the steps of a result if it and all of ``names`` are int8, else None."""
    steps = c.steps_of(result)
    return steps if all(c.value(name).steps is not None for name in names) else None


def with_activation(c: Converter, node: Any) -> tuple[str, str]:
    """Returns the result of a node and of the activation after it, and that one's fused name."""
    name = node.output[0]
    after = c.only_reader(name)
    if after is None or after.op_type not in ("Relu", "Clip"):
        return name, "NONE"
    kind = _FUSED.get(limits(c, after))
    if kind is None:
        return name, "NONE"
    c.absorb(after)
    return after.output[0], kind


def limits(c: Converter, node: Any) -> tuple[float, float]:
    """Returns between what a Relu or Clip keeps its input."""
    low, high = (0.0, np.inf) if node.op_type == "Relu" else (-np.inf, np.inf)
    given = [float(c.constant(node, i)) if name else None for i, name in enumerate(node.input) if i]
    low = given[0] if given and given[0] is not None else low
    high = given[1] if len(given) > 1 and given[1] is not None else high
    return low, high


def laid(values: Array, beside: Value) -> Array:
    """Returns a constant as it is stored beside a tensor that it is broadcast to."""
    rank = len(beside.shape)
    return values.reshape([1] * (rank - values.ndim) + list(values.shape)).transpose(beside.order)
