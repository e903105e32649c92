"""Makes float16 graphs: chooses the layers left in float32 by emulating float16 on a CPU.

ONNX Runtime has no float16 convolutions for CPUs: it computes float16 layers in float32 and drops
the rounding between them, even with all optimizations off. A result of 1e5 stays 1e5 there, but is
infinite on a GPU. Casts in the graph itself are kept, so emulation is a float32 graph with a pair
of Casts wherever float16 rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from artifact.answering import ONE_CLASS, Answering, agreement
from artifact.gates import GateError
from artifact.golden import relative_error
from artifact.records import Limits
from core.preprocess import Pixels
from export.quantization.calibration import measure_ends
from export.quantization.probe import activations, affordable, logits_of
from export.quantization.sensitivity import GraphCandidate, casts_to, counts, layer_errors

LARGEST = float(np.finfo(np.float16).max)
SMALLEST = np.float32(5.96e-08)  # the converter raises smaller constants to it
MARGIN = 2  # factor on activations, as other images may reach larger values
IMAGES = 16  # images of 224x224 for which float16 is emulated
# Operators that copy or clip values, and so round nothing.
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


def fp16_candidates(
    model: Any, pixels: Pixels, limits: Limits, answering: Answering = ONE_CLASS
) -> Iterator[GraphCandidate]:
    """Yields float16 graphs of a float32 one that stay within ``limits`` in float16 arithmetic.

    A CPU computes float16 layers in float32, so gates on a CPU do not see their rounding; here it
    is emulated. The first graph leaves only layers in float32 whose values overflow float16. If
    more graphs are needed, or emulation misses the limits, the 1, 2, 4 ... layers with the largest
    own error are left in float32 too, up to half of all: first alone, then with the layers that
    round their inputs.

    Args:
        model: float32 graph with uint8 pixels as input.
        pixels: uint8 (n, H, W, 3) of real images that no gate uses.
        limits: limits that a graph must meet.
        answering: how logits become answers, which must agree.

    Raises:
        GateError: no emulated graph is within ``limits``.
    """
    import onnx

    typed = onnx.shape_inference.infer_shapes(model)
    random = np.random.default_rng(0).permutation(len(pixels))
    pixels = pixels[random[: affordable(pixels, IMAGES)]]
    holds = _judge(typed, pixels, limits, answering)
    beyond = overflowing_layers(typed, pixels)
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

    Pixels stay uint8; logits, and tensors between two of ``fp32_layers``, stay float32. Converting
    the graph, whose batch norms are already folded, is more accurate than converting the torch
    model, which would fold in float16.
    """
    import onnx
    from onnxruntime.transformers.onnx_model import OnnxModel

    half = OnnxModel(onnx.ModelProto.FromString(model.SerializeToString()))
    _drop_constant_types(half.model.graph)
    half.convert_float_to_float16(keep_io_types=True, node_block_list=list(fp32_layers))
    _remove_needless_casts(half.model.graph)
    half.topological_sort()
    onnx.checker.check_model(half.model, full_check=True)
    return half.model


