"""Runs a graph on real images in ONNX Runtime on a CPU and returns its activations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from artifact.records import Logits
from core.preprocess import Pixels
from export.to_onnx import INPUT

Activation = npt.NDArray[np.float32]

# Images per batch of 224x224, and the most of smaller ones: all activations of a batch are in
# memory together.
BATCH, MOST = 8, 32
SIDE = 224  # image size to which numbers of images refer
FEWEST = 8  # least number of images, however large they are


def activations(model: Any) -> list[str]:
    """Returns the names of the float32 results of nodes, in the order of the graph.

    Args:
        model: an ONNX ``ModelProto`` with all types inferred.
    """
    import onnx

    infos = [*model.graph.value_info, *model.graph.output]
    kinds = {info.name: info.type.tensor_type.elem_type for info in infos}
    made = (name for node in model.graph.node for name in node.output)
    return [name for name in made if kinds.get(name) == onnx.TensorProto.FLOAT]


def with_outputs(model: Any, names: Sequence[str]) -> Any:
    """Returns a copy of ``model`` whose only outputs are the float32 tensors ``names``."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    return copy


def affordable(pixels: Pixels, images: int) -> int:
    """Returns how many of ``pixels`` cost about as much as ``images`` images of 224x224.

    At most twice as many, however small they are.
    """
    count = min(2 * images, images * SIDE**2 // pixels[0, :, :, 0].size)
    return min(len(pixels), max(FEWEST, count))


def run_probe(model: Any, pixels: Pixels) -> Iterator[list[Activation]]:
    """Yields the outputs of ``model`` for successive batches of ``pixels``.

    Args:
        model: an ONNX ``ModelProto``.
        pixels: uint8 (n, H, W, 3).
    """
    session = _session(model)
    for batch in probe_batches(pixels):
        yield session.run(None, {INPUT: batch})


def probe_batches(pixels: Pixels) -> Iterator[Pixels]:
    """Yields ``pixels`` in the batches of :func:`run_probe`."""
    batch = min(MOST, max(1, BATCH * SIDE**2 // pixels[0, :, :, 0].size))
    for start in range(0, len(pixels), batch):
        yield pixels[start : start + batch]


def logits_of(model: Any, pixels: Pixels) -> Logits:
    """Returns float32 (n, C) of ``pixels`` uint8 (n, H, W, 3)."""
    return np.concatenate([logits for (logits,) in run_probe(model, pixels)])


def _session(model: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
