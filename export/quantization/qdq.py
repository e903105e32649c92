"""Converts a float32 ONNX graph to int8, as QuantizeLinear/DequantizeLinear pairs."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from artifact.records import WeightBits
from export.rewrites.unread import set_nodes

DEQUANTIZE = "DequantizeLinear"
WEIGHTED = ["Conv", "Gemm"]
# Operators computed in float32 even between int8 layers: no runtime has int8 kernels for them.
NORMS = ["BatchNormalization", "InstanceNormalization", "LayerNormalization"]
_QUANTIZED = "_quantized"  # suffix that the quantizer adds to names of constants
Range = tuple[float, float]  # smallest and largest value of an activation
# By the bits of weights, the largest integer weight of to_int8; the smallest is its negative.
WEIGHT_LIMIT: dict[WeightBits, int] = {7: 64, 8: 127}


class LearnedInt8(NamedTuple):
    """An int8 graph from quantization-aware fine-tuning."""

    content: bytes  # serialized ModelProto in QDQ form
    weight_bits: WeightBits


def prepare(model: Any) -> Any:
    """Returns an ONNX ``ModelProto`` ready for the quantizer: folded, with all shapes inferred.

    Every node has a name, which identifies its layer.
    """
    import onnx
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        # Files, not protos: from a proto, ONNX Runtime moves the weights to a file and loses them.
        plain, prepared = (Path(folder) / name for name in ("fp32.onnx", "prepared.onnx"))
        onnx.save(model, plain)
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        result = load_model_with_shape_infer(prepared)
    for index, node in enumerate(result.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    _separate_biases(result.graph)
    return result


def _separate_biases(graph: Any) -> None:
    """Gives each layer its own bias, as torch exports equal ones as one shared constant.

    The quantizer would name its copies by adding a number, which can collide with an activation.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    taken: set[str] = set()
    for node in graph.node:
        if node.op_type in WEIGHTED and len(node.input) == 3 and node.input[2] in constants:
            bias = constants[node.input[2]]
            if bias.name in taken:
                own = graph.initializer.add()
                own.CopyFrom(bias)
                own.name = node.input[2] = f"{node.name}/bias"
            taken.add(bias.name)


def default_bits(*, symmetric: bool) -> WeightBits:
    """Returns the bits of weights where none are asked for: 8 if ``symmetric``, else 7."""
    return 8 if symmetric else 7


