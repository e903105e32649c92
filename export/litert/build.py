"""Builds the model file of a LiteRT artifact."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from artifact.artifact import Artifact
from export.litert.metadata import NAME, metadata_of, with_labels
from export.litert.to_tflite import to_tflite


def build(draft: Artifact, graph: bytes, batches: Sequence[int]) -> Artifact:
    """Returns ``draft`` with its .tflite file, metadata and labels in it, in its folder.

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
    file = to_tflite(model, half=draft.precision == "fp16", metadata={NAME: metadata_of(draft)})
    draft.model_file.write_bytes(with_labels(file, draft.labels))
    return draft
