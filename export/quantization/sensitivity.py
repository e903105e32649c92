"""Sensitivity: the error that int8 or float16 adds in each layer, and how many stay float32."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from artifact.records import Quantization, Rewrite
from core.preprocess import Pixels
from export.quantization.probe import Activation, probe_batches, run_probe
from export.quantization.qdq import DEQUANTIZE

QUANTIZE = "QuantizeLinear"
SINGLE, HALF = 1, 10  # ONNX types of float32 and float16
_AXES = "axes of an image"
# Largest fraction of layers left in float32. They cost time and bytes; a graph that needs more of
# them fails its gates instead.
MOST_FP32 = 0.5


class GraphCandidate(NamedTuple):
    """A graph that becomes an artifact if it passes the gates."""

    model: Any  # ONNX ModelProto
    fp32_layers: tuple[str, ...] = ()  # names of nodes left in float32, the most sensitive first
    quantization: Quantization | None = None  # of an int8 graph
    rewrites: Mapping[Rewrite, int] = MappingProxyType({})  # nodes that each replaced


def counts(layers: int, *, above: int = 0) -> Iterator[int]:
    """Yields counts of layers to leave in float32: ``above`` plus 1, 2, 4 and so on.

    The last is :data:`MOST_FP32` of ``layers``, unless ``above`` has reached that.
    """
    most, more = int(layers * MOST_FP32), 1
    while above + more < most:
        yield above + more
        more *= 2
    if above < most:
        yield most


def layer_errors(model: Any, rounded: Any, pixels: Pixels) -> dict[str, float]:
    """Returns noise power over signal power of each rounded layer's result, the largest first.

    Each layer gets its inputs from the float32 graph, so the error is its own: that of its rounded
    input, weights and result, not of earlier layers. It is the mean over the images, each clipped
    to 1, so that one image with huge activations cannot hide that others are rounded to zero. Keys
    are names of nodes; a result that is not finite has an infinite error.

    Args:
        model: float32 graph.
        rounded: that graph from :func:`export.quantization.qdq.to_int8` or
            :func:`export.quantization.fp16.emulate`.
        pixels: uint8 (n, H, W, 3) of real images.
    """
    both = _PairedGraph(model, rounded)
    runs = [
        [_of_images(rows, len(batch)) for rows in values]
        for batch, values in zip(probe_batches(pixels), run_probe(both.model, pixels), strict=True)
    ]
    powers = np.concatenate(runs, axis=1).reshape(len(both.layers), 2, len(pixels))
    noises, signals = powers[:, 0], powers[:, 1]
    ratios = np.divide(noises, signals, out=np.zeros_like(noises), where=signals > 0)
    finite = np.isfinite(noises).all(axis=1)
    errors = np.where(finite, np.minimum(ratios, 1).mean(axis=1), np.inf)
    order = np.argsort(-errors, kind="stable")
    return {both.layers[index]: float(errors[index]) for index in order}


def _of_images(rows: Activation, images: int) -> npt.NDArray[np.float64]:
    """Returns sums per image from sums per index of the first dimension of a result.

    Heads, windows or patches of one image are adjacent there. If the dimension is not a multiple of
    the images, the result does not depend on them and counts for each.
    """
    sums = rows.astype(np.float64)
    if len(sums) % images:
        return np.full(images, sums.sum())
    of_images: npt.NDArray[np.float64] = sums.reshape(images, -1).sum(axis=1)
    return of_images


class _PairedGraph:
    """The float32 graph with a rounded copy of each layer, which reads the same tensors.

    Its outputs are two vectors for each of ``layers``, with an element per index of the first
    dimension: the sums of squares of the error and of the float32 result.
    """

    def __init__(self, model: Any, rounded: Any) -> None:
        import onnx
        from onnx.numpy_helper import from_array

        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self._graph = self.model.graph
        del self._graph.output[:]
        self.layers: list[str] = []
        self._constants = {tensor.name for tensor in rounded.graph.initializer}
        self._graph.initializer.append(from_array(np.array([1]), _AXES))
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
                continue  # not a layer, or one that only splits its input, or float32
            self._add_layer(node, fed)

    def _inputs(self) -> dict[str, str]:
        """Returns the replacement of each dequantized tensor: a weight or a float32 activation."""
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
        error = f"{node.name}/error"
        self._graph.node.append(make_node("Sub", [result, truth], [error]))
        for what, values in (("noise", error), ("signal", truth)):
            name = f"{node.name}/{what}"
            self._graph.node.append(make_node("Flatten", [values], [f"{name}/flat"]))
            of_image = make_node("ReduceSumSquare", [f"{name}/flat", _AXES], [name], keepdims=0)
            self._graph.node.append(of_image)
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
    """Returns the ONNX type a Cast node casts to; None for other nodes."""
    return node.attribute[0].i if node.op_type == "Cast" else None


def _plain(name: str) -> str:
    """Returns a tensor's name in the float32 graph, as the quantizer renames graph outputs."""
    return name.removesuffix("_QuantizeLinear_Input")
