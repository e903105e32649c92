"""Each ONNX operator in TFLite's terms: float32, or int8 where the graph rounds all its tensors.

A handler takes a :class:`Converter` and a node, asks for the node's inputs, and gives its result.
"""

from __future__ import annotations

from export.litert.converter import Converter, Handler
from export.litert.operators.elementwise import (
    batch_norm,
    binary,
    clip,
    gelu,
    hard_sigmoid,
    sigmoid,
    unary,
)
from export.litert.operators.shapes import cast, concat, identity, reshape, split, transpose
from export.litert.operators.weights import conv, gemm, matmul
from export.litert.operators.windows import mean, pool

HANDLERS: dict[str, Handler] = {
    "Add": binary("ADD", "AddOptions"),
    "AveragePool": pool("AVERAGE_POOL_2D"),
    "BatchNormalization": batch_norm,
    "Cast": cast,
    "Clip": clip,
    "Constant": lambda c, node: None,  # the converter has read it
    "Concat": concat,
    "Conv": conv,
    "DequantizeLinear": Converter.dequantize,
    "Div": binary("DIV", "DivOptions"),
    "Dropout": identity,
    "Flatten": reshape,
    "Gelu": gelu,
    "Gemm": gemm,
    "GlobalAveragePool": mean,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": unary("HARD_SWISH", "HardSwishOptions"),
    "Identity": identity,
    "MatMul": matmul,
    "MaxPool": pool("MAX_POOL_2D"),
    "Mul": binary("MUL", "MulOptions"),
    "QuantizeLinear": Converter.quantize,
    "ReduceMean": mean,
    "Relu": clip,
    "Reshape": reshape,
    "Sigmoid": sigmoid,
    "Split": split,
    "Squeeze": reshape,
    "Sub": binary("SUB", "SubOptions"),
    "Tanh": unary("TANH"),
    "Transpose": transpose,
    "Unsqueeze": reshape,
}
