"""A Classifier to an ONNX graph without shape arithmetic."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from typing import Any

import torch

from models.classifier import Classifier
from models.errors import UserError, first_line

OPSET = 20
INPUT, OUTPUT, BATCH = "pixels", "logits", "batch"
SHAPE_ARITHMETIC = ("Expand", "Gather", "Range", "Shape", "Size", "Unsqueeze")


def to_onnx(network: Classifier, *, size: int, max_batch: int) -> Any:
    """Returns the ONNX ``ModelProto`` of ``network``: uint8 (batch, size, size, 3) to logits.

    The batch dimension is free from 1 to ``max_batch``; batch norm is folded; the graph passes
    the full checker. Traces of source files are left out of it.

    Raises:
        UserError: the graph would compute with shapes at run time.
    """
    import onnx

    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    batch = torch.export.Dim(BATCH, min=1, max=max_batch)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Deprecations inside torch's own exporter; nothing a caller could change.
        warnings.filterwarnings("ignore", module=r"torch\..*|onnxscript\..*|copyreg")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        try:
            program = torch.onnx.export(
                network.eval(),
                (example,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={"pixels": {0: batch}},
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
    model = program.model_proto
    _strip_traces(model)
    onnx.checker.check_model(model, full_check=True)
    ops = Counter(node.op_type for node in model.graph.node)
    if found := [op for op in SHAPE_ARITHMETIC if op in ops]:
        raise UserError(
            f"the exported graph computes with shapes at run time ({', '.join(found)}): "
            "a layer depends on the batch size; write it with fixed sizes"
        )
    return model


def _translations() -> dict[Any, Any]:
    """Returns our own ONNX form for the operators that torch would decompose badly.

    With a free batch dimension torch breaks adaptive_avg_pool2d into mean and as_strided, and the
    latter into a chain of Shape, Range and Gather that computes indices at run time.
    """
    from onnxscript import opset20 as op

    def adaptive_avg_pool2d(x, output_size):  # type: ignore[no-untyped-def]
        if list(output_size) == [1, 1]:
            return op.GlobalAveragePool(x)
        sides = list(x.shape[2:])
        window = [side // out for side, out in zip(sides, output_size, strict=True)]
        if [side * out for side, out in zip(window, output_size, strict=True)] != sides:
            raise UserError(
                f"adaptive_avg_pool2d from {sides} to {list(output_size)}: only whole windows "
                "can be exported; choose another input size"
            )
        if window == [1, 1]:
            return op.Identity(x)
        return op.AveragePool(x, kernel_shape=window, strides=window)

    return {torch.ops.aten.adaptive_avg_pool2d.default: adaptive_avg_pool2d}


def _strip_traces(model: Any) -> None:
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, graph, model):
        del part.metadata_props[:]
        part.doc_string = ""
