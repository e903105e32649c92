"""A float32 ONNX graph to int8, given the range of every activation and the layers to leave."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

DEQUANTIZE = "DequantizeLinear"
WEIGHTED = ["Conv", "Gemm"]
_QUANTIZED = "_quantized"  # what the quantizer adds to the name of a constant
Range = tuple[float, float]  # smallest and largest value of an activation


def prepare(model: Any) -> Any:
    """Returns the ONNX ``ModelProto`` as the quantizer wants it: folded, with all shapes inferred.

    Every node has a name, which is what layers are called by.
    """
    import onnx
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        # Files, not protos: given a proto, ONNX Runtime moves its weights to a file and loses them.
        plain, prepared = (Path(folder) / name for name in ("fp32.onnx", "prepared.onnx"))
        onnx.save(model, plain)
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        result = load_model_with_shape_infer(prepared)
    for index, node in enumerate(result.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return result


def to_int8(
    prepared: Any,
    ranges: Mapping[str, Range],
    fp32_layers: Collection[str] = (),
    *,
    symmetric: bool = False,
) -> Any:
    """Returns an ONNX ``ModelProto`` in QDQ form, with int8 weights per channel.

    For a CPU activations are uint8, and weights use 7 of their 8 bits (``reduce_range``), because
    products of full-range uint8 and int8 overflow the 16-bit sums of CPUs with AVX2 and no VNNI.

    Args:
        prepared: float32 graph from :func:`prepare`.
        ranges: of every activation; values outside are clipped.
        fp32_layers: names of nodes that stay as they are.
        symmetric: the form TensorRT takes: activations are int8 around zero, weights have all
            their bits, biases stay float32, and only what a Conv or Gemm reads is rounded, so that
            it is fused with what follows it.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    # What quantize_static does once it has calibrated; here the ranges are known already.
    quantizer = QDQQuantizer(
        copy.deepcopy(prepared),
        per_channel=True,
        reduce_range=not symmetric,
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
        nodes_to_exclude=list(fp32_layers),
        op_types_to_quantize=WEIGHTED if symmetric else sorted({*QLinearOpsRegistry, *QDQRegistry}),
        extra_options={
            # Logits of 8 bits tie, and a tie is decided by the order of the classes.
            "OpTypesToExcludeOutputQuantization": WEIGHTED if symmetric else ["Gemm"],
            "ActivationSymmetric": symmetric,
            "QuantizeBias": not symmetric,
            "TensorQuantOverrides": _weight_scales(prepared, weight_limit(symmetric=symmetric)),
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result = quantizer.model.model
    _shield(result, fp32_layers)
    return result


def with_ranges(quantized: Any, prepared: Any, ranges: Mapping[str, Range]) -> Any:
    """Returns a copy of a graph from :func:`to_int8`, all layers in int8, with other ranges.

    Weights are as they were: to find and apply their scales, a channel at a time, is most of what
    the quantizer takes.

    Args:
        quantized: graph whose ranges are replaced.
        prepared: the float32 graph it was made from.
        ranges: of every activation.
    """
    import onnx
    from onnx.numpy_helper import from_array, to_array
    from onnxruntime.quantization.quant_utils import compute_scale_zp, get_qmin_qmax_for_qType

    result = onnx.ModelProto()
    result.CopyFrom(quantized)
    tensors = {tensor.name: tensor for tensor in result.graph.initializer}
    makers = {name: node for node in result.graph.node for name in node.output}
    for name, ends in ranges.items():
        if (scale := tensors.get(f"{name}_scale")) is not None:
            zero = tensors[f"{name}_zero_point"]
            symmetric = zero.data_type == onnx.TensorProto.INT8
            limits = get_qmin_qmax_for_qType(zero.data_type, symmetric=symmetric)
            low, high = (np.float32(end) for end in ends)
            found = compute_scale_zp(low, high, *limits, symmetric)
            for tensor, value in zip((zero, scale), found, strict=True):
                tensor.CopyFrom(from_array(value.reshape(tensor.dims), tensor.name))
    exact = {tensor.name: to_array(tensor) for tensor in prepared.graph.initializer}
    most = np.iinfo(np.int32).max
    for node in result.graph.node:
        sources = [makers[name] for name in node.input if name in makers]
        if node.op_type not in WEIGHTED or len(sources) < 3:
            continue  # no bias, or one in float32
        steps = [to_array(tensors[source.input[1]]) for source in sources[:2]]
        step = (steps[0] * steps[1]).astype(np.float32).reshape(-1)
        bias, scale = (tensors[name] for name in sources[2].input[:2])
        values = exact[bias.name.removesuffix(_QUANTIZED)] / step.astype(np.float64)
        levels = np.clip(np.round(values), -most - 1, most).astype(np.int32)
        bias.CopyFrom(from_array(levels, bias.name))
        scale.CopyFrom(from_array(step.reshape(scale.dims), scale.name))
    return result


def _weight_scales(prepared: Any, limit: int) -> dict[str, list[dict[str, Any]]]:
    """Returns the scale of each channel of each weight, by name, as the quantizer takes it.

    It would find the same, in a loop over all channels that takes most of its time.
    """
    from onnx.numpy_helper import to_array

    constants = {tensor.name: to_array(tensor) for tensor in prepared.graph.initializer}
    found = {}
    for node in prepared.graph.node:
        if node.op_type not in WEIGHTED or node.input[1] not in constants:
            continue
        weight = constants[node.input[1]]
        turned = any(a.name == "transB" and a.i for a in node.attribute)
        axis = 0 if node.op_type == "Conv" or turned else 1
        others = tuple(each for each in range(weight.ndim) if each != axis)
        scale = (np.abs(weight).max(axis=others).astype(np.float64) / limit).astype(np.float32)
        scale[scale < np.finfo(np.float32).tiny] = 1.0  # a channel of zeros
        zero = np.int8(0)
        found[node.input[1]] = [{"axis": axis, "scale": s, "zero_point": zero} for s in scale]
    return found


def weight_limit(*, symmetric: bool) -> int:
    """Returns the largest weight :func:`to_int8` makes, which is that of the smallest, negated."""
    return 127 if symmetric else 64


def _shield(model: Any, fp32_layers: Collection[str]) -> None:
    """Keeps ONNX Runtime from rounding the weights of float32 layers after all.

    A session turns the weights of every Conv and Gemm between a DequantizeLinear and a
    QuantizeLinear to int8, with one scale for the whole tensor (its WeightBiasQuantization): worse
    than what the layer was spared. It leaves those alone whose input is dequantized per channel,
    so they get a DequantizeLinear of their own that has the same scale for each channel.
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
    read = {name for node in nodes for name in node.input} | {out.name for out in graph.output}
    kept = [node for node in nodes if not read.isdisjoint(node.output)]
    del graph.node[:]
    graph.node.extend(kept)


def _input_channels(node: Any, weight: tuple[int, ...]) -> int:
    """Returns how many channels a Conv or Gemm with such a weight reads."""
    values: dict[str, int] = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Conv":
        return weight[1] * values.get("group", 1)
    return weight[1] if values.get("transB") else weight[0]
