"""A network of three classes, the mean of each colour channel, and an artifact that says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from artifact.artifact import Artifact
from artifact.records import Limits, Parity, Source, TensorSpec
from core.preprocess import Preprocess

PARITY = Parity(
    runtime="ort-cpu",
    reference="torch",
    images=3,
    batches=(1,),
    finite=True,
    top1_agreement=1.0,
    relative_error=0.0,
    batch_error=0.0,
    golden_error=0.0,
)


def colour_means(side: int) -> onnx.ModelProto:
    """Returns the graph: uint8 ("batch", side, side, 3) to the mean of each channel."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["logits"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", side, side, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])],
    )
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


def tiny_artifact(path: Path, side: int, **changes: Any) -> Artifact:
    """Returns what a manifest of such a network says; ``changes`` replace fields."""
    fields: dict[str, Any] = {
        "model": "channels",
        "data": "colours",
        "weights": "trained",
        "precision": "fp32",
        "format": "onnx",
        "labels": ("red", "green", "blue"),
        "preprocess": Preprocess(resize=side, crop=side),
        "input": TensorSpec(name="pixels", dtype="uint8", shape=("batch", side, side, 3)),
        "output": TensorSpec(name="logits", dtype="float32", shape=("batch", 3)),
        "batch_range": (1, 2),
        "macs": 0,
        "parameters": 0,
        "limits": Limits(top1_agreement=1.0, top1_drop=None, golden_error=1e-3),
        "parity": PARITY,
        "metrics": None,
        "unverified": None,
        "source": Source(checkpoint=None, sha256=None, origin="made by hand"),
        "versions": {},
        "sha256s": {},
    }
    return Artifact(path=path, **{**fields, **changes})
