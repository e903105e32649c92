"""Builds the model file of a LiteRT artifact."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from artifact.artifact import Artifact
from export.litert.to_tflite import to_tflite


def build(draft: Artifact, graph: bytes, batches: Sequence[int]) -> Artifact:
    """Returns ``draft`` with its .tflite file in its folder.

    Args:
        draft: the artifact; float16 ones store their weights as such, and compute in float32 where
            the processor has no float16.
        graph: serialized ``ModelProto``, in float32 or in QDQ form.
        batches: sizes to optimise for. An interpreter is fitted to any size once it is loaded, so
            none of them needs a file of its own.

    Raises:
        Unconvertible: TFLite has no form of a node of the graph.
    """
    model = onnx.load_from_string(graph)
    draft.model_file.write_bytes(to_tflite(model, half=draft.precision == "fp16"))
    return draft
