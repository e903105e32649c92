"""A float32 ONNX graph to float16, but for the layers that must stay float32."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from artifact.gates import GateError
from artifact.golden import relative_error
from artifact.records import Limits
from core.preprocess import Pixels
from export.quantization.candidate import GraphCandidate, counts
from export.quantization.fp16_emulation import beyond_half, emulate
from export.quantization.probe import affordable, logits_of
from export.quantization.sensitivity import casts_to, layer_errors

IMAGES = 16  # of 224x224 that a graph is run on to see what float16 does to it
# What only hands values on, or bounds them: float16 does nothing to it, but to what it is fed.
EXACT = {
    "Clip",
    "Concat",
    "Flatten",
    "Identity",
    "MaxPool",
    "Relu",
    "Reshape",
    "Slice",
    "Transpose",
}


def fp16_candidates(model: Any, pixels: Pixels, limits: Limits) -> Iterator[GraphCandidate]:
    """Yields float16 graphs of a float32 one that keep its answers in float16 arithmetic.

    A CPU computes float16 layers in float32, so that no gate on a CPU sees what their rounding
    does: here it is emulated. First come graphs whose only float32 layers are those that float16
    cannot hold; asked for more, or where emulation misses the limits, the 1, 2, 4 ... layers with
    the largest error of their own go back to float32, too, up to half of all: alone, and then with
    the layers that round what they are fed.

    Args:
        model: float32 graph, uint8 pixels in.
        pixels: uint8 (n, H, W, 3) of real images; none that a gate is judged by.
        limits: what a graph must reach.

    Raises:
        GateError: emulated, no graph is within ``limits``.
    """
    import onnx

    typed = onnx.shape_inference.infer_shapes(model)
    random = np.random.default_rng(0).permutation(len(pixels))
    pixels = pixels[random[: affordable(pixels, IMAGES)]]
    holds = _judge(typed, pixels, limits)
    beyond = beyond_half(typed, pixels)
    none = True
    for layers in _choices(typed, pixels, beyond):
        if holds(emulate(typed, layers)):
            none = False
            yield GraphCandidate(to_fp16(model, layers), layers)
    if none:
        raise GateError(
            "in float16 arithmetic, emulated on calibration images, logits are too far from "
            f"float32, even with {len(layers)} of {len(model.graph.node)} layers in float32"
        )


def to_fp16(model: Any, fp32_layers: Collection[str] = ()) -> Any:
    """Returns a copy of an ONNX ``ModelProto`` whose weights and arithmetic are float16.

    Pixels stay uint8 and logits float32, and so does all between two of ``fp32_layers``. Converting
    the graph, in which batch norm is folded already, agrees better with float32 than halving the
    torch model, which folds in float16.
    """
    import onnx
    from onnxruntime.transformers.onnx_model import OnnxModel

    half = OnnxModel(onnx.ModelProto.FromString(model.SerializeToString()))
    _forget_constants(half.model.graph)
    half.convert_float_to_float16(keep_io_types=True, node_block_list=list(fp32_layers))
    _mend(half.model.graph)
    half.topological_sort()
    onnx.checker.check_model(half.model, full_check=True)
    return half.model


def _forget_constants(graph: Any) -> None:
    """Removes what is said of the types of constants: the converter would take them for results."""
    constants = {tensor.name for tensor in graph.initializer}
    kept = [info for info in graph.value_info if info.name not in constants]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _mend(graph: Any) -> None:
    """Mends what the converter does around float32 layers.

    It casts what passes between two of them to float16 and back: that would round, and overflow,
    what they are float32 for. And it adds the same Cast once for each that reads its result.
    """
    from onnx import TensorProto

    halved = {n.output[0]: n.input[0] for n in graph.node if casts_to(n) == TensorProto.FLOAT16}
    single = {name for name in halved if halved[name] == f"{name}_cast_to_fp16"}
    nodes: dict[tuple[str, ...], Any] = {}
    for node in graph.node:
        if casts_to(node) == TensorProto.FLOAT and node.input[0] in single:
            node.input[0] = halved[node.input[0]]
        nodes.setdefault(tuple(node.output), node)
    read = {name for node in nodes.values() for name in node.input}
    kept = [node for node in nodes.values() if node.output[0] not in single - read]
    del graph.node[:]
    graph.node.extend(kept)


def _choices(model: Any, pixels: Pixels, beyond: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yields the layers to leave in float32: ``beyond``, and with it ever more of the others."""
    yield tuple(beyond)
    errors = layer_errors(model, emulate(model, beyond), pixels)
    order = [layer for layer in errors if layer not in beyond]
    for count in counts(len(order)):
        worst = order[:count]
        yield tuple(dict.fromkeys([*beyond, *worst]))
        yield tuple(dict.fromkeys([*beyond, *worst, *_feeding(model, worst)]))


def _feeding(model: Any, layers: Sequence[str]) -> list[str]:
    """Returns the names of the nodes that last round what ``layers`` read, and those between."""
    makers = {name: node for node in model.graph.node for name in node.output}
    nodes = {node.name: node for node in model.graph.node}
    found, waiting = [], [nodes[layer] for layer in layers]
    while waiting:
        for name in waiting.pop().input:
            if (maker := makers.get(name)) is not None and maker.op_type != "Cast":
                found.append(maker.name)
                if maker.op_type in EXACT:
                    waiting.append(maker)
    return found


def _judge(model: Any, pixels: Pixels, limits: Limits) -> Callable[[Any], bool]:
    reference = logits_of(model, pixels)
    right = reference.argmax(axis=1)
    least = 0.0 if limits.top1_agreement is None else limits.top1_agreement

    def holds(emulated: Any) -> bool:
        logits = logits_of(emulated, pixels)
        # Any one answer may be a tie.
        wrong = int((logits.argmax(axis=1) != right).sum())
        close = relative_error(logits, reference) <= limits.golden_error
        return close and wrong <= max(1, (1 - least) * len(pixels))

    return holds
