"""Folds channel shuffles into the weights of the convolutions around them.

A shuffle between concatenations and splits only decides which channels a convolution reads, in
which order. If each convolution makes its channels in the order in which others need them, and
reads channels as they come, splits and concatenations of adjacent channels are all that remains. In
a stage of ShuffleNetV2 (arXiv 1807.11164, Section 3.2) a channel is then copied by the one unit
that computes with it, and no longer by every unit that passes it on.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from export.rewrites.channels import Channel, Channels, Moves
from export.rewrites.unread import set_nodes


class Part(NamedTuple):
    """Adjacent channels of a source, all in the same result: a tensor that other nodes read."""

    channels: Channels
    result: str

    @property
    def source(self) -> str:
        """Returns the tensor that they are channels of."""
        return self.channels[0].source


def fold_shuffles(model: Any) -> int:
    """Removes the channel shuffles that can be folded, in place; returns how many.

    They can if convolutions without groups make what is shuffled, and such convolutions read it,
    also behind a depthwise one. The network computes the same products; only the order changes in
    which a convolution adds them up.

    Args:
        model: float32 ``ModelProto``.
    """
    import onnx

    folding = _Folding(model.graph)
    folded = sum(folding.fold(results) for results in folding.moves.groups())
    if folded:
        folding.write()
        model.CopyFrom(onnx.shape_inference.infer_shapes(model, strict_mode=True))
    return folded


class _Folding:
    def __init__(self, graph: Any) -> None:
        self.moves = Moves(graph)
        self._graph = graph
        self._parts: dict[str, list[Part]] = {}  # that a source is split into
        self._made: dict[str, list[Part]] = {}  # that a result is made of

    def fold(self, results: Sequence[str]) -> int:
        """Reorders the weights around ``results``; returns how many shuffles that replaces."""
        moves = self.moves
        places: dict[Channel, tuple[int, int]] = {}
        for index, name in enumerate(results):
            for place, channel in enumerate(moves.channels[name]):
                if channel in places:
                    return 0  # it is needed twice
                places[channel] = index, place
        parts: dict[str, list[Part]] = {}
        for source in dict.fromkeys(channel.source for channel in places):
            if not places.keys() >= set(moves.channels[source]):
                return 0  # a channel is never needed
            channels = sorted(moves.channels[source], key=places.__getitem__)
            for index, needed in groupby(channels, key=lambda channel: places[channel][0]):
                parts.setdefault(source, []).append(Part(tuple(needed), results[index]))
        made: dict[str, list[Part]] = {name: [] for name in results}
        every = [part for each in parts.values() for part in each]
        for part in sorted(every, key=lambda part: places[part.channels[0]]):
            made[part.result].append(part)
        orders = {
            name: [places[channel][1] for part in made[name] for channel in part.channels]
            for name in results
        }
        moved = {name: order for name, order in orders.items() if order != sorted(order)}
        if not all(self._takes_any_order(name) for name in moved):
            return 0
        for source in parts:
            order = [channel.number for part in parts[source] for channel in part.channels]
            self._reorder_outputs(moves.conv_of(source), order)
        for name, order in moved.items():
            for reader in moves.readers[name]:
                self._reorder_inputs(reader, order)
        self._parts |= parts
        self._made |= made
        return moves.shuffles(parts.keys())

    def _takes_any_order(self, name: str) -> bool:
        moves = self.moves
        return name not in moves.outputs and all(
            moves.mixes(node) or moves.behind_depthwise(node) for node in moves.readers[name]
        )

    def _reorder_inputs(self, conv: Any, order: Sequence[int]) -> None:
        """Makes a convolution read channels that come in ``order``."""
        readers = [conv]
        if not self.moves.mixes(conv):
            readers = self.moves.behind_depthwise(conv)
            self._reorder_outputs(conv, order)
        for reader in readers:
            self._reorder(reader, 1, order, axis=1)

    def _reorder_outputs(self, conv: Any, order: Sequence[int]) -> None:
        for index in range(1, len(conv.input)):
            self._reorder(conv, index, order, axis=0)

    def _reorder(self, conv: Any, index: int, order: Sequence[int], *, axis: int) -> None:
        values = self.moves.constants[conv.input[index]]
        self.moves.write(conv, index, values.take(order, axis=axis))

    def write(self) -> None:
        """Writes the splits and concatenations that remain, in place of what was folded."""
        from onnx.helper import make_node
        from onnx.numpy_helper import from_array

        names = {part: self._name(part) for parts in self._parts.values() for part in parts}
        joined = {name: [names[part] for part in parts] for name, parts in self._made.items()}
        nodes = []
        for node in self._graph.node:
            if self.moves.moves(node, self._parts.keys()):
                continue
            for index, name in enumerate(node.input):
                inputs = joined.get(name, [])
                if len(inputs) == 1:
                    node.input[index] = inputs[0]
                elif inputs:
                    nodes.append(make_node("Concat", inputs, [name], name=name, axis=1))
                    del joined[name]
            nodes.append(node)
            for source in node.output:
                if len(parts := self._parts.get(source, [])) > 1:
                    sizes = np.array([len(part.channels) for part in parts])
                    self._graph.initializer.append(from_array(sizes, f"{source}/sizes"))
                    inputs, outputs = [source, f"{source}/sizes"], [names[part] for part in parts]
                    nodes.append(make_node("Split", inputs, outputs, name=inputs[1], axis=1))
        made = {name for node in nodes for name in node.output}
        infos = [info for info in self._graph.value_info if info.name in made]
        del self._graph.value_info[:]
        self._graph.value_info.extend(infos)
        set_nodes(self._graph, nodes)

    def _name(self, part: Part) -> str:
        """Returns the name of the tensor that holds a part."""
        parts = self._parts[part.source]
        if len(parts) == 1:
            return part.source
        if self._made[part.result] == [part]:
            return part.result
        return f"{part.source}/part_{parts.index(part)}"