def _drop_constant_types(graph: Any) -> None:
    """Drops value_info entries of initializers, which the converter would treat as activations."""
    constants = {tensor.name for tensor in graph.initializer}
    kept = [info for info in graph.value_info if info.name not in constants]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _remove_needless_casts(graph: Any) -> None:
    """Removes the Casts to float16 and back between two float32 layers, and repeated Casts.

    The converter inserts them; they would round, or overflow, exactly the values for which those
    layers are float32. It also adds the same Cast once per reader.
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
    """Yields sets of layers to leave in float32: ``beyond``, then growing supersets."""
    yield tuple(beyond)
    errors = layer_errors(model, emulate(model, beyond), pixels)
    order = [layer for layer in errors if layer not in beyond]
    for count in counts(len(order)):
        worst = order[:count]
        yield tuple(dict.fromkeys([*beyond, *worst]))
        yield tuple(dict.fromkeys([*beyond, *worst, *_feeding(model, worst)]))


def _feeding(model: Any, layers: Sequence[str]) -> list[str]:
    """Returns the names of nodes that round the inputs of ``layers``, and of nodes in between."""
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


def _judge(
    model: Any, pixels: Pixels, limits: Limits, answering: Answering
) -> Callable[[Any], bool]:
    reference = logits_of(model, pixels)
    right = answering.sets(reference)
    least = 0.0 if limits.top1_agreement is None else limits.top1_agreement

    def holds(emulated: Any) -> bool:
        logits = logits_of(emulated, pixels)
        # A single answer may be a tie.
        wrong = round((1 - agreement(answering.sets(logits), right)) * len(pixels), 6)
        close = relative_error(logits, reference) <= limits.golden_error
        return close and wrong <= max(1, (1 - least) * len(pixels))

    return holds


def overflowing_layers(model: Any, pixels: Pixels) -> tuple[str, ...]:
    """Returns the names of the nodes that would overflow in float16, in the order of the graph.

    They write or read an activation that may overflow, or have a constant that the converter would
    clamp. It also raises tiny constants to 6e-8, which rarely matters; where it does, emulation
    shows it.

    Args:
        model: float32 ``ModelProto`` with all types inferred.
        pixels: uint8 (n, H, W, 3) of real images.
    """
    unfit = {
        name
        for name, values in _constants(model).items()
        if np.abs(values).max(initial=0.0) > LARGEST
    }
    for name, ends in measure_ends(model, pixels).items():
        if max(map(abs, ends)) > LARGEST / MARGIN:
            unfit.add(name)
    return tuple(
        node.name for node in model.graph.node if not unfit.isdisjoint([*node.input, *node.output])
    )


def emulate(model: Any, fp32_layers: Collection[str] = ()) -> Any:
    """Returns a float32 ``ModelProto`` that rounds where :func:`to_fp16` does.

    Constants and results of layers are rounded to float16; sums inside a layer are float32, as in a
    GPU's tensor cores. Each rounding is a pair of Casts, like the Q/DQ pairs of an int8 graph.

    Args:
        model: float32 ``ModelProto`` with all types inferred.
        fp32_layers: names of nodes that are not rounded; nor are tensors between two of them.
    """
    import onnx
    from onnx.numpy_helper import from_array

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph, constants = result.graph, _constants(model)
    halved = {
        name
        for node in graph.node
        if node.name not in fp32_layers
        for name in (node.input[:1] if node.op_type == "Resize" else node.input)  # not its factors
    }
    for tensor in graph.initializer:
        if tensor.name in constants and tensor.name in halved:
            tensor.CopyFrom(from_array(_half(constants[tensor.name]), tensor.name))
    restored = {name for name in constants if name in halved}
    nodes = [_cast(name, _single(name), onnx.TensorProto.FLOAT) for name in sorted(restored)]
    floats = set(activations(model))
    exact = {name for node in graph.node if node.name in fp32_layers for name in node.output}
    for original in model.graph.node:
        node = onnx.NodeProto.FromString(original.SerializeToString())
        rounded = restored | (floats - exact if node.name in fp32_layers else floats)
        node.input[:] = [_single(name) if name in rounded else name for name in node.input]
        nodes.append(node)
        for name in floats.intersection(node.output):
            nodes.append(_cast(name, f"{name}/half", onnx.TensorProto.FLOAT16))
            nodes.append(_cast(f"{name}/half", _single(name), onnx.TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    for output in graph.output:
        output.name = output.name if output.name in exact else _single(output.name)
    return result


def _cast(source: str, result: str, type: int) -> Any:
    from onnx.helper import make_node

    return make_node("Cast", [source], [result], name=f"cast/{result}", to=type)


def _single(name: str) -> str:
    return f"{name}/single"


def _half(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Returns constants rounded as the converter does: clamped, and never to zero."""
    small = (values != 0) & (np.abs(values) < SMALLEST)
    kept = np.where(small, np.copysign(SMALLEST, values), values)
    return np.clip(kept, -LARGEST, LARGEST).astype(np.float16)


def _constants(model: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Returns the float32 initializers, by name."""
    import onnx
    from onnx.numpy_helper import to_array

    return {
        tensor.name: to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
