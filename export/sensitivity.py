"""What int8 or float16 does to each layer of a graph on its own."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from export.probe import run_probe
from export.quantize import DEQUANTIZE
from models.preprocess import Pixels

QUANTIZE = "QuantizeLinear"
SINGLE, HALF = 1, 10  # float32 and float16 in ONNX


def layer_errors(model: Any, rounded: Any, pixels: Pixels) -> dict[str, float]:
    """Returns noise power over signal power of each rounded layer's result, the largest first.

    Each layer is fed what it gets in the float32 graph, so the error is its own: of its rounded
    input, weights and result, not of the layers before it. Keys are names of nodes; a result that
    is not finite has an infinite error.

    Args:
        model: float32 graph.
        rounded: that graph from :func:`export.quantize.to_int8` or
            :func:`export.emulation.emulate`.
        pixels: uint8 (n, H, W, 3) of real images.
    """
    both = _Both(model, rounded)
    sums = np.zeros((len(both.layers), 2))
    for values in run_probe(both.model, pixels):
        sums += np.array(values, dtype=np.float64).reshape(sums.shape)
    noises = np.nan_to_num(sums[:, 0], nan=np.inf, posinf=np.inf)
    errors = np.divide(noises, sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] > 0)
    order = np.argsort(-errors, kind="stable")
    return {both.layers[index]: float(errors[index]) for index in order}


class _Both:
    """The float32 graph, and every rounded layer beside its original, reading the same tensors.

    Its outputs are two numbers for each of ``layers``: the sums of squares of the error and of the
    float32 result.
    """

    def __init__(self, model: Any, rounded: Any) -> None:
        import onnx

        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self._graph = self.model.graph
        del self._graph.output[:]
        self.layers: list[str] = []
        self._constants = {tensor.name for tensor in rounded.graph.initializer}
        for tensor in rounded.graph.initializer:
            self._graph.initializer.add().CopyFrom(tensor)
            self._graph.initializer[-1].name = self._under(tensor.name)
        nodes = rounded.graph.node
        self._rounds = {node.input[0]: node for node in nodes if _rounds(node)}
        levels = {node.output[0] for node in self._rounds.values()} | self._constants
        self._restores = {node.input[0]: node for node in nodes if _restores(node, levels)}
        fed = self._inputs()
        for node in nodes:
            if _rounds(node) or _restores(node, levels):
                continue
            if len(node.output) > 1 or fed.keys().isdisjoint(node.input):
                continue  # no layer, one that only splits its input, or one in float32
            self._add_layer(node, fed)

    def _inputs(self) -> dict[str, str]:
        """Returns what stands for each dequantized tensor: weights, or a float32 activation."""
        fed = {}
        for name, node in self._restores.items():
            if name in self._constants:
                made = self._under(node.output[0])
                self._add(node, map(self._under, node.input), made, "weight")
                fed[node.output[0]] = made
        for name, node in self._rounds.items():
            restored = self._restores[node.output[0]].output[0]
            fed[restored] = self._rounded(_plain(name), name, "fed")
        return fed

    def _add_layer(self, node: Any, fed: dict[str, str]) -> None:
        from onnx import TensorProto
        from onnx.helper import make_node, make_tensor_value_info

        constants = {name: self._under(name) for name in self._constants}
        inputs = [fed.get(name) or constants.get(name, name) for name in node.input]
        truth, result = _plain(node.output[0]), self._under(node.output[0])
        self._add(node, inputs, result, "layer")
        if node.output[0] in self._rounds:
            result = self._rounded(result, node.output[0], "result")
        error, noise, signal = (f"{node.name}/{what}" for what in ("error", "noise", "signal"))
        self._graph.node.extend(
            [
                make_node("Sub", [result, truth], [error]),
                make_node("ReduceSumSquare", [error], [noise], keepdims=0),
                make_node("ReduceSumSquare", [truth], [signal], keepdims=0),
            ]
        )
        for name in (noise, signal):
            self._graph.output.append(make_tensor_value_info(name, TensorProto.FLOAT, None))
        self.layers.append(node.name)

    def _rounded(self, source: str, tensor: str, prefix: str) -> str:
        """Returns the name of ``source`` rounded as the int8 graph rounds ``tensor``."""
        round_ = self._rounds[tensor]
        restore = self._restores[round_.output[0]]
        for node in (round_, restore):
            made = f"{prefix}/{node.output[0]}"
            self._add(node, [source, *map(self._under, node.input[1:])], made, prefix)
            source = made
        return source

    def _add(self, node: Any, inputs: Iterable[str], output: str, prefix: str) -> None:
        copy = self._graph.node.add()
        copy.CopyFrom(node)
        copy.name = f"{prefix}/{node.name}"
        copy.input[:] = list(inputs)
        copy.output[:] = [output]

    @staticmethod
    def _under(name: str) -> str:
        return f"rounded/{name}" if name else name


def _rounds(node: Any) -> bool:
    return node.op_type == QUANTIZE or casts_to(node) == HALF


def _restores(node: Any, levels: Collection[str]) -> bool:
    return node.op_type == DEQUANTIZE or (casts_to(node) == SINGLE and node.input[0] in levels)


def casts_to(node: Any) -> int | None:
    """Returns the ONNX type a node casts to; None of a node that is no Cast."""
    return node.attribute[0].i if node.op_type == "Cast" else None


def _plain(name: str) -> str:
    """Returns what the float32 graph calls a tensor: the quantizer renames results of the graph."""
    return name.removesuffix("_QuantizeLinear_Input")
