"""Follows channels through the nodes of a graph that only move them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import accumulate, chain, pairwise, repeat
from typing import Any, NamedTuple

import numpy.typing as npt

from export.node_attributes import attributes
from export.rewrites.links import Links

_SWAP = [0, 2, 1, 3, 4]  # of groups and the channels in them, between two Reshapes
_ACTIVATIONS = ("Relu", "Clip")


class Channel(NamedTuple):
    """A channel of a source: of what a convolution without groups makes."""

    source: str
    number: int


Channels = tuple[Channel, ...]


class Moves:
    """The nodes that only move channels: Concat, Split, and the three nodes of a shuffle.

    Attributes:
        constants: values of the graph's constants, by name.
        readers: nodes that read a tensor, by its name.
        outputs: names of the graph's outputs.
        channels: what channels a tensor consists of, by its name, where that is known.
    """

    def __init__(self, graph: Any) -> None:
        links = Links(graph)
        self._graph = graph
        self.constants, self.readers, self._makers = links.constants, links.readers, links.makers
        self.outputs = {output.name for output in graph.output}
        self.channels: dict[str, Channels] = {}
        self._moved: dict[str, str] = {}  # results of such nodes: a tensor of the same sources
        self._shuffled: list[str] = []
        for node in graph.node:
            nodes = self._shuffle(node) if node.op_type == "Reshape" else [node]
            moved = self._swapped(nodes) if len(nodes) == 3 else self._arranged(node)
            for name, channels in zip(nodes[-1].output, moved, strict=False):
                self.channels[name] = channels
                self._moved |= {each.output[0]: name for each in nodes}
            if moved and len(nodes) == 3:
                self._shuffled.append(nodes[-1].output[0])

    def moves(self, node: Any, sources: Collection[str] = ()) -> bool:
        """Returns whether a node only moves channels: those of ``sources`` if any are named."""
        name = self._moved.get(node.output[0])
        return name is not None and (not sources or not self._sources(name).isdisjoint(sources))

    def shuffles(self, sources: Collection[str]) -> int:
        """Returns the number of shuffles of channels of ``sources``."""
        return sum(not self._sources(name).isdisjoint(sources) for name in self._shuffled)

    def groups(self) -> Iterator[list[str]]:
        """Yields tensors that other nodes read, with channels of the same sources, one shuffled."""
        groups: list[tuple[set[str], list[str]]] = []
        for name in self.channels:
            if name in self.outputs or not all(map(self.moves, self.readers[name])):
                joined, names = self._sources(name), [name]
                for group in [each for each in groups if not each[0].isdisjoint(joined)]:
                    groups.remove(group)
                    joined, names = joined | group[0], group[1] + names
                groups.append((joined, names))
        yield from (names for sources, names in groups if self.shuffles(sources))

    def conv_of(self, name: str) -> Any | None:
        """Returns the convolution without groups that makes a tensor, or what it clips."""
        maker = self._makers.get(name)
        if maker is not None and maker.op_type in _ACTIVATIONS:
            before = maker.input[0]
            alone = len(self.readers[before]) == 1 and before not in self.outputs
            maker = self._makers.get(before) if alone else None
        return maker if maker is not None and self.mixes(maker) else None

    def mixes(self, node: Any) -> bool:
        """Returns whether a node is a convolution whose every result depends on all channels."""
        return self._is_conv(node) and attributes(node).get("group", 1) == 1

    def behind_depthwise(self, node: Any) -> list[Any]:
        """Returns the convolutions without groups that alone read a depthwise one; else []."""
        if not self._is_conv(node) or self.constants[node.input[1]].shape[1] > 1:
            return []
        if attributes(node).get("group", 1) != len(self.constants[node.input[1]]):
            return []
        name = node.output[0]
        readers = self.readers[name]
        if len(readers) == 1 and readers[0].op_type in _ACTIVATIONS and name not in self.outputs:
            name = readers[0].output[0]
            readers = self.readers[name]
        return readers if name not in self.outputs and all(map(self.mixes, readers)) else []

    def write(self, conv: Any, index: int, values: npt.NDArray[Any]) -> None:
        """Gives a convolution other weights (``index`` 1) or biases (2).

        They are a constant of its own, as others may share the old one.
        """
        from onnx.numpy_helper import from_array

        name = f"{conv.output[0]}/{'weight' if index == 1 else 'bias'}"
        conv.input[index] = name
        self.constants[name] = values
        old = [tensor for tensor in self._graph.initializer if tensor.name == name]
        (old[0] if old else self._graph.initializer.add()).CopyFrom(from_array(values, name))

    def _is_conv(self, node: Any) -> bool:
        return node.op_type == "Conv" and all(name in self.constants for name in node.input[1:])

    def _sources(self, name: str) -> set[str]:
        return {channel.source for channel in self.channels[name]}

    def _channels_of(self, name: str) -> Channels | None:
        if name not in self.channels and (conv := self.conv_of(name)) is not None:
            count = len(self.constants[conv.input[1]])
            self.channels[name] = tuple(Channel(name, number) for number in range(count))
        return self.channels.get(name)

    def _shuffle(self, node: Any) -> list[Any]:
        """Returns the nodes of the shuffle that may begin with a Reshape; or that one alone."""
        nodes = [node]
        for kind in ("Transpose", "Reshape"):
            readers = self.readers[nodes[-1].output[0]]
            if [each.op_type for each in readers] != [kind] or nodes[-1].output[0] in self.outputs:
                return [node]
            nodes += readers
        return nodes

    def _swapped(self, nodes: list[Any]) -> list[Channels]:
        """Returns what channels the last node of a shuffle makes; [] if it is none."""
        channels = self._channels_of(nodes[0].input[0])
        split, merged = (self.constants.get(node.input[1]) for node in nodes[::2])
        if channels is None or split is None or merged is None:
            return []
        if attributes(nodes[1]).get("perm") != _SWAP or len(split) != 5 or len(merged) != 4:
            return []
        groups, size = split[1:3].tolist()
        if groups * size != len(channels) or merged[1] != len(channels):
            return []
        return [tuple(channel for index in range(size) for channel in channels[index::size])]

    def _arranged(self, node: Any) -> list[Channels]:
        """Returns what channels each output of a Concat or Split has; [] where that is unknown."""
        if attributes(node).get("axis", 0) != 1:
            return []
        if node.op_type == "Concat":
            inputs = [self._channels_of(name) for name in node.input]
            known = [channels for channels in inputs if channels is not None]
            return [tuple(chain(*known))] if len(known) == len(inputs) else []
        if node.op_type != "Split" or (channels := self._channels_of(node.input[0])) is None:
            return []
        size = -(-len(channels) // len(node.output))  # of all but the last, unless sizes are given
        sizes: Iterable[int] = repeat(size, len(node.output))
        if len(node.input) > 1:
            sizes = self.constants.get(node.input[1], ())
        ends = accumulate(sizes, initial=0)
        return [channels[start:end] for start, end in pairwise(ends)]