def to_int8(
    prepared: Any,
    ranges: Mapping[str, Range],
    fp32_layers: Collection[str] = (),
    *,
    symmetric: bool = False,
    weight_bits: WeightBits | None = None,
) -> Any:
    """Returns an ONNX ``ModelProto`` in QDQ form, with int8 weights per channel.

    For any CPU, activations are uint8, and weights use 7 of their 8 bits, as products of full-range
    uint8 and int8 overflow the 16-bit sums of CPUs with AVX2 but no VNNI.
    Pixels are normalised in float32: in int8, Mul and Add took a fifth of a graph's time.

    Args:
        prepared: float32 graph from :func:`prepare`.
        ranges: range of every activation; values outside are clipped.
        fp32_layers: names of nodes that stay float32.
        symmetric: whether to use TensorRT's form: symmetric int8 activations, 8-bit weights,
            float32 biases; only inputs of Conv and Gemm are rounded, so that layers can be fused.
        weight_bits: bits of the weights; None for :func:`default_bits`.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    weight_bits = weight_bits or default_bits(symmetric=symmetric)
    known = {*QLinearOpsRegistry, *QDQRegistry} - set(NORMS)
    # As quantize_static after its calibration; here the ranges are already known.
    before = _before_weights(prepared)
    quantizer = QDQQuantizer(
        copy.deepcopy(prepared),
        per_channel=False,  # _round_weights does it instead
        reduce_range=weight_bits == 7,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        tensors_range=TensorsData(
            CalibrationMethod.MinMax,
            {
                name: TensorData(lowest=np.float32(low), highest=np.float32(high))
                for name, (low, high) in ranges.items()
            },
        ),
        nodes_to_quantize=[],
        nodes_to_exclude=[*fp32_layers, *before],
        op_types_to_quantize=WEIGHTED if symmetric else sorted(known),
        extra_options={
            # 8-bit logits tie often, and the order of the classes would decide ties.
            "OpTypesToExcludeOutputQuantization": WEIGHTED if symmetric else ["Gemm"],
            "ActivationSymmetric": symmetric,
            "QuantizeBias": not symmetric,
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result = quantizer.model.model
    _round_weights(result, prepared, WEIGHT_LIMIT[weight_bits])
    _round_biases(result, prepared)
    _prevent_weight_rounding(result, fp32_layers)
    if not symmetric:
        _widen_normalisation(result, before)
    return result


def with_ranges(quantized: Any, prepared: Any, ranges: Mapping[str, Range]) -> Any:
    """Returns a copy of a graph from :func:`to_int8`, without float32 layers, with other ranges.

    Nodes and weights are reused, as making them takes the quantizer seconds.

    Args:
        quantized: graph whose ranges are replaced.
        prepared: the float32 graph it was made from.
        ranges: range of every activation.
    """
    import onnx
    from onnx.numpy_helper import from_array
    from onnxruntime.quantization.quant_utils import compute_scale_zp, get_qmin_qmax_for_qType

    result = onnx.ModelProto()
    result.CopyFrom(quantized)
    tensors = {tensor.name: tensor for tensor in result.graph.initializer}
    for name, ends in ranges.items():
        if (scale := tensors.get(f"{name}_scale")) is not None:
            zero = tensors[f"{name}_zero_point"]
            symmetric = zero.data_type == onnx.TensorProto.INT8
            limits = get_qmin_qmax_for_qType(zero.data_type, symmetric=symmetric)
            low, high = (np.float32(end) for end in ends)
            found = compute_scale_zp(low, high, *limits, symmetric)
            for tensor, value in zip((zero, scale), found, strict=True):
                tensor.CopyFrom(from_array(value.reshape(tensor.dims), tensor.name))
    _round_biases(result, prepared)
    return result


def _before_weights(prepared: Any) -> list[str]:
    """Returns the names of the nodes between the pixels and the first Conv or Gemm."""
    constants = {tensor.name for tensor in prepared.graph.initializer}
    made = {value.name for value in prepared.graph.input} | constants
    names = []
    for node in prepared.graph.node:
        if node.op_type not in WEIGHTED and made.issuperset(node.input):
            names.append(node.name)
            made.update(node.output)
    return names


def _widen_normalisation(quantized: Any, layers: Collection[str]) -> None:
    """Repeats the (1, C, 1, 1) constants of ``layers``, which normalise pixels, to a row's width.

    ONNX Runtime moves the layers before the Transpose, as int8 convolutions need NHWC. There,
    constants of (1, 1, W, C) scale a whole row at once instead of C values at a time.
    """
    from onnx.numpy_helper import from_array, to_array

    _, _, width, channels = quantized.graph.input[0].type.tensor_type.shape.dim
    read = {name for node in quantized.graph.node if node.name in layers for name in node.input}
    for tensor in quantized.graph.initializer:
        if tensor.name in read and tuple(tensor.dims) == (1, channels.dim_value, 1, 1):
            tensor.CopyFrom(
                from_array(to_array(tensor).repeat(width.dim_value, axis=3), tensor.name)
            )


def _round_weights(quantized: Any, prepared: Any, limit: int) -> None:
    """Rounds weights with a scale for each output channel.

    The quantizer can do so too, but its loop over channels would take most of its time.
    """
    import onnx
    from onnx.numpy_helper import from_array, to_array

    exact = {tensor.name: to_array(tensor) for tensor in prepared.graph.initializer}
    tensors = {tensor.name: tensor for tensor in quantized.graph.initializer}
    done: set[str] = set()
    for node, sources in _rounded(quantized):
        if sources[1].name in done:
            continue  # weights shared by two layers
        done.add(sources[1].name)
        weight, scale, zero = (tensors[name] for name in sources[1].input)
        values = exact[weight.name.removesuffix(_QUANTIZED)]
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        axis = 0 if node.op_type == "Conv" or transposed else 1
        others = tuple(each for each in range(values.ndim) if each != axis)
        step = (np.abs(values).max(axis=others).astype(np.float64) / limit).astype(np.float32)
        step[step < np.finfo(np.float32).tiny] = 1.0  # a channel of zeros
        levels = np.clip(np.round(values / np.expand_dims(step, others)), -limit, limit)
        weight.CopyFrom(from_array(levels.astype(np.int8), weight.name))
        scale.CopyFrom(from_array(step, scale.name))
        zero.CopyFrom(from_array(np.zeros(len(step), np.int8), zero.name))
        sources[1].attribute.append(onnx.helper.make_attribute("axis", axis))


def _round_biases(quantized: Any, prepared: Any) -> None:
    """Rounds each int32 bias to steps of input scale times weight scale."""
    import onnx
    from onnx.numpy_helper import from_array, to_array

    exact = {tensor.name: to_array(tensor) for tensor in prepared.graph.initializer}
    tensors = {tensor.name: tensor for tensor in quantized.graph.initializer}
    most = np.iinfo(np.int32).max
    for _, sources in _rounded(quantized):
        if len(sources) < 3:
            continue  # no bias, or a float32 one
        steps = [to_array(tensors[source.input[1]]) for source in sources[:2]]
        step = (steps[0] * steps[1]).astype(np.float32).reshape(-1)
        bias, scale, zero = (tensors[name] for name in sources[2].input)
        values = exact[bias.name.removesuffix(_QUANTIZED)] / step.astype(np.float64)
        levels = np.clip(np.round(values), -most - 1, most).astype(np.int32)
        bias.CopyFrom(from_array(levels, bias.name))
        scale.CopyFrom(from_array(step, scale.name))
        zero.CopyFrom(from_array(np.zeros(len(step), np.int32), zero.name))
        if not sources[2].attribute:
            sources[2].attribute.append(onnx.helper.make_attribute("axis", 0))


def _rounded(quantized: Any) -> Iterator[tuple[Any, list[Any]]]:
    """Yields each int8 Conv and Gemm, and the DequantizeLinear of its input, weight and bias."""
    makers = {name: node for node in quantized.graph.node for name in node.output}
    constants = {tensor.name for tensor in quantized.graph.initializer}
    for node in quantized.graph.node:
        if node.op_type in WEIGHTED:
            sources = [makers[name] for name in node.input if name in makers]
            if len(sources) > 1 and sources[1].input[0] in constants:
                yield node, sources


def _prevent_weight_rounding(model: Any, fp32_layers: Collection[str]) -> None:
    """Keeps ONNX Runtime from rounding the weights of float32 layers.

    A session converts the weights of every Conv and Gemm between a DequantizeLinear and a
    QuantizeLinear to int8 with one scale per tensor (WeightBiasQuantization), less accurately than
    per-channel int8. It skips layers whose input is dequantized per channel, so each gets its own
    DequantizeLinear, with the same scale for every channel.
    """
    import onnx
    from onnx.numpy_helper import from_array, to_array

    graph = model.graph
    constants = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    nodes = []
    for node in graph.node:
        maker = makers.get(node.input[0]) if node.name in fp32_layers else None
        weighted = node.op_type in WEIGHTED and node.input[1] in constants
        if weighted and maker is not None and maker.op_type == DEQUANTIZE:
            channels = _input_channels(node, constants[node.input[1]].shape)
            own = onnx.NodeProto()
            own.CopyFrom(maker)
            own.name = f"{node.name}_input"
            own.attribute.append(onnx.helper.make_attribute("axis", 1))
            for index in (1, 2):
                values = np.repeat(constants[maker.input[index]], channels)
                own.input[index] = f"{own.name}_{index}"
                graph.initializer.append(from_array(values, own.input[index]))
            own.output[0] = node.input[0] = f"{own.name}_float"
            nodes.append(own)
        nodes.append(node)
    set_nodes(graph, nodes)


def _input_channels(node: Any, weight: tuple[int, ...]) -> int:
    """Returns the number of input channels of a Conv or Gemm with a weight of such a shape."""
    values: dict[str, int] = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Conv":
        return weight[1] * values.get("group", 1)
    return weight[1] if values.get("transB") else weight[0]
