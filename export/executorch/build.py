"""The .pte file of an ExecuTorch artifact: the network, or its int8 graph, lowered to XNNPACK."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import onnx
import torch
from torch.fx import GraphModule

from artifact.artifact import Artifact
from export.executorch.converter import Converter
from export.executorch.operators import HANDLERS
from export.rebuild import rebuild
from export.rewrites.pixel_order import restore
from models.inference_form import inference_form


def build(draft: Artifact, graph: bytes, batches: Sequence[int]) -> Artifact:
    """Returns ``draft`` with its .pte file in its folder.

    Args:
        draft: the artifact.
        graph: serialized ``ModelProto``, in QDQ form for an int8 artifact. That of a float32 one is
            not read, as ExecuTorch takes what torch exports.
        batches: sizes to optimise for; the program is for one image, for which memory is planned.

    Raises:
        UserError: the network of a float32 artifact is not torch's, but an ONNX graph, or no file
            keeps its weights; torch has no form of a node of an int8 graph.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    image = torch.zeros(1, *draft.preprocess.shape, dtype=torch.uint8)
    network = _network(draft, graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside these libraries
        program = torch.export.export(network, (image,), strict=False)
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        draft.model_file.write_bytes(lowered.to_executorch().buffer)
    return draft


def to_network(model: Any) -> GraphModule:
    """Returns an ONNX graph as a network of torch for one image; see :class:`Converter`.

    Args:
        model: ``ModelProto`` in QDQ form: uint8 ("batch", H, W, 3) in, float32 ("batch", classes)
            out; its Transpose is moved to the front, in place.

    Raises:
        UserError: an operator, or a form of it, that is not taken; the message names the node.
    """
    restore(model)
    return Converter(model).convert(HANDLERS)


def _network(draft: Artifact, graph: bytes) -> torch.nn.Module:
    if draft.precision == "int8":
        return to_network(onnx.load_from_string(graph))
    return inference_form(rebuild(draft)).eval()
