"""Adds channels of zeros where a runtime wants a multiple of four.

On x86 ONNX Runtime computes convolutions several times as fast in blocks of channels, but takes an
input into blocks only if its channels are a multiple of four. In the second stage of ShuffleNetV2
(arXiv 1807.11164, Table 5) 58 channels go through a depthwise convolution.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.node_attributes import attributes
from export.rewrites.channels import Moves
from export.rewrites.unread import set_nodes

_MULTIPLE = 4
_MOST = 0.1  # most channels of zeros, of those that are there


def fill_blocks(model: Any) -> int:
    """Makes the channels of convolutions a multiple of four, in place; returns of how many.

    Channels are added if only convolutions without groups read them, also behind depthwise ones,
    and if they are few. They are 0, and are multiplied by weights of 0.

    Args:
        model: float32 ``ModelProto``.
    """
    import onnx

    filling = _Filling(model.graph)
    names = [name for node in model.graph.node for name in node.output]
    filled = sum(map(filling.fill, names))
    if filled:
        set_nodes(model.graph, list(model.graph.node))
        del model.graph.value_info[:]
        model.CopyFrom(onnx.shape_inference.infer_shapes(model, strict_mode=True))
    return filled


class _Filling:
    def __init__(self, graph: Any) -> None:
        self._moves = Moves(graph)
        self._graph = graph

    def fill(self, name: str) -> bool:
        """Adds channels to a tensor if that is possible and needed; returns whether it was."""
        moves, conv = self._moves, self._moves.conv_of(name)
        if conv is None or name in moves.outputs:
            return False
        readers = moves.readers[name]
        count = len(moves.constants[conv.input[1]])
        lack = -count % _MULTIPLE
        if not readers or not 0 < lack <= _MOST * count:
            return False
        if not all(moves.mixes(each) or moves.behind_depthwise(each) for each in readers):
            return False
        self._add_outputs(conv, lack)
        for reader in readers:
            ends = [reader]
            if not moves.mixes(reader):
                ends = moves.behind_depthwise(reader)
                self._add_outputs(reader, lack)
                groups = next(each for each in reader.attribute if each.name == "group")
                groups.i = attributes(reader)["group"] + lack
            for end in ends:
                self._add(end, 1, lack, axis=1)
        return True

    def _add_outputs(self, conv: Any, lack: int) -> None:
        for index in range(1, len(conv.input)):
            self._add(conv, index, lack, axis=0)

    def _add(self, conv: Any, index: int, lack: int, *, axis: int) -> None:
        values = self._moves.constants[conv.input[index]]
        widths = [(0, lack if each == axis else 0) for each in range(values.ndim)]
        self._moves.write(conv, index, np.pad(values, widths))
