"""A Classifier, or a piece of a network, to an ONNX graph without shape arithmetic."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from core.errors import UserError, first_line
from models.classifier import Classifier

OPSET = 20
INPUT, OUTPUT, BATCH = "pixels", "logits", "batch"
EXAMPLE = 7  # images a network is traced with; no size that a layer would have of its own
SHAPE_ARITHMETIC = ("Expand", "Gather", "Range", "Shape", "Size", "Unsqueeze")


def to_onnx(network: Classifier, *, size: int) -> Any:
    """Returns the ONNX ``ModelProto`` of ``network``: uint8 (batch, size, size, 3) to logits.

    Raises:
        UserError: the graph would compute with shapes at run time.
    """
    return to_graph(network, (size, size, 3), torch.uint8)


def to_graph(network: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
    """Returns the ONNX ``ModelProto`` of any module with one input and one output.

    The batch dimension is free; batch norm is folded; the graph passes the full checker. Traces of
    source files are left out of it.

    Args:
        network: what to export, put into evaluation mode.
        shape: of the input, without the batch dimension; it is called :data:`INPUT`.
        dtype: of the input.

    Raises:
        UserError: the graph would compute with shapes at run time.
    """
    import onnx

    example = torch.zeros(EXAMPLE, *shape, dtype=dtype)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Deprecations inside torch's own exporter; nothing a caller could change.
        warnings.filterwarnings("ignore", module=r"torch\..*|onnxscript\..*|copyreg")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        try:
            program = torch.onnx.export(
                _folded(network.eval()),
                (example,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
                custom_translation_table=_translations(),
            )
        except torch.onnx.errors.OnnxExporterError as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise UserError(f"torch cannot export this network: {first_line(cause)}") from error
    assert program is not None
    model = _free_batch(program.model_proto)
    _strip_traces(model)
    onnx.checker.check_model(model, full_check=True)
    ops = Counter(node.op_type for node in model.graph.node)
    if found := [op for op in SHAPE_ARITHMETIC if op in ops]:
        raise UserError(
            f"the exported graph computes with shapes at run time ({', '.join(found)}): "
            "a layer depends on the batch size; write it with fixed sizes"
        )
    return model


def _folded(network: nn.Module) -> nn.Module:
    """Returns a copy of ``network`` with batch norm folded into its convolutions.

    The exporter would do it, too, to the same bits, but trace and rewrite twice as many nodes
    before. A network that torch.fx cannot trace, as it branches on values, is left to it.
    """
    try:
        folded: nn.Module = fuse(network)
    except Exception:  # whatever the network's own code makes of symbolic values
        return network
    return folded


def _free_batch(model: Any) -> Any:
    """Returns a graph that was traced with :data:`EXAMPLE` images, for any number of them.

    Traced with a free dimension, torch works out symbolic shapes at every step: that takes twice
    as long, and breaks operators into arithmetic with shapes.

    Raises:
        UserError: the number of images is in the graph otherwise than as the first dimension.
    """
    import onnx
    from onnx.numpy_helper import from_array, to_array

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in constants:
            shape = to_array(constants[node.input[1]]).copy()
            if shape[0] in (EXAMPLE, 0):  # 0 where another Reshape has the same shape
                shape[0] = 0  # as many as there are, unless an attribute says otherwise
                constants[node.input[1]].CopyFrom(from_array(shape, node.input[1]))
                del node.attribute[:]
    del graph.value_info[:]
    for end in (*graph.input, *graph.output):
        end.type.tensor_type.shape.dim[0].dim_param = BATCH
    try:
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise _bound_to_batch(first_line(error)) from None
    for info in (*model.graph.value_info, *model.graph.output):
        dims = info.type.tensor_type.shape.dim
        if info.name not in constants and len(dims) > 1 and dims[0].dim_param != BATCH:
            raise _bound_to_batch(f"{info.name} has another first dimension")
    return model


def _bound_to_batch(why: str) -> UserError:
    return UserError(
        f"the exported graph is bound to the number of images it was traced with ({why}): "
        "a layer depends on the batch size; write it with fixed sizes"
    )


def _translations() -> dict[Any, Any]:
    """Returns our own ONNX form for the operators that torch would decompose badly.

    Of adaptive_avg_pool2d torch makes mean and as_strided, and of the latter a chain of Shape,
    Range and Gather that computes indices at run time. Windows that are not all of one size, as
    where 2x2 features are pooled to 7x7, are a product with a constant matrix for each axis.
    """
    from onnx.numpy_helper import from_array
    from onnxscript import opset20 as op

    def adaptive_avg_pool2d(x, output_size):  # type: ignore[no-untyped-def]
        if list(output_size) == [1, 1]:
            return op.GlobalAveragePool(x)
        sides = list(x.shape[2:])
        window = [side // out for side, out in zip(sides, output_size, strict=True)]
        if [side * out for side, out in zip(window, output_size, strict=True)] != sides:
            rows, columns = (
                _pooling(side, out) for side, out in zip(sides, output_size, strict=True)
            )
            pooled = op.MatMul(op.Constant(value=from_array(rows)), x)
            return op.MatMul(pooled, op.Constant(value=from_array(columns.T.copy())))
        if window == [1, 1]:
            return op.Identity(x)
        return op.AveragePool(x, kernel_shape=window, strides=window)

    return {torch.ops.aten.adaptive_avg_pool2d.default: adaptive_avg_pool2d}


def _pooling(side: int, out: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Returns the matrix (out, side) whose rows average the windows of adaptive_avg_pool2d.

    Window i of torch's begins at floor(i * side / out) and ends at ceil((i + 1) * side / out).
    """
    matrix = np.zeros((out, side), dtype=np.float32)
    for window in range(out):
        start, end = window * side // out, -(-(window + 1) * side // out)
        matrix[window, start:end] = 1 / (end - start)
    return matrix


def _strip_traces(model: Any) -> None:
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, graph, model):
        del part.metadata_props[:]
        part.doc_string = ""
