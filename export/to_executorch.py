"""The .pte file of an ExecuTorch artifact: the network lowered to XNNPACK."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch

from artifact.artifact import Artifact
from export.network import rebuild
from models.inference_form import inference_form


def build(draft: Artifact, graph: bytes, batches: Sequence[int]) -> Artifact:
    """Returns ``draft`` with its .pte file in its folder.

    Args:
        draft: the artifact, in float32.
        graph: serialized ``ModelProto``; not read, as ExecuTorch takes networks of torch alone.
        batches: sizes to optimise for; the program is for one image, for which memory is planned.

    Raises:
        UserError: the network is not torch's, but an ONNX graph, or no file keeps its weights.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    side = draft.preprocess.crop
    network = inference_form(rebuild(draft)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside these libraries
        program = torch.export.export(
            network, (torch.zeros(1, side, side, 3, dtype=torch.uint8),), strict=False
        )
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        draft.model_file.write_bytes(lowered.to_executorch().buffer)
    return draft
