"""The model files of an OpenVINO artifact: float32 weights to compute with in bfloat16, or int8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx

from artifact.artifact import Artifact
from artifact.records import Rewrite
from artifact.runtimes.openvino_cpu import core
from export.rewrites.float_activations import round_inputs_only


def build(draft: Artifact, graph: bytes, batches: Sequence[int]) -> Artifact:
    """Returns ``draft`` with its .xml and .bin file in its folder.

    Args:
        draft: the artifact.
        graph: serialized ``ModelProto``, in QDQ form for int8. There only inputs of convolutions
            and sums before a ReLU stay rounded, so that OpenVINO can fuse activations.
        batches: sizes to optimise for; a graph is compiled for one image and for any number.
    """
    import openvino

    model = onnx.load_from_string(graph)
    rewrites: dict[Rewrite, int] = {**draft.rewrites}
    if draft.precision == "int8":
        if changed := round_inputs_only(model):  # none of some networks of sums
            rewrites["float_activations"] = changed
        rewrites.pop("hard_sigmoid", None)  # it is in float32 again
        onnx.checker.check_model(model, full_check=True)
    read = core().read_model(model.SerializeToString())
    openvino.save_model(read, draft.model_file, compress_to_fp16=False)
    return replace(draft, rewrites=rewrites)
