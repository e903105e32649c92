"""Exports a Classifier, or a part of a network, to an ONNX graph with a dynamic batch size."""

from __future__ import annotations

import copy
import logging
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx.experimental.optimization import fuse
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.errors import UserError, first_line
from core.image_size import Size, sides
from export.free_batch import EXAMPLE, bound_to_batch, free_batch, keeps_images_apart
from models.classifier import Classifier

OPSET = 20
INPUT, OUTPUT = "pixels", "logits"
_BATCHES = (2, 3, 8)  # batch sizes with which a graph is run to check it
_CLOSE = 1e-3  # relative to the largest output: rounding causes 1e-6 to 1e-4, mixed-up images more


def to_onnx(network: Classifier, *, size: Size) -> Any:
    """Returns the ONNX ``ModelProto`` of ``network``: uint8 (batch, H, W, 3) to logits.

    Raises:
        UserError: torch cannot export it, or its output depends on the batch size.
    """
    return to_graph(network, (*sides(size), network.channels), torch.uint8)


def to_graph(network: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
    """Returns the ONNX ``ModelProto`` of any module with one input and one output.

    The batch dimension is dynamic; batch norm is folded; the graph passes the full checker. It
    contains no paths of source files.

    Args:
        network: module to export; it is put into evaluation mode.
        shape: shape of the input, named :data:`INPUT`, without the batch dimension.
        dtype: dtype of the input.

    Raises:
        UserError: torch cannot export it, or what it answers depends on the number of images.
    """
    import onnx

    example = torch.empty(EXAMPLE, *shape, dtype=dtype)  # only its shape is used
    folded = _folded(network.eval(), torch.zeros(1, *shape, dtype=dtype))
    model = free_batch(_exported(folded, example, input_names=[INPUT], output_names=[OUTPUT]))
    _strip_traces(model)
    onnx.checker.check_model(model, full_check=True)
    if not keeps_images_apart(model):
        _check_batches(model, shape, dtype)
    return model


def program_to_onnx(program: ExportedProgram) -> Any:
    """Returns the ONNX ``ModelProto`` of an exported program, its ends as they are in that.

    Raises:
        UserError: torch cannot export it.
    """
    import onnx

    model = _exported(program)
    _strip_traces(model)
    return onnx.shape_inference.infer_shapes(model)


def _exported(
    network: nn.Module | ExportedProgram, example: torch.Tensor | None = None, **names: Any
) -> Any:
    """Returns the ``ModelProto`` that torch makes of ``network``.

    Raises:
        UserError: it cannot.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    # Other attention kernels lay out their results differently from the products that torch
    # decomposes attention into, so a reshape traced as a view would be invalid for them.
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        # Deprecation warnings from inside torch's exporter, which callers cannot avoid.
        warnings.filterwarnings("ignore", module=r"torch\..*|onnxscript\..*|copyreg")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        try:
            exported = torch.onnx.export(
                network,
                () if example is None else (example,),
                **names,
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
    assert exported is not None
    return exported.model_proto


def _check_batches(model: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Raises UserError unless a batch gives the same outputs as its images one by one.

    The images differ in brightness, so a network that averages over the batch is detected.
    """
    from onnxruntime import InferenceSession

    draw = torch.Generator().manual_seed(0)
    brightness = torch.linspace(0.1, 1, max(_BATCHES)).view(-1, *[1] * len(shape))
    images = torch.rand(max(_BATCHES), *shape, generator=draw) * brightness
    values = (255 * images if dtype == torch.uint8 else images).to(dtype).numpy()
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(images: Any) -> Any:
        try:
            (outputs,) = session.run(None, {INPUT: images})
        except Exception as error:  # ONNX Runtime's have no public base class
            raise bound_to_batch(f"{len(images)} at once: {first_line(error)}") from error
        return outputs

    alone = np.concatenate([run(values[index : index + 1]) for index in range(len(values))])
    for batch in _BATCHES:
        outputs, expected = run(values[:batch]), alone[:batch]
        far = np.abs(outputs - expected).max() if outputs.shape == expected.shape else np.inf
        if not far <= _CLOSE * np.abs(alone).max():
            raise bound_to_batch(f"{batch} images at once are answered otherwise than one by one")


def _folded(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """Returns a copy of ``network`` with batch norm folded into its convolutions.

    The exporter would do so with the same result, but trace and rewrite twice as many nodes. If
    torch.fx cannot trace a network, because it branches on values, the exporter does it. The
    network runs once on ``example``, so that what it caches in its first call, such as attention
    biases, does not come from a trace, which computes no values.
    """
    try:
        folded: nn.Module = fuse(network)
    except Exception:  # any exception of the network's code on symbolic values
        folded = copy.deepcopy(network)
        with torch.no_grad():
            folded(example)
    return folded


def _translations() -> dict[Any, Any]:
    """Returns our own ONNX translations of operators that torch would decompose badly.

    torch decomposes adaptive_avg_pool2d into mean and as_strided, and the latter into Shape, Range
    and Gather nodes that compute indices at run time. Here, windows of different sizes (such as
    2x2 features pooled to 7x7) become a product with a constant matrix per axis.
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

    In torch, window i starts at floor(i * side / out) and ends at ceil((i + 1) * side / out).
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
