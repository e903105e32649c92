"""The model files of an OpenVINO artifact: an int8 graph in which OpenVINO can fuse activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx

from artifact.artifact import Artifact
from artifact.records import Rewrite
from export.rewrites.float_activations import round_inputs_only


def build(draft: Artifact, graph: bytes, batches: Sequence[int]) -> Artifact:
    """Returns ``draft`` with its .xml and .bin file in its folder.

    Args:
        draft: the artifact.
        graph: serialized ``ModelProto`` in QDQ form.
        batches: sizes to optimise for; a graph is compiled for one image and for any number.
    """
    import openvino

    model = onnx.load_from_string(graph)
    changed = round_inputs_only(model)
    onnx.checker.check_model(model, full_check=True)
    read = openvino.Core().read_model(model.SerializeToString())
    openvino.save_model(read, draft.model_file, compress_to_fp16=False)
    rewrites: dict[Rewrite, int] = {**draft.rewrites, "float_activations": changed}
    rewrites.pop("hard_sigmoid", None)  # it is in float32 again
    return replace(draft, rewrites=rewrites)
